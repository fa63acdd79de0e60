"""Allocate and release: read, plan, claim, confirm, and decide again when something changed in between.

Nothing here talks to Kubernetes; the ports do. A call may be cut off anywhere: what it had claimed stands in the ledger
under the pod's UID and interface. The next try for that pod undoes what was never answered (attempts.py), and when the
pod is gone the reclaim loop releases it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from allocator.attempts import Attempts
from allocator.awaiting import Awaiting
from allocator.claiming import Memories
from allocator.confirming import Confirmation
from allocator.domain import errors
from allocator.domain.addresses import version_of
from allocator.domain.basis import Basis
from allocator.domain.endpoint import Assigned, Endpoint, assigned, in_order, recorded
from allocator.domain.exhaustion import exhausted
from allocator.domain.planning import Move, Plan, Snapshot, Want, plan
from allocator.domain.reclaim import may_run
from allocator.domain.record import Record
from allocator.domain.slots import public_name
from allocator.domain.wishes import holdings
from allocator.handing_back import hand_back
from allocator.releasing import Releasing
from allocator.runtime.backoff import delays
from allocator.runtime.logs import get_logger
from allocator.runtime.tasks import both, settled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from allocator.domain.addresses import Address, Version
    from allocator.domain.attachments import Sandbox
    from allocator.domain.request import AddRequest, DelRequest, Pod
    from allocator.world import World

T = TypeVar("T")

_log = get_logger(__name__)

# Waiting for a cache to show what a live read already has shown; each wait is jittered up to the cap.
RETRY_BASE_S: Final = 0.02
RETRY_CAP_S: Final = 1.0


class Allocator:
    """The service behind the agent's API. One call per pod at a time: the agent sees to the order.

    `versions` are the families that the cluster has switched on; `max_per_pool` is the number of addresses of a pool
    that are handed out at most (None: all).
    """

    def __init__(
        self,
        world: World,
        *,
        node: str,
        versions: frozenset[Version],
        max_per_pool: int | None = None,
    ) -> None:
        self._world = world
        self._node = node
        self._versions = versions
        self._max_per_pool = max_per_pool
        self._basis = Basis({}, ())
        self._memories = Memories(node=node, ledger=world.ledger, clock=world.clock, rng=world.rng)
        self._attempts = Attempts()
        self._confirmation = Confirmation(world.pools, world.reservations)
        self._releasing = Releasing(world, self._memories)
        self._awaiting = Awaiting(world.pools, world.clock)

    async def allocate(self, request: AddRequest, *, deadline: float = math.inf) -> tuple[Assigned, ...]:
        """The interface's addresses, committed to the ledger and confirmed before this returns (invariant I3).

        The caller cancels this at its deadline, and tells it (of the clock's `monotonic`), so that a wait for a pool of
        the controller's ends in time. errors.IpamError says why there is no address; the claims of a refused call are
        undone.
        """
        return await self._awaiting.served(lambda: self._until_settled(lambda: self._allocate_once(request)), deadline)

    async def release(self, request: DelRequest) -> tuple[Record, ...]:
        """Give back what the interface holds, unless its pod lives; the records as written. Repeating is harmless."""
        return await self._until_settled(lambda: self._releasing.release(request))

    async def hand_back(self, sandbox: Sandbox, answered: str) -> tuple[Record, ...]:
        """Free what the sandbox's interface `answered` has just got and cannot use; the records as written.

        errors.IpamError says why they stay.
        """
        handed = await self._until_settled(lambda: hand_back(sandbox, answered, self._world))
        written = list(handed.freed)
        for request in handed.releases:
            written += await self.release(request)
        if handed.pod is not None and handed.freed:
            await self._mend_endpoint(handed.pod)
        return tuple(written)

    async def held_by(self, pod: Pod) -> tuple[Assigned, ...]:
        """What the pod's interfaces hold by the ledger, as this node knows it."""
        return holdings(pod.annotations, self._world.ledger.own(pod.uid), await self._world.pools.current())

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
        await self._undo_unanswered(pod)
        basis, decided, pod = await self._planned_well(request, pod)
        moved = [await self._world.ledger.replace(move.after) for move in decided.moves]
        claims = await self._claim_all(pod, decided.wants, basis)
        try:
            held = await self._all_held(pod, (*decided.kept, *moved, *claims), basis, decided)
            changed, _ = await both(
                self._confirmation.changed((claim.pool for claim in claims), basis) if claims else _nothing(),
                self._write_endpoint(pod, held),
            )
            if changed:
                raise errors.Conflict(f"{changed} changed while an address was claimed from it")  # noqa: TRY301
        except (errors.IpamError, errors.Conflict):
            if claims:
                await self._undo(claims)
                await self._mend_endpoint(pod)
            raise
        self._attempts.over(pod.uid, decided.clean_gateway.keys())
        await self._drop(decided.drops)
        return tuple(each for each in held if each.interface in decided.clean_gateway)

    async def _living_pod(self, request: AddRequest) -> Pod:
        """The pod from the informer when it answers to the UID asked for; from the API server otherwise."""
        pod = self._world.view.pod(request.namespace, request.pod)
        if pod is None or not request.pod_uid or not pod.answers_to(request.pod_uid):
            pod = await self._read_pod(request)
        if pod.node != self._node:
            name, node = f"{pod.namespace}/{pod.name}", pod.node or "(none)"
            raise errors.Invalid(f"pod {name} is bound to node {node}, this agent serves {self._node}")
        return pod

    async def _read_pod(self, request: AddRequest) -> Pod:
        name = f"{request.namespace}/{request.pod}"
        if not request.namespace or not request.pod:
            raise errors.Invalid("the runtime names no pod: CNI_ARGS needs K8S_POD_NAMESPACE and K8S_POD_NAME")
        pod = await self._world.view.read_pod(request.namespace, request.pod)
        if pod is None:
            raise errors.PodGone(f"pod {name} does not exist")
        if request.pod_uid and not pod.answers_to(request.pod_uid):
            raise errors.PodGone(f"pod {name} is now another one (UID {pod.uid}, asked for {request.pod_uid})")
        return pod

    async def _planned_well(self, request: AddRequest, pod: Pod) -> tuple[Basis, Plan, Pod]:
        """The plan; before a pod is refused because of a pool that a watch may be behind on, that pool is read."""
        try:
            return await self._planned(request, pod)
        except errors.NoPool as refusal:
            if not refusal.doubtful:
                raise
            for name in refusal.doubtful:
                await self._world.pools.reread(name)
            return await self._planned(request, pod)

    async def _planned(self, request: AddRequest, pod: Pod) -> tuple[Basis, Plan, Pod]:
        basis = await self._present_basis()
        around = await self._world.view.surroundings(pod)
        if request.match_master_subnet:
            interface = request.interface
            master = await self._world.uplinks.master_of(interface.netns, interface.name)
            around = replace(around, master=master)
        records, running = self._world.ledger.own(pod.uid), {}
        if (slot := pod.slot) is not None:
            unslotted = [record for record in records if record.slot != slot]
            records = [*await self._world.ledger.of_slot(slot), *unslotted]
            # In this order: that the API server shows the pod after its slot's records were read is the proof that
            # every other holder of its name among them is gone.
            pod = await self._read_pod(request)
            running = await self._running(records, pod)
        seen = Snapshot(
            pod=pod,
            running=running,
            around=around,
            basis=basis,
            records=tuple(records),
            versions=self._versions,
            now=self._world.clock.now(),
        )
        return basis, plan(request, seen), pod

    async def _running(self, records: Sequence[Record], pod: Pod) -> dict[str, Pod]:
        """Of the others that have the records those which may run, by UID. A name belongs to one pod at a time: who
        had the pod's name is gone.
        """
        others = {party.pod_uid: party for record in records for party in record.parties if party.pod != pod.name}
        found = {uid: await self._world.view.read_pod(each.namespace, each.pod) for uid, each in others.items()}
        return {uid: other for uid, other in found.items() if other is not None and may_run(others[uid], other)}

    async def _present_basis(self) -> Basis:
        pools, reservations = await self._world.pools.current(), self._world.reservations.current()
        if not self._basis.is_of(pools, reservations):
            self._basis = Basis(pools, reservations, limit=self._max_per_pool)
            self._memories.keep_only(pools)
        return self._basis

    async def _lost(self, pod: Pod, wants: Sequence[Want]) -> Mapping[tuple[str, Version], Address]:
        """What a static pod's endpoint shows: addresses that its claims begin with, if somebody deleted its records."""
        if pod.slot is None or not wants:
            return {}
        return await self._world.endpoints.addresses(pod.namespace, public_name(pod.name, pod.slot))

    async def _claim_all(self, pod: Pod, wants: Sequence[Want], basis: Basis) -> list[Record]:
        """One address for each want, all or nothing (invariant I11)."""
        hopeless = [want for want in wants if self._memories.exhausted(want.pools)]
        others = [want for want in wants if want not in hopeless]
        lost = await self._lost(pod, wants)
        claims: list[Record] = []
        # Those that are known to fail go first: the others then need not be claimed and undone.
        for group in (hopeless, others):
            jobs = [self._claim(want, pod, basis, lost.get((want.holder.interface, want.version))) for want in group]
            outcomes = await settled(jobs, errors.IpamError, errors.Conflict)
            claims += [each for each in outcomes if isinstance(each, Record)]
            for refusal in outcomes:
                if not isinstance(refusal, Record):
                    await self._undo(claims)
                    raise refusal
        return claims

    async def _claim(self, want: Want, pod: Pod, basis: Basis, lost: Address | None) -> Record:
        holder = want.holder
        attempt = self._attempts.begin(pod.uid, holder.interface, want.version)
        choices = [(pool, basis.usable(pool)) for pool in want.pools]
        if (first := attempt.address or lost) is not None:
            for pool, usable in choices:
                record = await self._memories.of(pool).claim_this(first, pool, usable, holder, pod.slot, attempt)
                if record is not None:
                    return record
        refusals: list[errors.Exhausted] = []
        for pool, usable in choices:
            try:
                return await self._memories.of(pool).claim(pool, usable, holder, pod.slot, attempt)
            except errors.Exhausted as refusal:
                refusals.append(refusal)
        fresh = [pool.name for pool, each in zip(want.pools, refusals, strict=True) if not each.remembered]
        if changed := await self._confirmation.changed_pool(fresh, basis):
            raise errors.Conflict(f"SpiderIPPool {changed} changed, and may have a free address now")
        raise exhausted(refusals, want, basis)

    async def _all_held(self, pod: Pod, held: Sequence[Record], basis: Basis, decided: Plan) -> tuple[Assigned, ...]:
        """What the interfaces that the plan covers have by these records, and the pod's others from earlier ADDs."""
        clean = decided.clean_gateway
        found = [
            assigned(record, basis.pools, clean_gateway=clean[record.holder.interface] if record.holder else None)
            for record in held
        ]
        if missing := [record for record, each in zip(held, found, strict=True) if each is None]:
            address, pool = missing[0].address, missing[0].pool
            raise errors.Unavailable(
                f"the pod holds {address} from SpiderIPPool {pool}, which is gone or unreadable, and with it the "
                "prefix length and the gateway: create or mend the pool, or name another one and delete the pod"
            )
        earlier = [
            each for each in recorded(self._world.ledger.own(pod.uid), basis.pools) if each.interface not in clean
        ]
        covered = [each for each in found if each is not None]
        return decided.wishes.granted((*covered, *earlier), complete=decided.covers_all)

    async def _write_endpoint(self, pod: Pod, assigned: Sequence[Assigned]) -> None:
        """The SpiderEndpoint shows every interface of the pod, those of earlier ADDs too."""
        owner = await self._world.view.owner(pod)
        await self._world.endpoints.write(Endpoint(pod=pod, owner=owner, assigned=in_order(assigned)))

    async def _mend_endpoint(self, pod: Pod) -> None:
        """After an undo: the endpoint must not show what the pod does not hold."""
        try:
            if held := await self.held_by(pod):
                await self._write_endpoint(pod, held)
            else:
                await self._world.endpoints.remove(pod.namespace, public_name(pod.name, pod.slot), pod.uid)
        except errors.IpamError as error:
            _log.warning("endpoint_not_mended", pod=f"{pod.namespace}/{pod.name}", why=str(error))

    async def _undo_unanswered(self, pod: Pod) -> None:
        """Give back what an earlier call claimed and could not answer: it was never confirmed, and nobody uses it.

        errors.Unavailable or Conflict when that cannot be done now; then nothing else may be claimed either.
        """
        for attempt in self._attempts.open(pod.uid):
            if attempt.address is None:
                continue
            record = await self._world.ledger.read(attempt.address)
            if record is not None and record.is_of(pod.uid, attempt.interface) and record.peer is None:
                await self._world.ledger.delete(record)
                self._memories.forget(record.address)
                attempt.address = None

    async def _undo(self, claims: Sequence[Record]) -> None:
        """Delete what was claimed and not answered, without cooling: nobody has used it."""
        for record in claims:
            try:
                await self._world.ledger.delete(record)
            except (errors.IpamError, errors.Conflict) as error:
                # The attempt stays open: the pod's next try begins with it. If the pod ends first, reclaim does it.
                _log.warning("claim_not_undone", address=str(record.address), pool=record.pool, why=str(error))
                continue
            self._memories.forget(record.address)
            if record.holder is not None:
                version = version_of(record.address)
                self._attempts.begin(record.holder.pod_uid, record.holder.interface, version).address = None

    async def _drop(self, drops: Sequence[Move]) -> None:
        """Give back what the plan no longer needs. The answer stands without it: reclaim finishes what fails here."""
        for move in drops:
            try:
                await self._world.ledger.replace(move.after)
            except (errors.IpamError, errors.Conflict) as error:
                _log.warning("record_not_dropped", address=str(move.before.address), why=str(error))


async def _nothing() -> str:
    return ""
