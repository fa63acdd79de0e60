"""The second look: the holder's pod and owner as the API server has them now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.domain.reclaim import Sighting
from allocator.kube.cluster import slot_is_counted
from allocator.kube.codec import decode_pod
from allocator.kube.errors import NotFound
from allocator.kube.patience import patiently
from allocator.kube.resources import PODS, STATEFUL_SETS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from allocator.domain.reclaim import NodeState
    from allocator.domain.record import Record, Slot
    from allocator.domain.request import Pod
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource
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
        *,
        clock: Clock,
        rng: random.Random,
        static_pods: bool,
    ) -> None:
        self._client = client
        self._node_state = node_state
        self._endings = endings
        self._clock = clock
        self._rng = rng
        self._static_pods = static_pods

    async def look(self, record: Record) -> Sighting:
        """Pod first, then its owner: a StatefulSet scaled up again in between keeps the address."""
        holder = record.holder
        raw = await self._read(PODS, holder.pod, holder.namespace) if holder else None
        return Sighting(
            record=record,
            pod=None if raw is None else decode_pod(raw),
            node=self._node_state(holder.node if holder else ""),
            ending=None if raw is None else self._endings.see(raw),
            slot_wanted=self._static_pods and record.slot is not None and await self._is_wanted(record.slot),
        )

    async def pod(self, namespace: str, name: str) -> Pod | None:
        raw = await self._read(PODS, name, namespace)
        return None if raw is None else decode_pod(raw)

    async def _is_wanted(self, slot: Slot) -> bool:
        raw = await self._read(STATEFUL_SETS, slot.name, slot.namespace)
        return raw is not None and slot_is_counted(slot, raw)

    async def _read(self, resource: Resource, name: str, namespace: str) -> Object | None:
        async def attempt() -> Object | None:
            try:
                return await self._client.get(resource, name, namespace=namespace)
            except NotFound:
                return None

        return await patiently(f"read {resource.kind} {namespace}/{name}", attempt, clock=self._clock, rng=self._rng)
