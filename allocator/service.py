"""Allocate and release: read, plan, claim, confirm, and decide again when something changed in between.

Nothing here talks to Kubernetes; the ports do. A call may be cut off anywhere (deadline, crash): what it had claimed
stands in the ledger under the pod's UID and interface, where the next try for the same pod finds it, or the reclaim
loop does when the pod is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from allocator.claiming import PoolClaims
from allocator.domain import errors
from allocator.domain.endpoint import Assigned, Endpoint, assigned, in_order
from allocator.domain.planning import Move, Plan, Snapshot, Want, holder_of, plan
from allocator.domain.pool import Edition, reserved_of
from allocator.domain.record import REUSE_DELAY, Record, State, released, retained
from allocator.runtime.backoff import delays
from allocator.runtime.logs import get_logger
from allocator.runtime.shared import SharedRead
from allocator.runtime.tasks import both

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import timedelta

    from allocator.domain.addresses import Version
    from allocator.domain.pool import Pool, Reservation
    from allocator.domain.request import AddRequest, DelRequest, Pod
    from allocator.ports import ClusterView, Endpoints, Ledger, Pools, Reservations
    from allocator.runtime.clock import Clock

T = TypeVar("T")

_log = get_logger(__name__)

# Waiting for a cache to show what a live read already has shown; each wait is jittered up to the cap.
RETRY_BASE_S: Final = 0.02
RETRY_CAP_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The ports, bundled: what the composition root of a process makes once."""

    ledger: Ledger
    pools: Pools
    reservations: Reservations
    endpoints: Endpoints
    view: ClusterView
    clock: Clock
    rng: random.Random


@dataclass(frozen=True, slots=True)
class _Basis:
    """The pools and reservations that a plan is made from, and that the confirmation compares."""

    pools: Mapping[str, Pool]
    reservations: Sequence[Reservation]


class Allocator:
    """The service behind the agent's API. One call per pod UID at a time: the agent sees to the order.

    `versions` are the families that the cluster has switched on; `reuse_delay` is how long a released address cools.
    """

    def __init__(
        self,
        world: World,
        *,
        node: str,
        versions: frozenset[Version],
        static_pods: bool = True,
        reuse_delay: timedelta = REUSE_DELAY,
    ) -> None:
        self._world = world
        self._node = node
        self._versions = versions
        self._static_pods = static_pods
        self._reuse_delay = reuse_delay
        self._claims: dict[str, PoolClaims] = {}
        self._pool_editions: dict[str, SharedRead[Edition | None]] = {}
        self._reservation_editions = SharedRead(world.reservations.editions)

    async def allocate(self, request: AddRequest) -> tuple[Assigned, ...]:
        """The interface's addresses, committed to the ledger and confirmed before this returns (invariant I3).

        The caller sets the deadline. errors.IpamError says why there is none; the claims of a refused call are undone.
        """
        return await self._until_settled(lambda: self._allocate_once(request))

    async def release(self, request: DelRequest) -> tuple[Record, ...]:
        """Give back what the interface holds, unless its pod lives; the records as written. Repeating is harmless."""
        return await self._until_settled(lambda: self._release_once(request))

    async def held_by(self, pod: Pod) -> tuple[Assigned, ...]:
        """What the pod's interfaces hold by the ledger, as this node knows it."""
        pools = await self._world.pools.current()
        records = [record for record in self._world.ledger.own(pod.uid) if record.state is State.HELD]
        return in_order(each for record in records if (each := assigned(record, pools)) is not None)

    async def _until_settled(self, decide: Callable[[], Awaitable[T]]) -> T:
        """Decide again after each conflict, until the caller's deadline cancels this."""
        for delay in delays(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S, rng=self._world.rng):
            try:
                return await decide()
            except errors.Conflict as conflict:
                _log.debug("decided_again", why=str(conflict))
                await self._world.clock.sleep(delay)
        raise AssertionError("delays() never ends")

    async def _allocate_once(self, request: AddRequest) -> tuple[Assigned, ...]:
        pod = await self._living_pod(request)
        try:
            basis, decided = await self._planned(request, pod)
        except errors.NoPool as refusal:
            if not refusal.unknown:
                raise
            # Made a moment ago, perhaps, together with the pod: ahead of the watch.
            for name in refusal.unknown:
                await self._world.pools.reread(name)
            basis, decided = await self._planned(request, pod)
        moved = [await self._world.ledger.replace(move.after) for move in decided.moves]
        claims = await self._claim_all(request, pod, decided, basis)
        held = (*decided.kept, *moved, *claims)
        try:
            answer = self._answer(held, basis, decided)
            changed, _ = await both(self._stale(claims, basis), self._write_endpoint(pod, answer))
        except (errors.IpamError, errors.Conflict):
            await self._undo(claims)
            raise
        if changed:
            await self._undo(claims)
            raise errors.Conflict(f"{changed} changed while an address was claimed from it")
        await self._drop(decided.drops)
        return answer

    async def _living_pod(self, request: AddRequest) -> Pod:
        """The pod from the informer when its UID is the one asked for; from the API server otherwise.

        A static pod is always read live: that the API server shows it now is the proof that its predecessor is gone.
        """
        view = self._world.view
        pod = view.pod(request.namespace, request.pod)
        if pod is None or not request.pod_uid or pod.uid != request.pod_uid or pod.slot is not None:
            pod = await view.read_pod(request.namespace, request.pod)
        name = f"{request.namespace}/{request.pod}"
        if pod is None:
            raise errors.PodGone(f"pod {name} does not exist")
        if request.pod_uid and pod.uid != request.pod_uid:
            raise errors.PodGone(f"pod {name} is now another one (UID {pod.uid}, asked for {request.pod_uid})")
        if pod.node != self._node:
            raise errors.Invalid(f"pod {name} is bound to node {pod.node or '(none)'}, this agent serves {self._node}")
        return pod

    async def _planned(self, request: AddRequest, pod: Pod) -> tuple[_Basis, Plan]:
        basis = _Basis(await self._world.pools.current(), self._world.reservations.current())
        return basis, plan(request, await self._snapshot(pod, basis))

    async def _snapshot(self, pod: Pod, basis: _Basis) -> Snapshot:
        records = {record.address: record for record in self._world.ledger.own(pod.uid)}
        if self._static_pods and pod.slot is not None:
            for record in await self._world.ledger.of_pod(pod.namespace, pod.name):
                records.setdefault(record.address, record)
        return Snapshot(
            pod=pod,
            around=await self._world.view.surroundings(pod),
            pools=basis.pools,
            records=tuple(records.values()),
            versions=self._versions,
            now=self._world.clock.now(),
        )

    async def _claim_all(self, request: AddRequest, pod: Pod, decided: Plan, basis: _Basis) -> list[Record]:
        """One address for each want, all or nothing (invariant I11)."""
        claims: list[Record] = []
        try:
            for want in decided.wants:
                claims.append(await self._claim(want, request, pod, basis))  # noqa: PERF401 - undone one by one
        except (errors.IpamError, errors.Conflict):
            await self._undo(claims)
            raise
        return claims

    async def _claim(self, want: Want, request: AddRequest, pod: Pod, basis: _Basis) -> Record:
        reserved = reserved_of(want.version, basis.reservations)
        slot = pod.slot if self._static_pods else None
        exhausted: list[str] = []
        for pool in want.pools:
            try:
                return await self._claims_of(pool).claim(pool, pool.usable(reserved), holder_of(request, pod), slot)
            except errors.Exhausted as refusal:
                exhausted.append(str(refusal))
        whys = "; ".join([*exhausted, *(str(refusal) for refusal in want.refusals)])
        raise errors.Exhausted(f"no free IPv{want.version} address: {whys}")

    def _claims_of(self, pool: Pool) -> PoolClaims:
        """What this agent remembers of the pool; a pool made anew under the same name starts without a memory."""
        if pool.edition.uid not in self._claims:
            world = self._world
            self._claims[pool.edition.uid] = PoolClaims(
                pool, node=self._node, ledger=world.ledger, clock=world.clock, rng=world.rng
            )
        return self._claims[pool.edition.uid]

    async def _stale(self, claims: Sequence[Record], basis: _Basis) -> str:
        """What is no longer as the plan saw it, or nothing: read live, after the claims were written (invariant I2).

        The controller scans a pool's records after it has seen a new generation. So either this read sees the change,
        or that scan sees the claim.
        """
        if not claims:
            return ""
        for name in sorted({record.pool for record in claims}):
            read = self._pool_editions.setdefault(name, SharedRead(partial(self._world.pools.edition, name)))
            if await read.after_now() != basis.pools[name].edition:
                await self._world.pools.reread(name)
                return f"SpiderIPPool {name}"
        if await self._reservation_editions.after_now() != {(each.name, each.edition) for each in basis.reservations}:
            await self._world.reservations.reread()
            return "the SpiderReservedIPs"
        return ""

    def _answer(self, held: Sequence[Record], basis: _Basis, decided: Plan) -> tuple[Assigned, ...]:
        found = [assigned(record, basis.pools, clean_gateway=decided.clean_gateway) for record in held]
        if missing := [record for record, each in zip(held, found, strict=True) if each is None]:
            raise errors.Unavailable(
                f"address {missing[0].address} is held from SpiderIPPool {missing[0].pool}, which is gone: create the "
                "pool again, or delete the pod"
            )
        return in_order(each for each in found if each is not None)

    async def _write_endpoint(self, pod: Pod, answer: Sequence[Assigned]) -> None:
        """The SpiderEndpoint shows every interface of the pod, those of earlier ADDs too."""
        interfaces = {each.interface for each in answer}
        others = [each for each in await self.held_by(pod) if each.interface not in interfaces]
        owner = await self._world.view.owner(pod)
        await self._world.endpoints.write(Endpoint(pod=pod, owner=owner, assigned=in_order((*answer, *others))))

    async def _undo(self, claims: Sequence[Record]) -> None:
        """Delete what was never answered, without cooling: nobody has used it."""
        for record in claims:
            try:
                await self._world.ledger.delete(record)
            except (errors.IpamError, errors.Conflict) as error:
                # The pod still stands in the record: its next try finds it, or the reclaim loop does.
                _log.warning("claim_not_undone", address=str(record.address), pool=record.pool, why=str(error))
        for record in claims:
            for pool_claims in self._claims.values():
                pool_claims.forget(record.address)

    async def _drop(self, drops: Sequence[Move]) -> None:
        """Give back what the plan no longer needs. The answer stands without it: reclaim finishes what fails here."""
        for move in drops:
            try:
                await self._world.ledger.replace(move.after)
            except (errors.IpamError, errors.Conflict) as error:
                _log.warning("record_not_dropped", address=str(move.before.address), why=str(error))

    async def _release_once(self, request: DelRequest) -> tuple[Record, ...]:
        pod = await self._dead_or_alive(request)
        uid = request.pod_uid or (pod.uid if pod is not None else "")
        if not uid or (pod is not None and pod.uid == uid and pod.alive):
            return ()
        records = [
            record
            for record in self._world.ledger.own(uid)
            if record.is_of(uid, request.interface.name)
            and record.holder is not None
            # A DEL for an older sandbox of the same pod comes late: the newer sandbox uses the address.
            and record.holder.container_id == request.interface.container_id
        ]
        written = [await self._give_back(record) for record in records]
        still_held = [record for record in self._world.ledger.own(uid) if record.state in (State.HELD, State.RETAINED)]
        if written and not still_held:
            await self._world.endpoints.remove(request.namespace, request.pod, uid)
        return tuple(written)

    async def _dead_or_alive(self, request: DelRequest) -> Pod | None:
        """The informer's word is enough when it shows this UID ending; everything else is read live."""
        pod = self._world.view.pod(request.namespace, request.pod)
        if pod is not None and pod.uid == request.pod_uid and not pod.alive:
            return pod
        return await self._world.view.read_pod(request.namespace, request.pod)

    async def _give_back(self, record: Record) -> Record:
        now = self._world.clock.now()
        if self._static_pods and record.slot is not None and await self._world.view.slot_is_wanted(record.slot):
            return await self._world.ledger.replace(retained(record, now))
        return await self._world.ledger.replace(released(record, now, self._reuse_delay))
