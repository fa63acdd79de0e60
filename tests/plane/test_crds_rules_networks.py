"""SpiderIPPool and SpiderSubnet by their CRDs alone: no webhook is registered here. The embedded plane has no CEL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from allocator.kube import errors
from allocator.kube.resources import SPIDER_IP_POOLS, SPIDER_SUBNETS
from tests.plane.crds import RESOURCES, refusal
from tests.plane.webhooks import pool, subnet

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object

pytestmark = pytest.mark.real_plane

V4, V6 = "10.20.0.0/16", "fd00:7::/64"
BOTH_KINDS = pytest.mark.parametrize("make", [pool, subnet], ids=["pool", "subnet"])

RIGHT: dict[str, dict[str, Any]] = {
    "a range": {"subnet": V4, "ips": ["10.20.0.10-10.20.0.59"], "gateway": "10.20.0.1"},
    "all of a /64": {"subnet": V6, "ips": ["fd00:7::-fd00:7::ffff:ffff:ffff:ffff"]},
    "everything": {"subnet": "::/0", "ips": ["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]},
    "nothing": {"subnet": V4, "ips": [], "excludeIPs": [], "routes": []},
    "typed twice": {"subnet": V4, "ips": ["10.20.0.9", "10.20.0.9"]},
    "one address as a range": {"subnet": V4, "ips": ["10.20.0.9-10.20.0.9"]},
    "one IPv6 address as a range": {"subnet": V6, "ips": ["fd00:7::9-FD00:7:0:0::9"]},
    "ascending in the last group": {"subnet": V6, "ips": ["fd00:7::9-fd00:7::10"]},
    "ascending by a longer group": {"subnet": V6, "ips": ["fd00:7::ffff-fd00:7::1:0"]},
    "ascending, written out": {"subnet": V6, "ips": ["fd00:7:0:0:0:0:0:000a-FD00:7::00B"]},
    "ascending from the network": {
        "subnet": "::/0",
        "ips": ["::-1::", "::5-0:0:0:1::", "1:2:3:4:5:6:7::-1:2:3:4:5:6:8::"],
    },
    "dotted end": {"subnet": "64:ff9b::/96", "ips": ["64:ff9b::10.0.0.1-64:ff9b::10.0.0.9"]},
    "gateway excluded": {
        "subnet": V4,
        "ips": ["10.20.0.1-10.20.0.9"],
        "gateway": "10.20.0.5",
        "excludeIPs": ["10.20.0.4-10.20.0.6"],
    },
    "IPv6 gateway excluded": {
        "subnet": V6,
        "ips": ["fd00:7::1-fd00:7::ffff"],
        "gateway": "fd00:7::5",
        "excludeIPs": ["fd00:7::4-fd00:7::a"],
    },
    "gateway right below": {"subnet": V4, "ips": ["10.20.0.2-10.20.0.9"], "gateway": "10.20.0.1"},
    "gateway right above": {"subnet": V6, "ips": ["fd00:7::2-fd00:7::f"], "gateway": "fd00:7::10"},
    "routes": {
        "subnet": V4,
        "routes": [{"dst": "10.99.0.1/16", "gw": "10.20.0.1"}, {"dst": "10.98.0.0/16", "gw": "10.20.0.1"}],
    },
}

# What is refused, where, and a word of the message.
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no CIDR": ({"subnet": "10.20.0.0"}, "spec.subnet", "is not a CIDR"),
    "host bits": ({"subnet": "10.20.0.1/16"}, "spec.subnet", "without host bits"),
    "upper case": ({"subnet": "FD00::/64"}, "spec.subnet", "canonical"),
    "netmask": ({"subnet": "10.20.0.0/255.255.0.0"}, "spec.subnet", "is not a CIDR"),
    "mapped network": ({"subnet": "::ffff:10.20.0.0/112"}, "spec.subnet", "is not a CIDR"),
    "other family": ({"subnet": V4, "ipVersion": 6}, "spec.subnet", "leave spec.ipVersion out"),
    "no family": ({"subnet": V4, "ipVersion": 5}, "spec.ipVersion", "supported values"),
    "empty item": ({"subnet": V4, "ips": [""]}, "spec.ips[0]", "neither an address nor a range"),
    "reversed": ({"subnet": V4, "ips": ["10.20.0.9-10.20.0.1"]}, "spec.ips[0]", 'write "10.20.0.1-10.20.0.9"'),
    "reversed in a high octet": ({"subnet": "10.0.0.0/8", "ips": ["10.30.0.1-10.20.0.9"]}, "spec.ips[0]", "reversed"),
    "reversed exclusion": ({"subnet": V4, "excludeIPs": ["10.20.1.0-10.20.0.9"]}, "spec.excludeIPs[0]", "reversed"),
    "blanks": ({"subnet": V4, "ips": ["10.20.0.1 - 10.20.0.9"]}, "spec.ips[0]", 'write "10.20.0.1-10.20.0.9"'),
    "a CIDR": ({"subnet": V4, "ips": ["10.20.0.0/24"]}, "spec.ips[0]", "write a range"),
    "three ends": ({"subnet": V4, "ips": ["10.20.0.1-10.20.0.2-10.20.0.3"]}, "spec.ips[0]", "neither an address"),
    "leading zero": ({"subnet": V4, "ips": ["10.20.0.010"]}, "spec.ips[0]", "neither an address"),
    "mapped": ({"subnet": V4, "ips": ["::FFFF:10.20.0.1"]}, "spec.ips[0]", "IPv4-mapped"),
    "zone": ({"subnet": V6, "ips": ["fd00:7::1%eth0"]}, "spec.ips[0]", "zone"),
    "outside": ({"subnet": V4, "ips": ["10.21.0.1"]}, "spec.ips", f"outside spec.subnet {V4}"),
    "last outside": ({"subnet": V4, "ips": ["10.20.0.1-10.21.0.1"]}, "spec.ips", f"outside spec.subnet {V4}"),
    "outside exclusion": ({"subnet": V4, "excludeIPs": ["10.22.0.1"]}, "spec.excludeIPs", "outside spec.subnet"),
    "two families": ({"subnet": V4, "ips": ["10.20.0.1-fd00:7::1"]}, "spec.ips", "outside spec.subnet"),
    "reversed IPv6": ({"subnet": V6, "ips": ["fd00:7::9-fd00:7::1"]}, "spec.ips", "reversed"),
    "reversed IPv6 behind right ones": (
        {"subnet": V6, "ips": ["fd00:7::1", "fd00:7::2-fd00:7::9", "fd00:7::1:0-fd00:7::ffff"]},
        "spec.ips",
        "reversed",
    ),
    "reversed in the first group": ({"subnet": "::/0", "ips": ["ffff::-fffe::ffff"]}, "spec.ips", "reversed"),
    "reversed around zeros": ({"subnet": "::/0", "ips": ["0:0:0:1::-::5"]}, "spec.ips", "reversed"),
    "reversed by the last group": (
        {"subnet": "::/0", "ips": ["1:2:3:4:5:6:7:8-1:2:3:4:5:6:7::"]},
        "spec.ips",
        "reversed",
    ),
    "reversed in upper case": ({"subnet": V6, "ips": ["FD00:7::B-fd00:7::a"]}, "spec.ips", "reversed"),
    "reversed IPv6 exclusion": ({"subnet": V6, "excludeIPs": ["fd00:7::9-fd00:7::1"]}, "spec.excludeIPs", "reversed"),
    "gateway handed out": (
        {"subnet": V4, "ips": ["10.20.0.1-10.20.0.9"], "gateway": "10.20.0.5", "excludeIPs": ["10.20.0.6"]},
        "spec.ips",
        "gateway 10.20.0.5; take it out",
    ),
    "gateway at the end": (
        {"subnet": V4, "ips": ["10.20.0.1-10.20.1.4"], "gateway": "10.20.1.4"},
        "spec.ips",
        "gateway",
    ),
    "IPv6 gateway handed out": ({"subnet": V6, "ips": ["fd00:7::1"], "gateway": "fd00:7:0::1"}, "spec.ips", "gateway"),
    "IPv6 gateway in a range": (
        {"subnet": V6, "ips": ["fd00:7::1-fd00:7::ffff"], "gateway": "fd00:7::abc", "excludeIPs": ["fd00:7::abd"]},
        "spec.ips",
        "gateway fd00:7::abc; take it out",
    ),
    "IPv6 gateway in a wide range": (
        {"subnet": "fd00::/16", "ips": ["fd00::9-fd00:8::"], "gateway": "fd00:7:ffff::1"},
        "spec.ips",
        "gateway",
    ),
    "gateway outside": ({"subnet": V4, "gateway": "10.21.0.1"}, "spec.gateway", f"outside spec.subnet {V4}"),
    "gateway of the other family": ({"subnet": V4, "gateway": "fd00:7::1"}, "spec.gateway", "outside spec.subnet"),
    "gateway no address": ({"subnet": V4, "gateway": "router"}, "spec.gateway", "is not an IP address"),
    "empty gateway": ({"subnet": V4, "gateway": ""}, "spec.gateway", "is not an IP address"),
    "mapped gateway": ({"subnet": V4, "gateway": "::ffff:10.20.0.1"}, "spec.gateway", "is not an IP address"),
    "default route": (
        {"subnet": V4, "routes": [{"dst": "0.0.0.0/0", "gw": "10.20.0.1"}]},
        "spec.routes[0].dst",
        "default",
    ),
    "default route in other words": (
        {"subnet": V4, "routes": [{"dst": "10.99.0.0/0", "gw": "10.20.0.1"}]},
        "spec.routes[0].dst",
        "set spec.gateway instead",
    ),
    "IPv6 default route": (
        {"subnet": V6, "routes": [{"dst": "::0/0", "gw": "fd00:7::1"}]},
        "spec.routes[0].dst",
        "default",
    ),
    "route to no network": (
        {"subnet": V4, "routes": [{"dst": "10.99.0.0", "gw": "10.20.0.1"}]},
        "spec.routes[0].dst",
        "is not a CIDR",
    ),
    "route of the other family": (
        {"subnet": V4, "routes": [{"dst": "fd00:9::/64", "gw": "10.20.0.1"}]},
        "spec.routes",
        "of its family",
    ),
    "next hop outside": ({"subnet": V4, "routes": [{"dst": "10.99.0.0/16", "gw": "10.21.0.1"}]}, "spec.routes", V4),
    "next hop no address": (
        {"subnet": V4, "routes": [{"dst": "10.99.0.0/16", "gw": "router"}]},
        "spec.routes[0].gw",
        "is not an IP address",
    ),
    "same route twice": (
        {"subnet": V4, "routes": [{"dst": "10.99.0.0/16", "gw": "10.20.0.1"}] * 2},
        "spec.routes[1]",
        "Duplicate",
    ),
    "same route in other words": (
        {"subnet": V4, "routes": [{"dst": f"10.99.0.{host}/16", "gw": "10.20.0.1"} for host in (0, 1)]},
        "spec.routes",
        "same destination",
    ),
    "too many": ({"subnet": V4, "ips": ["10.20.0.9"] * 4097}, "spec.ips", "4096"),
}


@BOTH_KINDS
@pytest.mark.parametrize("spec", RIGHT.values(), ids=RIGHT.keys())
async def test_what_is_right_is_accepted(kube: KubeClient, make: Any, spec: dict[str, Any]) -> None:
    assert (await refusal(kube, make("p", **spec))).text == ""


@BOTH_KINDS
@pytest.mark.parametrize(("spec", "field", "word"), WRONG.values(), ids=WRONG.keys())
async def test_what_is_wrong_is_refused_without_the_webhook(
    kube: KubeClient, make: Any, spec: dict[str, Any], field: str, word: str
) -> None:
    found = await refusal(kube, make("p", **spec))
    assert found.fields == [field], found.text
    assert word in found.text


@BOTH_KINDS
async def test_every_fault_is_told_at_once(kube: KubeClient, make: Any) -> None:
    spec = {"subnet": V4, "ips": ["x", "10.21.0.1"], "excludeIPs": ["10.22.0.1"], "gateway": "10.23.0.1"}
    found = await refusal(kube, make("p", **spec))
    assert found.fields == ["spec.excludeIPs", "spec.gateway", "spec.ips", "spec.ips[0]"]


@BOTH_KINDS
async def test_the_spec_must_be_there(kube: KubeClient, make: Any) -> None:
    obj: Object = make("p")
    del obj["spec"]
    assert (await refusal(kube, obj)).fields == ["spec"]


def dotted(count: int) -> list[str]:
    return [f"10.{100 + n // 256}.{n % 256}.100-10.{100 + n // 256}.{n % 256}.200" for n in range(count)]


def grouped(count: int) -> list[str]:
    prefix = "fd00:1111:2222:3333:4444:5555"
    return [f"{prefix}:{0x1000 + n:x}:1111-{prefix}:{0x1000 + n:x}:ffff" for n in range(count)]


@BOTH_KINDS
@pytest.mark.parametrize(
    ("network", "ranges", "gateway", "routes"),
    [
        ("10.0.0.0/8", dotted(4096), "10.0.0.1", [f"11.{n // 256}.{n % 256}.1/24" for n in range(512)]),
        ("10.0.0.0/8", dotted(4096), "10.115.255.150", []),
        ("fd00::/16", grouped(4096), "fd00::1", [f"fe80:{n:x}::/32" for n in range(512)]),
        ("fd00::/16", grouped(1024), "fd00:1111:2222:3333:4444:5555:13ff:7777", []),
    ],
    ids=["IPv4", "IPv4 gateway in the last", "IPv6", "IPv6 gateway in the last"],
)
async def test_the_longest_lists_are_judged_within_the_cost_limit(
    kube: KubeClient, make: Any, network: str, ranges: list[str], gateway: str, routes: list[str]
) -> None:
    way = [{"dst": route, "gw": gateway} for route in routes]
    obj = make("p", subnet=network, ips=ranges, excludeIPs=ranges, gateway=gateway, routes=way)
    assert (await refusal(kube, obj)).text == ""


async def test_ipv6_is_compared_in_lists_of_up_to_1024(kube: KubeClient) -> None:
    for count, fields in ((1024, ["spec.ips"]), (1025, [])):
        ranges = [*grouped(count - 1), "fd00::9-fd00::1"]
        assert (await refusal(kube, pool("p", subnet="fd00::/16", ips=ranges))).fields == fields


@BOTH_KINDS
@pytest.mark.parametrize("change", [{"subnet": "10.20.0.0/17"}, {"ipVersion": 6}], ids=str)
async def test_subnet_and_family_are_immutable(kube: KubeClient, make: Any, change: dict[str, Any]) -> None:
    obj = make("p", subnet=V4, ipVersion=4)
    await kube.create(RESOURCES[obj["kind"]], obj)
    with pytest.raises(errors.Invalid, match="immutable"):
        await kube.patch(RESOURCES[obj["kind"]], "p", {"spec": change})


@pytest.mark.parametrize("resource", [SPIDER_IP_POOLS, SPIDER_SUBNETS], ids=["pool", "subnet"])
async def test_the_spec_cannot_be_taken_out_and_put_back_changed(kube: KubeClient, resource: Any) -> None:
    await kube.create(resource, (pool if resource is SPIDER_IP_POOLS else subnet)("p", subnet=V4))
    with pytest.raises(errors.Invalid, match="must be given"):
        await kube.patch(resource, "p", {"spec": None})
