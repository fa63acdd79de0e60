"""Slots: the places in workloads that outlive their pods, and whose addresses wait for the next pod.

    workload                                  slot                     names of its pods
    apps/v1 StatefulSet                       one for each ordinal     <name>-<ordinal>, the same for each successor
    kubevirt.io/v1 VirtualMachineInstance     one, ordinal 0           virt-launcher-<name>-<random>, new each time

Kinds of these names in other API groups (Kruise's StatefulSet) have no slots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from allocator.domain.record import Slot

if TYPE_CHECKING:
    from allocator.domain.request import Owner

# apiVersion and kind.
Workload: TypeAlias = tuple[str, str]

STATEFUL_SET: Final[Workload] = ("apps/v1", "StatefulSet")
# A VirtualMachine's instance has the name of its machine.
MACHINE_INSTANCE: Final[Workload] = ("kubevirt.io/v1", "VirtualMachineInstance")
KNOWN: Final = frozenset({STATEFUL_SET, MACHINE_INSTANCE})


def kept(*, stateful_sets: bool, machines: bool) -> frozenset[Workload]:
    """The workloads whose slots are kept, by the operator's switches."""
    switches = {STATEFUL_SET: stateful_sets, MACHINE_INSTANCE: machines}
    return frozenset(workload for workload, is_on in switches.items() if is_on)


def workload_of(slot: Slot) -> Workload:
    return slot.api_version, slot.kind


def slot_of(namespace: str, pod: str, controller: Owner | None) -> Slot | None:
    """The slot that the pod fills. For an ordinal owner and name must agree: a name alone proves nothing."""
    if controller is None:
        return None
    workload, ordinal = (controller.api_version, controller.kind), 0
    if workload not in KNOWN:
        return None
    if workload == STATEFUL_SET:
        prefix, _, text = pod.rpartition("-")
        if prefix != controller.name or not text.isdecimal():
            return None
        ordinal = int(text)
    return Slot(
        api_version=controller.api_version,
        kind=controller.kind,
        namespace=namespace,
        name=controller.name,
        ordinal=ordinal,
    )


def pod_name(slot: Slot) -> str | None:
    """The name that each pod in the slot has; None where each has a name of its own."""
    return f"{slot.name}-{slot.ordinal}" if workload_of(slot) == STATEFUL_SET else None


def public_name(pod: str, slot: Slot | None) -> str:
    """What the pod's SpiderEndpoint and its entry in a pool's allocatedIPs are called: a VM by the VM."""
    return slot.name if slot is not None and workload_of(slot) == MACHINE_INSTANCE else pod
