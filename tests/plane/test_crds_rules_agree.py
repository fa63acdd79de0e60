"""Webhook and CRD say the same of an object by itself, but for what is listed here. The embedded plane has no CEL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from allocator.domain import defaulting, validation
from tests.plane import test_crds_rules_networks as networks
from tests.plane import test_crds_rules_others as others
from tests.plane import test_crds_rules_selectors as selectors
from tests.plane.crds import refusal
from tests.plane.webhooks import pool, reservation, subnet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object

pytestmark = pytest.mark.real_plane

V4, V6 = "10.20.0.0/16", "fd00:7::/64"
FAMILIES = validation.Families()

# Texts that parsers of addresses are known to disagree about.
ODD_TEXTS = (
    *("", " ", "-", ":", "::", "/", "0", "x", "router.example.com", "10.20.0.1", "fd00:7::1", "FD00:7::A"),
    *(" 10.20.0.1", "10.20.0.1 ", "10.20.0.1\n", "10.20.0.1\t", "\u200b10.20.0.1", "10.20.0.1\u2013", "1\u06f0.20.0.1"),
    *(
        "10.20.0",
        "10.20.1",
        "10.20.0.1.",
        "10.20.0.256",
        "10.20.0.01",
        "010.20.0.1",
        "0x0a.20.0.1",
        "169090601",
        "+1.2.3.4",
    ),
    *(
        "10.20.0.1-",
        "-10.20.0.1",
        "10.20.0.1--10.20.0.2",
        "10.20.0.1,10.20.0.2",
        "10.20.0.1-2",
        "10.20.0.1/32",
        "10.20.0.1%0",
    ),
    *(
        "fd00:7:::1",
        "fd00:7::1::2",
        "fd00:7::g",
        "fd00:7::12345",
        "fd00:7::00001",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
    ),
    *("[fd00:7::1]", "fd00:7::1%eth0", "fd00:7::1%", "fd00:7::10.20.0.1", "fd00:7::10.20.0.1.2", "fd00:7::1/128"),
    *("::ffff:10.20.0.1", "::ffff:a14:1", "0:0:0:0:0:ffff:10.20.0.1", "::10.20.0.1", "64:ff9b::10.20.0.1"),
)
ODD_NETWORKS = (
    *(V4, V6, "0.0.0.0/0", "::/0", "10.20.0.1/32", "fd00:7::1/128", "10.20.0.0", "10.20.0.0/", "/16", "10.20.0.0/33"),
    *(
        "10.20.0.0/016",
        "10.20.0.0/+16",
        "10.20.0.0/-1",
        "10.20.0.0/255.255.0.0",
        "10.20.0.0/0.0.255.255",
        "10.20.0.0/16/16",
    ),
    *(
        "10.20.0.0 /16",
        "10.20/16",
        "10.20.0.0/1\u06f6",
        "fd00:7::/129",
        "fd00:7::/ffff::",
        "fd00:7::%eth0/64",
        "FD00:7::/64",
    ),
    *(
        "fd00:7:0::/64",
        "fd00:7::1/64",
        "::ffff:10.20.0.0/112",
        "::ffff:0:0/96",
        "::10.20.0.0/112",
        "10.20.0.0/0",
        "::0/0",
    ),
)


def tabled() -> Iterator[tuple[str, Object]]:
    """The rows of the other tables."""
    for kind, make in (("pool", pool), ("subnet", subnet)):
        specs = [*networks.RIGHT.items(), *((name, spec) for name, (spec, _, _) in networks.WRONG.items())]
        yield from ((f"{kind}: {name}", make("p", **spec)) for name, spec in specs)
    chosen = [*selectors.RIGHT.items(), *((name, selector) for name, (selector, _, _) in selectors.WRONG.items())]
    yield from ((f"selector: {name}", pool("p", subnet=V4, podAffinity=selector)) for name, selector in chosen)
    yield from ((f"names: {name}", pool("p", subnet=V4, **spec)) for name, (spec, _) in selectors.NAMES.items())
    yield from ((f"reserved: {name}", reservation("r", **spec)) for name, (spec, *_) in others.RESERVATIONS.items())
    yield from ((f"endpoint: {name}", others.endpoint(**detail)) for name, (detail, _) in others.ENDPOINTS.items())


def odd() -> Iterator[tuple[str, Object]]:
    """Each odd text in each place where an address or a network stands."""
    for text in ODD_TEXTS:
        for network, far in ((V4, "10.99.0.0/16"), (V6, "fd00:99::/64")):
            yield f"item {text!r} of {network}", pool("p", subnet=network, ips=[text])
            yield f"gateway {text!r} of {network}", pool("p", subnet=network, gateway=text)
            yield f"next hop {text!r} of {network}", subnet("s", subnet=network, routes=[{"dst": far, "gw": text}])
        yield f"reserved {text!r}", reservation("r", ips=[text])
    for text in ODD_NETWORKS:
        yield f"subnet {text!r}", pool("p", subnet=text)
        for network, hop in ((V4, "10.20.0.1"), (V6, "fd00:7::1")):
            yield f"destination {text!r} of {network}", pool("p", subnet=network, routes=[{"dst": text, "gw": hop}])


BEYOND: list[tuple[str, Object]] = [
    ("reversed with dotted ends", pool("p", subnet="64:ff9b::/96", ips=["64:ff9b::10.0.0.9-64:ff9b::10.0.0.1"])),
    ("reversed in a long list", pool("p", subnet="fd00::/16", ips=[*networks.grouped(1024), "fd00::9-fd00::1"])),
    (
        "same route twice, both with host bits",
        pool("p", subnet=V4, routes=[{"dst": f"10.99.0.{host}/16", "gw": "10.20.0.1"} for host in (1, 2)]),
    ),
    (
        "automatic pool with a label of its own",
        {
            **pool("p", subnet=V4, podAffinity={"matchLabels": {"rack": "a"}}),
            "metadata": {"name": "p", "labels": {validation.AUTO_POOL_LABEL: "shop"}},
        },
    ),
]

ACCEPTS, REFUSES = "accepts", "refuses"
# What the webhook says, what the CRD says, and why they differ.
DIFFERENCES = {
    "pool: too many": (ACCEPTS, REFUSES, "the webhook merges before it counts"),
    "subnet: too many": (ACCEPTS, REFUSES, "the webhook merges before it counts"),
    "endpoint: VLAN": (ACCEPTS, REFUSES, "a matter of the schema, which is asked next"),
    "endpoint: a netmask": (ACCEPTS, REFUSES, "Python reads netmasks, too"),
    "reversed with dotted ends": (REFUSES, ACCEPTS, "CEL does not order that form of IPv6"),
    "reversed in a long list": (REFUSES, ACCEPTS, "the cost limit of the API server ends at 1,024 items of IPv6"),
    "same route twice, both with host bits": (REFUSES, ACCEPTS, "pairs of 512 routes are beyond the cost limit"),
    "automatic pool with a label of its own": (REFUSES, ACCEPTS, "CEL does not see the labels of the object"),
}


def judged_by_the_webhook(obj: Object) -> bool:
    """Whether it accepts the object, completed as its mutating side leaves it."""
    match obj["kind"]:
        case "SpiderIPPool":
            return not validation.validate_pool(defaulting.complete_pool(obj), FAMILIES)
        case "SpiderSubnet":
            return not validation.validate_subnet(defaulting.complete_subnet(obj), FAMILIES)
        case "SpiderReservedIP":
            return not validation.validate_reservation(defaulting.complete_reservation(obj), FAMILIES)
        case _:
            return not validation.validate_endpoint(obj)


async def test_they_agree_on_what_one_object_shows(kube: KubeClient) -> None:
    found: dict[str, Any] = {}
    for name, obj in (*tabled(), *odd(), *BEYOND):
        by_webhook = judged_by_the_webhook(obj)
        by_crd = await refusal(kube, obj)
        assert "evaluat" not in by_crd.text, f"{name}: {by_crd.text}"
        if by_webhook != (not by_crd.causes):
            found[name] = (ACCEPTS, REFUSES) if by_webhook else (REFUSES, ACCEPTS)
    assert found == {name: difference[:2] for name, difference in DIFFERENCES.items()}
