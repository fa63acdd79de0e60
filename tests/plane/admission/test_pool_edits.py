"""Editing and deleting a SpiderIPPool, through the API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plane.admission.driver import carry_out
from tests.plane.admission.rows import (
    FINALIZER,
    allowed,
    annotated,
    delete,
    edit,
    forbidden,
    invalid,
    labelled,
    legacy,
    named,
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
P = pool("p", subnet=V4, ips=["10.20.0.10-10.20.0.19"], gateway="10.20.0.1")
FORCE = {"ipam.spidernet.io/force-in-use": "true"}
UNTIL = "2036-01-01T00:00:00.000000Z"
SLOT = {"apiVersion": "apps/v1", "kind": "StatefulSet", "namespace": "shop", "name": "cart", "ordinal": 0}
RECORDED = '{"10.20.0.11":{"pod":"shop/cart-0","podUid":"u"}}'
EIGHT = [record(f"10.20.0.{n}", "p", f"shop/cart-{n}") for n in range(10, 18)]

IMMUTABLE = [
    update(
        "1: another family",
        P,
        {"ipVersion": 6},
        invalid(
            ("Forbidden", "spec.ipVersion", "is immutable: keep"),
            ("Invalid", "spec.subnet", "is IPv4, but spec.ipVersion is 6"),
        ),
    ),
    update(
        "1: no family: it is filled in again",
        P,
        {"ipVersion": None},
        stored(ipVersion=4, subnet=V4, ips=["10.20.0.10-10.20.0.19"], gateway="10.20.0.1"),
    ),
    update(
        "2: another subnet",
        P,
        {"subnet": "10.20.0.0/17"},
        invalid(("Forbidden", "spec.subnet", 'is immutable: keep "10.20.0.0/16"')),
    ),
    update(
        "2: another subnet that does not fit",
        P,
        {"subnet": "10.21.0.0/16"},
        invalid(
            ("Forbidden", "spec.subnet", "is immutable"),
            ("Invalid", "spec.ips[0]", "lies outside"),
            ("Invalid", "spec.gateway", "lies outside"),
        ),
    ),
    update(
        "2: no subnet",
        P,
        {"subnet": None},
        invalid(("Forbidden", "spec.subnet", "is immutable"), ("Required", "spec.subnet", "write the network")),
    ),
    update(
        "3: a family that there is not",
        P,
        {"ipVersion": 5},
        invalid(
            ("Forbidden", "spec.ipVersion", "is immutable"), ("NotSupported", "spec.ipVersion", "supported values")
        ),
    ),
]

RULES = [
    edit(
        "no spec",
        P,
        {"spec": None},
        invalid(("Forbidden", "spec.subnet", "is immutable"), ("Required", "spec", "describe the object")),
    ),
    update(
        "4, 5: everything at once",
        P,
        {
            "ips": ["10.20.0.9-10.20.0.1"],
            "excludeIPs": ["10.21.0.1"],
            "gateway": "router",
            "routes": [{"dst": "::/0", "gw": "10.20.0.1"}, {"dst": "10.99.0.0/16", "gw": "10.21.0.1"}],
            "podAffinity": {"matchLabels": {"-": "a"}},
            "namespaceAffinity": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
        },
        invalid(
            ("Invalid", "spec.ips[0]", "is reversed"),
            ("Invalid", "spec.excludeIPs[0]", "lies outside"),
            ("Invalid", "spec.gateway", "is not an IP address"),
            ("Invalid", "spec.routes[0].dst", "is a default route"),
            ("Invalid", "spec.routes[1].gw", "lies outside"),
            ("Invalid", "spec.podAffinity.matchLabels", "is no label key"),
            ("Forbidden", "spec.namespaceAffinity.matchExpressions[0].values", "takes no values"),
        ),
    ),
    update(
        "4: the gateway moves into ips",
        P,
        {"gateway": "10.20.0.10"},
        invalid(("Invalid", "spec.ips[0]", "contains the gateway 10.20.0.10")),
    ),
    update(
        "4: the same route twice",
        P,
        {"routes": [{"dst": "10.99.0.0/16", "gw": "10.20.0.254"}] * 2},
        invalid(("Duplicate", "spec.routes[1].dst", "is the destination of spec.routes[0]")),
    ),
    update(
        "4: the pool is not in its own way",
        P,
        {"ips": ["10.20.0.15-10.20.0.30"]},
        stored(ipVersion=4, subnet=V4, ips=["10.20.0.15-10.20.0.30"], gateway="10.20.0.1"),
    ),
    update(
        "4: addresses of another pool",
        P,
        {"ips": ["10.20.0.10-10.20.0.30"]},
        invalid(("Forbidden", "spec.ips", '10.20.0.20 already belongs to SpiderIPPool "b"')),
        pool("b", subnet=V4, ips=["10.20.0.20"]),
    ),
    update(
        "4: exclusions that give addresses of another pool back",
        pool("p", subnet=V4, ips=["10.20.0.10-10.20.0.30"], excludeIPs=["10.20.0.20"]),
        {"excludeIPs": None},
        invalid(("Forbidden", "spec.ips", '10.20.0.20 already belongs to SpiderIPPool "b"')),
        pool("b", subnet=V4, ips=["10.20.0.20"]),
    ),
    update("5: an empty podAffinity", P, {"podAffinity": {}}, invalid(("Invalid", "spec.podAffinity", "is empty"))),
    update(
        "items are merged",
        P,
        {"ips": ["10.20.0.21", "10.20.0.10-10.20.0.20", "10.20.0.12"]},
        stored(ipVersion=4, subnet=V4, ips=["10.20.0.10-10.20.0.21"], gateway="10.20.0.1"),
    ),
]

IN_USE = [
    update(
        "7: an address in use is taken away",
        P,
        {"ips": ["10.20.0.12-10.20.0.19"]},
        invalid(("Forbidden", "spec.ips", "in use: 10.20.0.11 (pod shop/cart-0)")),
        record("10.20.0.11", "p"),
    ),
    update(
        "7: an address in use is excluded",
        P,
        {"excludeIPs": ["10.20.0.11"]},
        invalid(("Forbidden", "spec.ips", "in use: 10.20.0.11 (pod shop/cart-0)")),
        record("10.20.0.11", "p"),
    ),
    update(
        "7: an IPv6 address in use is taken away from a /64",
        pool("p", subnet=V6, ips=["fd00:7::-fd00:7::ffff:ffff:ffff:ffff"]),
        {"excludeIPs": ["fd00:7::10-fd00:7::1f"]},
        invalid(("Forbidden", "spec.ips", "in use: fd00:7::11 (pod shop/cart-0)")),
        record("fd00:7::11", "p"),
    ),
    update(
        "7: all addresses are taken away",
        P,
        {"ips": None},
        invalid(("Forbidden", "spec.ips", "(pod shop/cart-14) and 3 more")),
        *EIGHT,
    ),
    update(
        "7: in use, and wrong",
        P,
        {"ips": ["10.20.0.12"], "gateway": "router"},
        invalid(("Invalid", "spec.gateway", "is not an IP address"), ("Forbidden", "spec.ips", "in use: 10.20.0.11")),
        record("10.20.0.11", "p"),
    ),
    update(
        "7: kept for a StatefulSet's pod",
        P,
        {"ips": ["10.20.0.12"]},
        invalid(("Forbidden", "spec.ips", "in use: 10.20.0.11")),
        record("10.20.0.11", "p", state="Retained", slot=SLOT),
    ),
    update(
        "7: used by somebody unknown",
        P,
        {"ips": ["10.20.0.12"]},
        invalid(("Forbidden", "spec.ips", "in use: 10.20.0.11")),
        record("10.20.0.11", "p", state="Quarantined", until=UNTIL),
    ),
    update(
        "7: two pods say that they have it",
        P,
        {"ips": ["10.20.0.12"]},
        invalid(("Forbidden", "spec.ips", "in use: 10.20.0.11")),
        record("10.20.0.11", "p", state="Conflict"),
    ),
    update(
        "7: given back, and cooling",
        P,
        {"ips": ["10.20.0.12"]},
        allowed(),
        record("10.20.0.11", "p", state="Cooling", until=UNTIL),
    ),
    update("7: in use, and not concerned", P, {"ips": ["10.20.0.11"]}, allowed(), record("10.20.0.11", "p")),
    update("7: used through another pool", P, {"ips": ["10.20.0.12"]}, allowed(), record("10.20.0.11", "q")),
    update("7: outside the ranges already", P, {"ips": ["10.20.0.12"]}, allowed(), record("10.20.0.99", "p")),
    update("7: the pool is switched off", P, {"disable": True}, allowed(), *EIGHT),
    update(
        "7: our own status is old",
        with_status(P, allocatedIPCount=1, allocatedIPs=RECORDED, allocationSource="Ledger"),
        {"ips": ["10.20.0.12"]},
        allowed(),
    ),
    update(
        "7: a status that the original wrote",
        with_status(P, allocatedIPCount=1, allocatedIPs=RECORDED),
        {"ips": ["10.20.0.12"]},
        invalid(("Forbidden", "spec.ips", "in use: 10.20.0.11 (pod shop/cart-0)")),
    ),
    update(
        "7: a status that cannot be read",
        with_status(P, allocatedIPCount=1, allocatedIPs="{"),
        {"ips": ["10.20.0.12"]},
        allowed(),
    ),
    edit(
        "7: forced",
        P,
        {"metadata": {"annotations": FORCE}, "spec": {"ips": ["10.20.0.12"]}},
        allowed("forced by the annotation ipam.spidernet.io/force-in-use"),
        record("10.20.0.11", "p"),
    ),
    edit(
        "7: forced, and another thing wrong",
        P,
        {"metadata": {"annotations": FORCE}, "spec": {"ips": ["10.20.0.12"], "gateway": "router"}},
        invalid(("Invalid", "spec.gateway", "is not an IP address")),
        record("10.20.0.11", "p"),
    ),
    edit(
        "7: forced with another word than true",
        P,
        {"metadata": {"annotations": {"ipam.spidernet.io/force-in-use": "no"}}, "spec": {"ips": ["10.20.0.12"]}},
        invalid(("Forbidden", "spec.ips", "in use: 10.20.0.11"), warnings=('counts only with the value "true"',)),
        record("10.20.0.11", "p"),
    ),
]

LENDER = subnet("dc1", subnet=V4, ips=["10.20.0.10-10.20.0.250"], gateway="10.20.0.1")
LENT = [
    update(
        "8: out of its SpiderSubnet",
        P,
        {"ips": ["10.20.0.10", "10.20.1.7"]},
        invalid(("Forbidden", "spec.ips", "10.20.1.7")),
        LENDER,
    ),
    edit(
        "8: forced out of its SpiderSubnet",
        P,
        {"metadata": {"annotations": FORCE}, "spec": {"ips": ["10.20.1.7"]}},
        invalid(("Forbidden", "spec.ips", '10.20.1.7 is not offered by SpiderSubnet "dc1"')),
        LENDER,
    ),
    update("8: within its SpiderSubnet", P, {"ips": ["10.20.0.200"]}, allowed(), LENDER),
    update(
        "8: a gateway that is taken out stays out",
        P,
        {"gateway": None},
        stored(ipVersion=4, subnet=V4, ips=["10.20.0.10-10.20.0.19"]),
        LENDER,
    ),
]

LEAVING = [
    edit(
        "a pool that is being deleted is edited",
        terminating(P),
        {"spec": {"ips": ["10.20.0.10"]}},
        forbidden('"p" is forbidden: it is being deleted'),
    ),
    edit("the finalizer is taken off", terminating(P), {"metadata": {"finalizers": None}}, allowed()),
    edit("a pool that is being deleted is labelled", terminating(P), {"metadata": {"labels": {"a": "b"}}}, allowed()),
]

OVERLAPPING = legacy(pool("p", subnet=V4, ipVersion=4, ips=["10.20.0.18-10.20.0.30"]))
BESIDE = legacy(pool("a", subnet=V4, ipVersion=4, ips=["10.20.0.10-10.20.0.20"]))
OLD = [
    update(
        "an old pool is completed",
        legacy(pool("p", subnet=V6, ips=["FD00:7::B", "fd00:7:0::a"])),
        {"gateway": "fd00:7::1"},
        stored(ipVersion=6, subnet=V6, ips=["fd00:7::a-fd00:7::b"], gateway="fd00:7::1"),
    ),
    update(
        "label and finalizer come back",
        legacy(pool("p", subnet=V4)),
        {"disable": True},
        allowed(labels={"ipam.spidernet.io/ippool-cidr": "10-20-0-0-16"}, finalizers=[FINALIZER]),
    ),
    update("pools that overlap: switched off", OVERLAPPING, {"disable": True}, allowed(), BESIDE),
    update("pools that overlap: no worse", OVERLAPPING, {"ips": ["10.20.0.18-10.20.0.40"]}, allowed(), BESIDE),
    update("pools that overlap: better", OVERLAPPING, {"ips": ["10.20.0.20-10.20.0.30"]}, allowed(), BESIDE),
    update(
        "pools that overlap: worse",
        OVERLAPPING,
        {"ips": ["10.20.0.17-10.20.0.30"]},
        invalid(("Forbidden", "spec.ips", '10.20.0.17 already belongs to SpiderIPPool "a"')),
        BESIDE,
    ),
    update(
        "networks that overlap are no reason",
        legacy(pool("p", subnet="10.20.7.0/24", ipVersion=4)),
        {"ips": ["10.20.7.7"]},
        allowed(),
        BESIDE,
    ),
    edit(
        "the label is taken off",
        P,
        {"metadata": {"labels": None, "finalizers": None}},
        allowed(labels=None, finalizers=None),
    ),
    update(
        "an IPv4 /8 is edited",
        pool("p", subnet="10.0.0.0/8", ips=["10.0.0.0-10.255.255.255"]),
        {"excludeIPs": ["10.0.0.0-10.0.0.255"]},
        allowed(),
    ),
    update(
        "an IPv6 /64 is edited",
        pool("p", subnet=V6, ips=["fd00:7::-fd00:7::ffff:ffff:ffff:ffff"]),
        {"excludeIPs": ["fd00:7::-fd00:7::ffff"]},
        allowed(),
    ),
]

DELETED = [
    delete("delete: nothing in use", P, allowed()),
    delete("delete: given back, and cooling", P, allowed(), record("10.20.0.11", "p", state="Cooling", until=UNTIL)),
    delete("delete: used through another pool", P, allowed(), record("10.20.0.11", "q")),
    delete(
        "delete: in use", P, forbidden('"p" is forbidden', "10.20.0.11 (pod shop/cart-0)"), record("10.20.0.11", "p")
    ),
    delete("delete: in use eight times", P, forbidden("(pod shop/cart-14) and 3 more"), *EIGHT),
    delete(
        "delete: kept for a StatefulSet's pod",
        P,
        forbidden("10.20.0.11"),
        record("10.20.0.11", "p", state="Retained", slot=SLOT),
    ),
    delete(
        "delete: forced",
        annotated(P, **FORCE),
        allowed("forced by the annotation ipam.spidernet.io/force-in-use"),
        record("10.20.0.11", "p"),
    ),
    delete("delete: the count in the status is old", with_status(P, allocatedIPCount=1), allowed()),
    delete(
        "delete: a status that the original wrote",
        with_status(P, allocatedIPCount=1, allocatedIPs=RECORDED),
        forbidden("10.20.0.11 (pod shop/cart-0)"),
    ),
    delete(
        "delete: in use, and an old pool",
        labelled(legacy(pool("p", subnet=V4)), team="net"),
        forbidden("10.20.0.11"),
        record("10.20.0.11", "p"),
    ),
]

TABLE = named([*IMMUTABLE, *RULES, *IN_USE, *LENT, *LEAVING, *OLD, *DELETED])


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
async def test_editing_and_deleting_a_pool(api: Api, row: Row) -> None:
    await carry_out(api, row)
