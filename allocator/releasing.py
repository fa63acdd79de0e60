"""Release: what a dead pod's interface holds goes back, or waits for the successor in its slot."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from allocator.domain.reclaim import may_run
from allocator.domain.record import REUSE_DELAY, State, parted, released, retained
from allocator.domain.slots import public_name
from allocator.runtime.logs import get_logger

if TYPE_CHECKING:
    from datetime import timedelta

    from allocator.claiming import Memories
    from allocator.domain.record import Holder, Record
    from allocator.domain.request import DelRequest, Pod
    from allocator.world import World


_log = get_logger(__name__)


class Releasing:
    """`reuse_delay` is how long a released address cools."""

    def __init__(self, world: World, memories: Memories, *, reuse_delay: timedelta = REUSE_DELAY) -> None:
        self._world = world
        self._memories = memories
        self._reuse_delay = reuse_delay

    async def release(self, request: DelRequest) -> tuple[Record, ...]:
        """Give back what the interface holds, unless its pod lives; the records as written. Repeating is harmless.

        errors.Conflict when somebody else wrote in between: then decide again.
        """
        if not request.pod or not request.namespace:
            named = self._named(request)
            if named is None:
                return ()
            request = named
        pod = await self._dead_or_alive(request)
        is_the_one = pod is not None and pod.answers_to(request.pod_uid or pod.uid)
        if pod is not None and is_the_one and pod.alive:
            # A sandbox is being made anew, or somebody calls DEL by hand: the pod goes on with its addresses.
            _log.info("living_pod_keeps_its_addresses", pod=f"{pod.namespace}/{pod.name}", uid=pod.uid)
            return ()
        uid = pod.uid if pod is not None and is_the_one else request.pod_uid
        if not uid:
            # An old runtime gives no UID and the pod is gone: which one it was is the reclaim loop's to find out.
            return ()
        interface = request.interface
        records = [
            record
            for record in self._world.ledger.own(uid)
            if record.is_of(uid, interface.name) and record.holder is not None
            # A DEL for an older sandbox of the same pod comes late: the newer sandbox uses the address.
            if record.holder.container_id == interface.container_id
        ]
        name = public_name(request.pod, records[0].slot if records else None)
        heirs = {record.address: await self._heir(record) for record in records}
        if heir := next(filter(None, heirs.values()), None):
            # Before the records: a repeated DEL finds those, and comes by here again.
            await self._world.endpoints.hand_over(request.namespace, name, uid, heir)
        written = [await self._give_back(record, heirs[record.address]) for record in records]
        if not any(record.state in (State.HELD, State.RETAINED) for record in self._world.ledger.own(uid)):
            await self._world.endpoints.remove(request.namespace, name, uid)
        return tuple(written)

    def _named(self, request: DelRequest) -> DelRequest | None:
        """The request with the pod's name and UID, for a runtime that passes neither: the sandbox tells them."""
        for record in self._world.ledger.of_container(request.interface.container_id):
            if record.holder is not None:
                holder = record.holder
                return replace(request, namespace=holder.namespace, pod=holder.pod, pod_uid=holder.pod_uid)
        return None

    async def _dead_or_alive(self, request: DelRequest) -> Pod | None:
        """The informer's word is enough when it shows this UID ending; everything else is read live."""
        pod = self._world.view.pod(request.namespace, request.pod)
        if pod is not None and pod.answers_to(request.pod_uid) and not pod.alive:
            return pod
        return await self._world.view.read_pod(request.namespace, request.pod)

    async def _heir(self, record: Record) -> Holder | None:
        """Who has the address beside the pod and goes on with it: the source of a migration that failed."""
        peer = record.peer
        if peer is None or not may_run(peer, await self._world.view.read_pod(peer.namespace, peer.pod)):
            return None
        return peer

    async def _give_back(self, record: Record, heir: Holder | None) -> Record:
        now = self._world.clock.now()
        if heir is not None:
            return await self._world.ledger.replace(parted(record, heir, now))
        if record.slot is not None and await self._world.view.slot_is_wanted(record.slot):
            return await self._world.ledger.replace(retained(record, now))
        written = await self._world.ledger.replace(released(record, now, self._reuse_delay))
        self._memories.forget(record.address)
        return written
