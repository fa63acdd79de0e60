"""SpiderIPAddress by its CRD alone: who may do what to an address in use. The embedded plane has no CEL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from allocator.kube import errors
from allocator.kube.resources import SPIDER_IP_ADDRESSES
from tests.plane.webhooks import API_VERSION

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object

pytestmark = pytest.mark.real_plane

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
