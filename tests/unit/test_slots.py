"""Which pods fill a slot, and what a slot's pods are called."""

from __future__ import annotations

import pytest

from allocator.domain.request import Owner
from allocator.domain.slots import kept, pod_name, public_name, slot_of
from allocator.kube.codec import decode_pod
from tests.unit import values


def owned(api_version: str, kind: str, name: str = "web") -> Owner:
    return Owner(api_version, kind, name, "o1")


@pytest.mark.parametrize(
    ("pod", "controller", "expected"),
    [
        ("web-0", owned("apps/v1", "StatefulSet"), ("web", 0)),
        ("web-12", owned("apps/v1", "StatefulSet"), ("web", 12)),
        ("virt-launcher-web-x7k2p", owned("kubevirt.io/v1", "VirtualMachineInstance"), ("web", 0)),
        ("web-0", None, None),
        ("web-0", owned("apps/v1", "StatefulSet", "other"), None),
        ("web-x", owned("apps/v1", "StatefulSet"), None),
        ("web-0", owned("apps.kruise.io/v1beta1", "StatefulSet"), None),
        ("web-0", owned("example.com/v1", "VirtualMachineInstance"), None),
        ("hp-volume-x7k2p", owned("v1", "Pod"), None),
    ],
)
def test_a_slot_needs_an_owner_that_has_slots_and_an_ordinal_its_name(
    pod: str, controller: Owner | None, expected: tuple[str, int] | None
) -> None:
    slot = slot_of("shop", pod, controller)
    assert (slot and (slot.name, slot.ordinal)) == expected


def test_members_have_the_name_of_their_place_and_launchers_names_of_their_own() -> None:
    member, launcher = values.stateful_pod(2), values.launcher()
    assert member.slot is not None
    assert launcher.slot is not None
    assert (pod_name(member.slot), pod_name(launcher.slot)) == ("web-2", None)
    assert public_name(member.name, member.slot) == "web-2"
    assert public_name(launcher.name, launcher.slot) == "ledger"
    assert public_name("cart-1", None) == "cart-1"


@pytest.mark.parametrize("machines", [True, False])
def test_a_workload_that_is_switched_off_has_no_slots(machines: bool) -> None:  # noqa: FBT001 - a parameter
    reference = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "vm", "uid": "i1"}
    meta = {"namespace": "shop", "name": "virt-launcher-vm-x", "uid": "u1"}
    raw = {"metadata": {**meta, "ownerReferences": [{**reference, "controller": True}]}}
    assert (decode_pod(raw, kept(stateful_sets=True, machines=machines)).slot is not None) is machines
