"""Creating, editing and deleting a SpiderSubnet, through the API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.plane.admission.driver import carry_out
from tests.plane.admission.rows import (
    ALREADY_EXISTS,
    allowed,
    annotated,
    create,
    delete,
    edit,
    forbidden,
    invalid,
    labelled,
    legacy,
    named,
    not_completed,
    record,
    stored,
    terminating,
    update,
    with_status,
)
from tests.plane.webhooks import pool, subnet

if TYPE_CHECKING:
    from tests.plane.admission.api import Api
    from tests.plane.admission.rows import Row

pytestmark = pytest.mark.asyncio(loop_scope="module")

V4, V6 = "10.20.0.0/16", "fd00:7::/64"
S = subnet("s", subnet=V4, ips=["10.20.0.10-10.20.0.250"], gateway="10.20.0.1")
A = pool("a", subnet=V4, ips=["10.20.0.10-10.20.0.20"])
FORCE = {"ipam.spidernet.io/force-in-use": "true"}

OWN = [
    create(
        "1: no family, since the completion was undone",
        not_completed(subnet("s", subnet=V4)),
        invalid(("Invalid", "spec.ipVersion", "null: cannot be derived")),
    ),
    create(
        "1: a family that there is not",
        subnet("s", subnet=V4, ipVersion=5),
        invalid(("NotSupported", "spec.ipVersion", "supported values")),
    ),
    create(
        "2: no CIDR, so no family",
        subnet("s", subnet="rack7"),
        invalid(("Invalid", "spec.ipVersion", "cannot be derived"), ("Invalid", "spec.subnet", "is not a CIDR")),
    ),
    create(
        "2: host bits", subnet("s", subnet="10.20.0.1/16"), invalid(("Invalid", "spec.subnet", 'write "10.20.0.0/16"'))
    ),
    create(
        "2: capitals", subnet("s", subnet="FD00:7::/64"), invalid(("Invalid", "spec.subnet", 'write "fd00:7::/64"'))
    ),
    create(
        "9: an item that is reversed",
        subnet("s", subnet=V4, ips=["10.20.0.9-10.20.0.1"]),
        invalid(("Invalid", "spec.ips[0]", "is reversed")),
    ),
    create(
        "9: items outside, of the other family, and IPv4-mapped",
        subnet("s", subnet=V4, ips=["10.20.255.0-10.21.0.1", "fd00:7::1", "::ffff:10.20.0.1"]),
        invalid(
            ("Invalid", "spec.ips[0]", "lies outside spec.subnet"),
            ("Invalid", "spec.ips[1]", "is IPv6, but an IPv4 address is needed"),
            ("Invalid", "spec.ips[2]", "is IPv4-mapped"),
        ),
    ),
    create(
        "10: wrong exclusions",
        subnet("s", subnet=V4, excludeIPs=["10.20.0.0/24", "10.21.0.1"]),
        invalid(("Invalid", "spec.excludeIPs[0]", "is a CIDR"), ("Invalid", "spec.excludeIPs[1]", "lies outside")),
    ),
    create(
        "11: a gateway outside",
        subnet("s", subnet=V4, gateway="10.21.0.1"),
        invalid(("Invalid", "spec.gateway", "lies outside spec.subnet")),
    ),
    create(
        "11: the gateway among the addresses",
        subnet("s", subnet=V4, ips=["10.20.0.1-10.20.0.9"], gateway="10.20.0.1"),
        invalid(("Invalid", "spec.ips[0]", "contains the gateway")),
    ),
    create(
        "11: the gateway excluded",
        subnet("s", subnet=V4, ips=["10.20.0.1-10.20.0.9"], excludeIPs=["10.20.0.1"], gateway="10.20.0.1"),
        allowed(),
    ),
    create(
        "12: wrong routes",
        subnet(
            "s",
            subnet=V6,
            routes=[
                {"dst": "::0/0", "gw": "fd00:7::fe"},
                {"dst": "fd00:99::/64", "gw": "fd00:8::1"},
                {"dst": "fd00:99:0::/64", "gw": "10.20.0.1"},
                {"dst": "10.99.0.0/16", "gw": "x"},
            ],
        ),
        invalid(
            ("Invalid", "spec.routes[0].dst", "is a default route"),
            ("Invalid", "spec.routes[1].gw", "lies outside"),
            ("Duplicate", "spec.routes[2].dst", "is the destination of spec.routes[1]"),
            ("Invalid", "spec.routes[2].gw", "is IPv4"),
            ("Invalid", "spec.routes[3].dst", "is IPv4"),
            ("Invalid", "spec.routes[3].gw", "is not an IP address"),
        ),
    ),
    create(
        "everything at once",
        subnet("s", subnet="10.20.0.1/16", ips=["10.21.0.1"], excludeIPs=["x"], gateway="router"),
        invalid(
            ("Invalid", "spec.subnet", "is not in canonical form"),
            ("Invalid", "spec.ips[0]", "lies outside"),
            ("Invalid", "spec.excludeIPs[0]", "is not an IP address"),
            ("Invalid", "spec.gateway", "is not an IP address"),
        ),
    ),
    create(
        "an IPv6 /64 as one range",
        subnet("s", subnet=V6, ips=["fd00:7::-fd00:7::ffff:ffff:ffff:ffff"]),
        allowed(),
    ),
    create("an IPv4 /8 as one range", subnet("s", subnet="10.0.0.0/8", ips=["10.0.0.0-10.255.255.255"]), allowed()),
]

BESIDE = [
    create("4: the name is taken", subnet("s", subnet="10.99.0.0/16"), ALREADY_EXISTS, S),
    create("4: the name is taken by one of the other family", subnet("s", subnet=V6), ALREADY_EXISTS, S),
    create("4: the name of a pool", subnet("a", subnet=V4, ips=["10.20.0.10-10.20.0.20"]), allowed(), A),
    create(
        "5: the same network",
        subnet("t", subnet=V4),
        invalid(("Invalid", "spec.subnet", 'overlaps 10.20.0.0/16 of SpiderSubnet "s"')),
        S,
    ),
    create(
        "5: a network within",
        subnet("t", subnet="10.20.7.0/24"),
        invalid(("Invalid", "spec.subnet", 'overlaps 10.20.0.0/16 of SpiderSubnet "s"')),
        S,
    ),
    create(
        "5: a network around two",
        subnet("t", subnet="fd00::/16"),
        invalid(
            ("Invalid", "spec.subnet", 'overlaps fd00:7::/64 of SpiderSubnet "s"'),
            ("Invalid", "spec.subnet", 'overlaps fd00:8::/64 of SpiderSubnet "u"'),
        ),
        subnet("s", subnet=V6),
        subnet("u", subnet="fd00:8::/64"),
    ),
    create("5: another network, and the other family", subnet("t", subnet=V6), allowed(), S),
    create(
        "5: one without label and family",
        subnet("t", subnet="10.20.7.0/24"),
        invalid(("Invalid", "spec.subnet", 'overlaps 10.20.0.0/16 of SpiderSubnet "s"')),
        legacy(subnet("s", subnet=V4)),
    ),
    create(
        "7: a pool of a network within",
        subnet("s", subnet=V4),
        invalid(("Invalid", "spec.subnet", 'overlaps 10.20.7.0/24 of SpiderIPPool "a"')),
        pool("a", subnet="10.20.7.0/24"),
    ),
    create(
        "7: a pool without label and family, of a network around",
        subnet("s", subnet=V4),
        invalid(("Invalid", "spec.subnet", 'overlaps 10.0.0.0/8 of SpiderIPPool "a"')),
        legacy(pool("a", subnet="10.0.0.0/8")),
    ),
    create(
        "8: a pool has more",
        subnet("s", subnet=V4, ips=["10.20.0.12-10.20.0.18"]),
        invalid(
            (
                "Invalid",
                "spec.ips",
                'must include what SpiderIPPool "a" already has: add 10.20.0.10-10.20.0.11, 10.20.0.19-10.20.0.20',
            )
        ),
        A,
    ),
    create(
        "8: two pools have more",
        subnet("s", subnet=V4),
        invalid(
            ("Invalid", "spec.ips", 'SpiderIPPool "a" already has: add 10.20.0.10-10.20.0.20'),
            ("Invalid", "spec.ips", 'SpiderIPPool "b" already has: add 10.20.0.30'),
        ),
        A,
        pool("b", subnet=V4, ips=["10.20.0.30"]),
    ),
    create(
        "8: excluded from the subnet and from its pool",
        subnet("s", subnet=V4, ips=["10.20.0.10-10.20.0.20"], excludeIPs=["10.20.0.15"]),
        allowed(),
        pool("a", subnet=V4, ips=["10.20.0.10-10.20.0.20"], excludeIPs=["10.20.0.15"]),
    ),
    create("8: all that a pool has", S, allowed(), A),
]


def automatic(name: str, *ips: str) -> dict[str, Any]:
    """A pool that was made for an application."""
    return labelled(pool(name, subnet=V4, ips=[*ips]), **{"ipam.spidernet.io/owner-application-name": "cart"})


AUTO = automatic("auto4-cart", "10.20.0.30-10.20.0.39")
LENT = json.dumps({"auto4-cart": {"ips": ["10.20.0.30-10.20.0.39"], "application": "apps_v1_Deployment_shop_cart"}})
EDITED = [
    update(
        "update 1: another family",
        S,
        {"ipVersion": 6},
        invalid(("Forbidden", "spec.ipVersion", "is immutable"), ("Invalid", "spec.subnet", "is IPv4, but")),
    ),
    update(
        "update 1: another subnet",
        S,
        {"subnet": "10.20.0.0/17"},
        invalid(("Forbidden", "spec.subnet", 'is immutable: keep "10.20.0.0/16"')),
    ),
    update(
        "update 1: no family: it is filled in again",
        S,
        {"ipVersion": None},
        stored(ipVersion=4, subnet=V4, ips=["10.20.0.10-10.20.0.250"], gateway="10.20.0.1"),
    ),
    update(
        "update 2: a family that there is not",
        S,
        {"ipVersion": 5},
        invalid(("Forbidden", "spec.ipVersion", "is immutable"), ("NotSupported", "spec.ipVersion", "supported")),
    ),
    update(
        "update 3: everything at once",
        S,
        {
            "ips": ["10.20.0.9-10.20.0.1", "10.21.0.1"],
            "excludeIPs": ["x"],
            "gateway": "10.21.0.1",
            "routes": [{"dst": "10.99.0.0", "gw": "y"}],
        },
        invalid(
            ("Invalid", "spec.ips[0]", "is reversed"),
            ("Invalid", "spec.ips[1]", "lies outside"),
            ("Invalid", "spec.excludeIPs[0]", "is not an IP address"),
            ("Invalid", "spec.gateway", "lies outside"),
            ("Invalid", "spec.routes[0].dst", "is not a CIDR"),
            ("Invalid", "spec.routes[0].gw", "is not an IP address"),
        ),
    ),
    update(
        "update 4: addresses that a pool has are taken away",
        S,
        {"ips": ["10.20.0.15-10.20.0.250"]},
        invalid(("Forbidden", "spec.ips", 'lent to SpiderIPPool "a": 10.20.0.10-10.20.0.14')),
        A,
    ),
    update(
        "update 4: addresses that two pools have are excluded",
        S,
        {"excludeIPs": ["10.20.0.20-10.20.0.30"]},
        invalid(
            ("Forbidden", "spec.ips", 'lent to SpiderIPPool "a": 10.20.0.20'),
            ("Forbidden", "spec.ips", 'lent to SpiderIPPool "b": 10.20.0.30'),
        ),
        A,
        pool("b", subnet=V4, ips=["10.20.0.30"]),
    ),
    update(
        "update 4: addresses that the status lends",
        with_status(S, controlledIPPools=LENT),
        {"excludeIPs": ["10.20.0.35-10.20.0.45"]},
        invalid(("Forbidden", "spec.ips", 'lent to SpiderIPPool "auto4-cart": 10.20.0.35-10.20.0.39')),
    ),
    update(
        "update 4: a status that cannot be read",
        with_status(S, controlledIPPools="{"),
        {"excludeIPs": ["10.20.0.35-10.20.0.45"]},
        allowed(),
    ),
    update("update 4: addresses that nobody has", S, {"ips": ["10.20.0.10-10.20.0.20"]}, allowed(), A),
    update(
        "update 4: in a /64",
        subnet("s", subnet=V6, ips=["fd00:7::-fd00:7::ffff:ffff:ffff:ffff"]),
        {"excludeIPs": ["fd00:7::-fd00:7::ff"]},
        invalid(("Forbidden", "spec.ips", 'lent to SpiderIPPool "a": fd00:7::10')),
        pool("a", subnet=V6, ips=["fd00:7::10"]),
    ),
    edit(
        "update 4: forced",
        S,
        {"metadata": {"annotations": FORCE}, "spec": {"ips": ["10.20.0.15-10.20.0.250"]}},
        allowed("forced by the annotation"),
        A,
    ),
    update("update: gateway and routes", S, {"gateway": "10.20.0.2", "routes": []}, allowed(), A),
    edit(
        "update: a subnet that is being deleted",
        terminating(S),
        {"spec": {"ips": ["10.20.0.10"]}},
        forbidden('"s" is forbidden: it is being deleted'),
    ),
    edit("update: the finalizer is taken off", terminating(S), {"metadata": {"finalizers": None}}, allowed()),
    update(
        "update: an old subnet over another one",
        legacy(subnet("s", subnet="10.20.7.0/24")),
        {"ips": ["10.20.7.7"]},
        allowed(),
        legacy(subnet("t", subnet=V4)),
    ),
]

DELETED = [
    delete("delete: no pools", S, allowed()),
    delete("delete: a pool of another network", S, allowed(), pool("b", subnet="10.21.0.0/16", ips=["10.21.0.1"])),
    delete("delete: a pool without addresses", S, allowed(), pool("b", subnet=V4)),
    delete(
        "delete: a pool that a person made", S, forbidden('"s" is forbidden: 1 SpiderIPPool has addresses of it: a'), A
    ),
    delete(
        "delete: seven pools",
        S,
        forbidden("7 SpiderIPPools have addresses of it: p0, p1, p2, p3, p4 and 2 more"),
        *(pool(f"p{n}", subnet=V4, ips=[f"10.20.0.{100 + n}"]) for n in range(7)),
    ),
    delete("delete: an automatic pool in the status", with_status(S, controlledIPPools=LENT), allowed()),
    delete(
        "delete: automatic pools without pods go with it",
        with_status(S, controlledIPPools=LENT),
        allowed(),
        AUTO,
        record("10.20.0.31", AUTO["metadata"]["name"], state="Cooling", until="2036-01-01T00:00:00.000000Z"),
        record("10.20.0.32", "another"),
    ),
    delete(
        "delete: automatic pools with pods",
        with_status(S, controlledIPPools=LENT),
        forbidden('"s" is forbidden: 1 address of its automatic pools is in use: 10.20.0.31 (pod shop/cart-0); delete'),
        AUTO,
        record("10.20.0.31", "auto4-cart"),
    ),
    delete(
        "delete: many automatic pools, and one that a person made",
        S,
        forbidden(
            "1 SpiderIPPool has addresses of it: a, and 2 addresses of its automatic pools are in use: 10.20.0.100"
        ),
        A,
        *(automatic(f"auto4-{n}", f"10.20.0.{100 + n}") for n in range(9)),
        record("10.20.0.100", "auto4-0"),
        record("10.20.0.108", "auto4-8"),
        record("10.20.0.11", "a"),
    ),
    delete("delete: the count in the status is old", with_status(S, allocatedIPCount=3), allowed()),
    delete("delete: a pool in use", S, forbidden("SpiderIPPool has addresses of it: a"), A, record("10.20.0.11", "a")),
    delete("delete: forced", annotated(S, **FORCE), allowed("forced by the annotation"), A),
]

TABLE = named([*OWN, *BESIDE, *EDITED, *DELETED])


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
async def test_creating_editing_and_deleting_a_subnet(api: Api, row: Row) -> None:
    await carry_out(api, row)
