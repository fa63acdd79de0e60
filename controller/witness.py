"""The second look: the holder's pod and owner as the API server has them now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.domain.reclaim import MIRROR_ANNOTATION, Sighting, has_own
from allocator.kube.codec import decode_pod
from allocator.kube.errors import NotFound
from allocator.kube.patience import patiently
from allocator.kube.resources import PODS, SPIDER_ENDPOINTS, SPIDER_IP_POOLS

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from allocator.domain.record import Record, Slot
    from allocator.domain.request import Pod
    from allocator.kube.client import KubeClient
    from allocator.kube.ledger import KubeLedger
    from allocator.kube.resources import Object, Resource
    from allocator.kube.slots import Slots
    from allocator.runtime.clock import Clock
    from controller.books import Books


class Witness:
    """Every method raises errors.Unavailable when the API server gives no usable answer: that is no sighting.

    Of the books come only a node's state, which is a switch for operators and no proof of anything, and how long a
    deletion has been watched.
    """

    def __init__(
        self,
        client: KubeClient,
        books: Books,
        slots: Slots,
        ledger: KubeLedger,
        *,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._client = client
        self._books = books
        self._slots = slots
        self._ledger = ledger
        self._clock = clock
        self._rng = rng

    async def look(self, record: Record) -> Sighting:
        """Pods first, then the owner: a StatefulSet scaled up again in between keeps the address."""
        holder, peer = record.holder, record.peer
        raw = await self._read(PODS, holder.pod, holder.namespace) if holder else None
        # Only of a slot does it matter.
        pool_gone = record.slot is not None and await self._read(SPIDER_IP_POOLS, record.pool) is None
        pod = None if raw is None else decode_pod(raw)
        mirror = pod if pod is not None and MIRROR_ANNOTATION in pod.annotations else None
        return Sighting(
            record=record,
            pod=pod,
            peer_pod=await self.pod(peer.namespace, peer.pod) if peer else None,
            node=self._books.node_state(holder.node if holder else ""),
            ending=None if raw is None else self._books.endings.see(raw),
            slot_wanted=record.slot is not None and not pool_gone and await self.is_wanted(record.slot),
            pool_gone=pool_gone,
            mirror_has_own=mirror is not None and has_own(mirror, record, await self.records(mirror.uid)),
        )

    async def records(self, pod_uid: str) -> Sequence[Record]:
        """Those whose holder is the pod."""
        return await self._ledger.of_pod(pod_uid)

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
