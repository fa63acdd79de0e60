"""KubeVirt's virtual machines as the leader's caches have them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from allocator.kube.cache import Cache
from allocator.kube.resources import MACHINE_INSTANCES, MACHINES
from allocator.kube.slots import said_by, stands

if TYPE_CHECKING:
    from allocator.domain.record import Slot
    from allocator.kube.client import KubeClient
    from allocator.runtime.clock import Clock

# A quiet watch proves about once a minute that it is alive.
STALE_S: Final = 120.0


class Machines:
    """Watches nothing until a record of a machine is seen: most clusters do not know kubevirt.io."""

    def __init__(self, client: KubeClient, *, clock: Clock) -> None:
        self._instances = Cache(client, MACHINE_INSTANCES, clock=clock, metadata_only=True)
        self._machines = Cache(client, MACHINES, clock=clock, metadata_only=True)
        self._asked_for = asyncio.Event()

    async def run(self) -> None:
        await self._asked_for.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._instances.run(), name="cache-virtualmachineinstances")
            group.create_task(self._machines.run(), name="cache-virtualmachines")

    def is_wanted(self, slot: Slot) -> bool:
        """Whether the machine may use the slot again; as long as the caches cannot tell, it may."""
        self._asked_for.set()
        if max(self._instances.staleness_s(), self._machines.staleness_s()) > STALE_S:
            return True
        said = said_by(self._instances.get(slot.name, slot.namespace))
        return said if said is not None else stands(self._machines.get(slot.name, slot.namespace))
