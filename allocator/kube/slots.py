"""Whether a workload still wants a slot filled, by the API server's word.

A slot is given up when the API server says of its owner that it is gone or going, or that it counts the slot no more.
Where it does not say so of a virtual machine (the kind is not served, the right to read it is missing) the slot stays:
KubeVirt's definitions, uninstalled by mistake, must not cost every machine its addresses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.domain.slots import KNOWN, MACHINE_INSTANCE, STATEFUL_SET, workload_of
from allocator.kube.codec import decode_controller
from allocator.kube.errors import BadRequest, Forbidden, NotFound
from allocator.kube.patience import patiently
from allocator.kube.resources import MACHINE_INSTANCES, MACHINES, STATEFUL_SETS
from allocator.runtime.logs import get_logger

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from allocator.domain.record import Slot
    from allocator.domain.slots import Workload
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource
    from allocator.runtime.clock import Clock

_log = get_logger(__name__)


class _NotSaid(Exception):
    """The API server's refusal is no word on the object."""


class Slots:
    """`kept` are the workloads whose slots the operator wants kept. errors.Unavailable: no answer, try later."""

    def __init__(self, client: KubeClient, kept: frozenset[Workload], *, clock: Clock, rng: random.Random) -> None:
        self._client = client
        self.kept = kept
        self._clock = clock
        self._rng = rng

    async def is_wanted(self, slot: Slot) -> bool:
        """By live reads."""
        workload = workload_of(slot)
        if workload in KNOWN - self.kept:
            return False
        if workload == STATEFUL_SET:
            found = await self._read(STATEFUL_SETS, slot)
            return found is not None and is_counted(slot, found)
        # What else there may be is of a version that knows more workloads than this one.
        return workload != MACHINE_INSTANCE or await self._is_machine_wanted(slot)

    async def _is_machine_wanted(self, slot: Slot) -> bool:
        try:
            said = said_by(await self._read_machine(MACHINE_INSTANCES, slot))
            return said if said is not None else stands(await self._read_machine(MACHINES, slot))
        except _NotSaid as why:
            _log.warning("virtual_machine_unreadable", machine=f"{slot.namespace}/{slot.name}", why=str(why))
            return True

    async def _read_machine(self, resource: Resource, slot: Slot) -> Object | None:
        async def attempt() -> Object | None:
            try:
                return await self._client.get(resource, slot.name, namespace=slot.namespace, metadata_only=True)
            except NotFound as error:
                if error.details.get("name") == slot.name:
                    return None
                raise _NotSaid(str(error)) from error
            except (BadRequest, Forbidden) as error:
                raise _NotSaid(str(error)) from error

        return await self._patiently(resource, slot, attempt)

    async def _read(self, resource: Resource, slot: Slot) -> Object | None:
        async def attempt() -> Object | None:
            try:
                return await self._client.get(resource, slot.name, namespace=slot.namespace)
            except NotFound:
                return None

        return await self._patiently(resource, slot, attempt)

    async def _patiently(
        self, resource: Resource, slot: Slot, attempt: Callable[[], Awaitable[Object | None]]
    ) -> Object | None:
        what = f"read {resource.kind} {slot.namespace}/{slot.name}"
        return await patiently(what, attempt, clock=self._clock, rng=self._rng)


def is_counted(slot: Slot, stateful_set: Object) -> bool:
    """Whether the StatefulSet counts the ordinal among its replicas, and is not on its way out."""
    if not stands(stateful_set):
        return False
    spec = stateful_set.get("spec") or {}
    start = int((spec.get("ordinals") or {}).get("start") or 0)
    replicas = spec.get("replicas")
    return start <= slot.ordinal < start + (1 if replicas is None else int(replicas))


def said_by(instance: Object | None) -> bool | None:
    """What a VirtualMachineInstance says of its slot; None: its VirtualMachine is to be asked, which may start anew."""
    if instance is None:
        return None
    if stands(instance):
        return True
    owner = decode_controller(instance)
    return None if owner is not None and owner.kind == MACHINES.kind else False


def stands(owner: Object | None) -> bool:
    """Whether the object is there and not on its way out."""
    return owner is not None and not owner["metadata"].get("deletionTimestamp")
