"""The second look: the holder's pod and owner as the API server has them now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.domain.reclaim import Sighting
from allocator.kube.codec import decode_pod
from allocator.kube.errors import NotFound
from allocator.kube.patience import patiently
from allocator.kube.resources import PODS, SPIDER_ENDPOINTS, SPIDER_IP_POOLS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from allocator.domain.reclaim import NodeState
    from allocator.domain.record import Record, Slot
    from allocator.domain.request import Pod
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource
    from allocator.kube.slots import Slots
    from allocator.runtime.clock import Clock
    from controller.endings import Endings


class Witness:
    """Every method raises errors.Unavailable when the API server gives no usable answer: that is no sighting.

    `node_state` comes from a cache: a node's state is a switch for operators, and no proof of anything.
    """

    def __init__(
        self,
        client: KubeClient,
        node_state: Callable[[str], NodeState],
        endings: Endings,
        slots: Slots,
        *,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._client = client
        self._node_state = node_state
        self._endings = endings
        self._slots = slots
        self._clock = clock
        self._rng = rng

    async def look(self, record: Record) -> Sighting:
        """Pods first, then the owner: a StatefulSet scaled up again in between keeps the address."""
        holder, peer = record.holder, record.peer
        raw = await self._read(PODS, holder.pod, holder.namespace) if holder else None
        # Only of a slot does it matter.
        pool_gone = record.slot is not None and await self._read(SPIDER_IP_POOLS, record.pool) is None
        return Sighting(
            record=record,
            pod=None if raw is None else decode_pod(raw),
            peer_pod=await self.pod(peer.namespace, peer.pod) if peer else None,
            node=self._node_state(holder.node if holder else ""),
            ending=None if raw is None else self._endings.see(raw),
            slot_wanted=record.slot is not None and not pool_gone and await self.is_wanted(record.slot),
            pool_gone=pool_gone,
        )

    async def pod(self, namespace: str, name: str) -> Pod | None:
        raw = await self._read(PODS, name, namespace)
        return None if raw is None else decode_pod(raw, self._slots.kept)

    async def endpoint(self, namespace: str, name: str) -> Object | None:
        return await self._read(SPIDER_ENDPOINTS, name, namespace)

    async def is_wanted(self, slot: Slot) -> bool:
        return await self._slots.is_wanted(slot)

    async def _read(self, resource: Resource, name: str, namespace: str | None = None) -> Object | None:
        async def attempt() -> Object | None:
            try:
                return await self._client.get(resource, name, namespace=namespace)
            except NotFound:
                return None

        return await patiently(f"read {resource.kind} {name}", attempt, clock=self._clock, rng=self._rng)
