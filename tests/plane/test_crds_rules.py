"""The CEL rules alone: no webhook is registered here. The embedded plane has no CEL."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from allocator.kube import errors
from allocator.kube.resources import SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS, SPIDER_RESERVED_IPS
from tests.plane.webhooks import API_VERSION, pool, reservation

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object

pytestmark = pytest.mark.real_plane

V4, V6 = "10.20.0.0/16", "fd00:7::/64"


async def fields_refused(kube: KubeClient, obj: Object) -> list[str]:
    resource = SPIDER_RESERVED_IPS if obj["kind"] == "SpiderReservedIP" else SPIDER_IP_POOLS
    try:
        await kube.create(resource, obj)
    except errors.Invalid as error:
        return sorted({cause["field"] for cause in error.details["causes"]})
    return []


POOLS = {
    "right": ({"subnet": V4, "ips": ["10.20.0.10-10.20.0.59"], "gateway": "10.20.0.1"}, []),
    "right IPv6": ({"subnet": V6, "ips": ["fd00:7::-fd00:7::ffff:ffff:ffff:ffff"]}, []),
    "typed twice": ({"subnet": V4, "ips": ["10.20.0.9", "10.20.0.9"], "nodeName": ["n", "n"]}, []),
    "gateway excluded": (
        {"subnet": V4, "ips": ["10.20.0.1-10.20.0.9"], "gateway": "10.20.0.5", "excludeIPs": ["10.20.0.5"]},
        [],
    ),
    "no CIDR": ({"subnet": "10.20.0.0"}, ["spec.subnet"]),
    "host bits": ({"subnet": "10.20.0.1/16"}, ["spec.subnet"]),
    "upper case": ({"subnet": "FD00::/64"}, ["spec.subnet"]),
    "other family": ({"subnet": V4, "ipVersion": 6}, ["spec.subnet"]),
    "reversed": ({"subnet": V4, "ips": ["10.20.0.9-10.20.0.1"]}, ["spec.ips[0]"]),
    "reversed in a high octet": ({"subnet": "10.0.0.0/8", "ips": ["10.30.0.1-10.20.0.9"]}, ["spec.ips[0]"]),
    "blanks": ({"subnet": V4, "ips": ["10.20.0.1 - 10.20.0.9"]}, ["spec.ips[0]"]),
    "a CIDR": ({"subnet": V4, "ips": ["10.20.0.0/24"]}, ["spec.ips[0]"]),
    "three ends": ({"subnet": V4, "ips": ["10.20.0.1-10.20.0.2-10.20.0.3"]}, ["spec.ips[0]"]),
    "mapped": ({"subnet": V4, "ips": ["::ffff:10.20.0.1"]}, ["spec.ips[0]"]),
    "zone": ({"subnet": V6, "ips": ["fd00:7::1%eth0"]}, ["spec.ips[0]"]),
    "outside": ({"subnet": V4, "ips": ["10.21.0.1"], "excludeIPs": ["10.22.0.1"]}, ["spec.excludeIPs", "spec.ips"]),
    "two families": ({"subnet": V4, "ips": ["10.20.0.1-fd00:7::1"]}, ["spec.ips"]),
    "gateway handed out": ({"subnet": V4, "ips": ["10.20.0.1-10.20.0.9"], "gateway": "10.20.0.5"}, ["spec.ips"]),
    "IPv6 gateway handed out": ({"subnet": V6, "ips": ["fd00:7::1"], "gateway": "fd00:7:0::1"}, ["spec.ips"]),
    "gateway outside": ({"subnet": V4, "gateway": "10.21.0.1"}, ["spec.gateway"]),
    "gateway no address": ({"subnet": V4, "gateway": "router"}, ["spec.gateway"]),
    "default route": ({"subnet": V4, "routes": [{"dst": "0.0.0.0/0", "gw": "10.20.0.1"}]}, ["spec.routes[0].dst"]),
    "next hop outside": ({"subnet": V4, "routes": [{"dst": "10.99.0.0/16", "gw": "10.21.0.1"}]}, ["spec.routes"]),
    "same route twice": (
        {"subnet": V4, "routes": [{"dst": "10.99.0.0/16", "gw": "10.20.0.1"}] * 2},
        ["spec.routes[1]"],
    ),
    "empty pod selector": ({"subnet": V4, "podAffinity": {}}, ["spec.podAffinity"]),
    "In without values": (
        {"subnet": V4, "nodeAffinity": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
        ["spec.nodeAffinity.matchExpressions[0].values"],
    ),
    "unknown operator": (
        {"subnet": V4, "namespaceAffinity": {"matchExpressions": [{"key": "a", "operator": "Gt"}]}},
        ["spec.namespaceAffinity.matchExpressions[0].operator"],
    ),
    "bad network name": ({"subnet": V4, "multusName": ["a/b/c"]}, ["spec.multusName[0]"]),
}


@pytest.mark.parametrize(("spec", "fields"), POOLS.values(), ids=POOLS.keys())
async def test_a_pool_is_judged_without_the_webhook(kube: KubeClient, spec: dict[str, Any], fields: list[str]) -> None:
    assert await fields_refused(kube, pool("p", **spec)) == fields


async def test_a_pool_without_a_spec_is_refused(kube: KubeClient) -> None:
    obj = pool("p")
    del obj["spec"]
    assert await fields_refused(kube, obj) == ["spec"]


async def test_the_longest_lists_are_judged_within_the_cost_limit(kube: KubeClient) -> None:
    ranges = [f"10.{100 + n // 256}.{n % 256}.100-10.{100 + n // 256}.{n % 256}.200" for n in range(4096)]
    routes = [{"dst": f"11.{n // 256}.{n % 256}.0/24", "gw": "10.0.0.2"} for n in range(512)]
    spec = {"subnet": "10.0.0.0/8", "ips": ranges, "excludeIPs": ranges, "gateway": "10.0.0.1", "routes": routes}
    assert await fields_refused(kube, pool("p", **spec)) == []


@pytest.mark.parametrize("change", [{"subnet": "10.20.0.0/17"}, {"ipVersion": 6}], ids=str)
async def test_subnet_and_family_are_immutable(kube: KubeClient, change: dict[str, Any]) -> None:
    await kube.create(SPIDER_IP_POOLS, pool("p", subnet=V4, ipVersion=4))
    with pytest.raises(errors.Invalid, match="immutable"):
        await kube.patch(SPIDER_IP_POOLS, "p", {"spec": change})


async def test_the_spec_cannot_be_taken_out_and_put_back_changed(kube: KubeClient) -> None:
    await kube.create(SPIDER_IP_POOLS, pool("p", subnet=V4))
    with pytest.raises(errors.Invalid, match="must be given"):
        await kube.patch(SPIDER_IP_POOLS, "p", {"spec": None})


async def test_a_reservation_is_of_one_family(kube: KubeClient) -> None:
    assert await fields_refused(kube, reservation("r", ipVersion=4, ips=["10.0.0.1", "fd00::1"])) == ["spec.ips"]
    assert await fields_refused(kube, reservation("r", ips=["10.0.0.1"])) == []


async def test_an_endpoint_is_judged(kube: KubeClient, namespace: str) -> None:
    detail = {"interface": "eth0", "ipv4": "10.20.0.10/16", "ipv6": "", "ipv4Gateway": "10.20.0.1"}
    status = {
        "ownerControllerType": "Pod",
        "ownerControllerName": "e",
        "current": {"uid": "u", "node": "n", "ips": [detail]},
    }
    obj: Object = {"apiVersion": API_VERSION, "kind": "SpiderEndpoint", "metadata": {"name": "e"}, "status": status}
    await kube.create(SPIDER_ENDPOINTS, obj, namespace=namespace)
    wrong = copy.deepcopy(obj)
    wrong["metadata"] = {"name": "f"}
    wrong["status"]["current"]["ips"][0]["ipv4"] = "10.20.0.10"
    with pytest.raises(errors.Invalid, match=r"status\.current\.ips\[0\]\.ipv4"):
        await kube.create(SPIDER_ENDPOINTS, wrong, namespace=namespace)


HOLDER = {
    "namespace": "shop",
    "pod": "cart-0",
    "podUID": "uid-1",
    "interface": "eth0",
    "node": "n1",
    "containerID": "c1",
}
OTHER = {**HOLDER, "pod": "cart-9", "podUID": "uid-9"}
SLOT = {"apiVersion": "apps/v1", "kind": "StatefulSet", "namespace": "shop", "name": "cart", "ordinal": 0}
UNTIL = "2030-01-01T00:00:00Z"

HELD = {"state": "Held", "holder": HOLDER}
HELD_IN_SLOT = {**HELD, "slot": SLOT}
RETAINED = {"state": "Retained", "holder": HOLDER, "slot": SLOT}
COOLING = {"state": "Cooling", "holder": HOLDER, "until": UNTIL}
QUARANTINED = {"state": "Quarantined", "until": UNTIL}
CONFLICT = {"state": "Conflict", "holder": HOLDER}


def address(**spec: Any) -> Object:
    head = {"address": "10.20.0.10", "ipVersion": 4, "pool": "p", "since": "2026-01-01T00:00:00Z"}
    return {
        "apiVersion": API_VERSION,
        "kind": "SpiderIPAddress",
        "metadata": {"name": "10.20.0.10"},
        "spec": {**head, **spec},
    }


MOVES = {
    "rebind": (HELD, {**HELD, "holder": {**HOLDER, "containerID": "c2"}}, True),
    "another pod": (HELD, {**HELD, "holder": OTHER}, False),
    "takeover in the slot": (HELD_IN_SLOT, {**HELD_IN_SLOT, "holder": OTHER}, True),
    "takeover in another slot": (
        HELD_IN_SLOT,
        {**HELD_IN_SLOT, "holder": OTHER, "slot": {**SLOT, "ordinal": 1}},
        False,
    ),
    "migration": (HELD, {**HELD, "peer": OTHER}, True),
    "end of migration": ({**HELD, "peer": OTHER}, {**HELD, "holder": OTHER}, True),
    "peer of a released one": ({**HELD, "peer": OTHER}, {**COOLING, "peer": OTHER}, False),
    "retain": (HELD_IN_SLOT, RETAINED, True),
    "retain without a slot": (HELD, {"state": "Retained", "holder": HOLDER}, False),
    "release": (HELD, COOLING, True),
    "release without an end": (HELD, {"state": "Cooling", "holder": HOLDER}, False),
    "quarantine": (HELD, QUARANTINED, True),
    "conflict": (HELD, CONFLICT, True),
    "successor": (RETAINED, {**HELD_IN_SLOT, "holder": OTHER}, True),
    "stranger takes a retained one": (
        RETAINED,
        {**HELD_IN_SLOT, "holder": OTHER, "slot": {**SLOT, "name": "x"}},
        False,
    ),
    "retained for another slot": (RETAINED, {**RETAINED, "slot": {**SLOT, "name": "x"}}, False),
    "reservation ends": (RETAINED, COOLING, True),
    "retained to conflict": (RETAINED, CONFLICT, False),
    "claim of a cooled one": (COOLING, {**HELD, "holder": OTHER}, True),
    "cooling to retained": (COOLING, RETAINED, False),
    "quarantined cools": (QUARANTINED, COOLING, True),
    "quarantined is claimed": (QUARANTINED, HELD, False),
    "conflict is settled": (CONFLICT, HELD, True),
    "conflict to retained": (CONFLICT, RETAINED, False),
    "held without a holder": (HELD, {"state": "Held"}, False),
}


@pytest.mark.parametrize(("before", "after", "is_allowed"), MOVES.values(), ids=MOVES.keys())
async def test_an_address_moves_only_as_the_ledger_says(
    kube: KubeClient, before: dict[str, Any], after: dict[str, Any], *, is_allowed: bool
) -> None:
    stored = await kube.create(SPIDER_IP_ADDRESSES, address(**before))
    moved = {**address(**after), "metadata": stored["metadata"]}
    if is_allowed:
        await kube.replace(SPIDER_IP_ADDRESSES, moved)
    else:
        with pytest.raises(errors.Invalid):
            await kube.replace(SPIDER_IP_ADDRESSES, moved)


@pytest.mark.parametrize(
    ("name", "text", "version", "is_allowed"),
    [
        ("10.20.0.10", "10.20.0.10", 4, True),
        ("10.20.0.11", "10.20.0.10", 4, False),
        ("fd00-0-0-0-0-0-0-1", "fd00::1", 6, True),
        ("fd00-0-0-0-0-0-0-01", "fd00::1", 6, False),
        ("fd00--1", "fd00::1", 6, False),
        ("fd00-0-0-0-0-0-0-1", "fd00:0::1", 6, False),
        ("fd00-0-0-0-0-0-0-1", "fd00::2", 6, False),
        ("10.20.0.10", "10.20.0.10", 6, False),
    ],
)
async def test_one_address_has_one_name(
    kube: KubeClient, name: str, text: str, version: int, *, is_allowed: bool
) -> None:
    obj = {**address(**HELD), "metadata": {"name": name}}
    obj["spec"] = {**obj["spec"], "address": text, "ipVersion": version}
    if is_allowed:
        await kube.create(SPIDER_IP_ADDRESSES, obj)
    else:
        with pytest.raises(errors.Invalid):
            await kube.create(SPIDER_IP_ADDRESSES, obj)


async def test_an_address_cannot_become_another(kube: KubeClient) -> None:
    await kube.create(SPIDER_IP_ADDRESSES, address(**HELD))
    with pytest.raises(errors.Invalid, match=r"spec\.address.*none of them ever changes"):
        await kube.patch(SPIDER_IP_ADDRESSES, "10.20.0.10", {"spec": {"address": "10.20.0.11"}})
