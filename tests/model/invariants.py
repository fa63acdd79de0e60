"""The invariants of DESIGN.md, checked against the ledger, its history, and the answers that were given."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from allocator.domain.addresses import IntervalSet
from allocator.domain.basis import Basis
from allocator.domain.overlapping import overlaps
from allocator.domain.pool import reserved_of
from allocator.domain.record import State
from tests.model.cluster import is_claim
from tests.model.standstill import NOON

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from allocator.domain.addresses import Address, Version
    from allocator.domain.endpoint import Assigned
    from allocator.domain.pool import Pool, Reservation
    from allocator.domain.record import Record
    from allocator.domain.request import AddRequest, DelRequest, Pod
    from tests.model.cluster import Cluster, Listed, Moment, Written
    from tests.model.standstill import Call

# How long a refusal for lack of addresses may rest on a look that was made before the call.
REMEMBERED_S = 1.0


class Violation(AssertionError):
    """`number` is that of the invariant in DESIGN.md."""

    def __init__(self, number: str, words: str) -> None:
        super().__init__(f"{number}: {words}")
        self.number = number


def hold(number: str, holds: object, words: str) -> None:
    if not holds:
        raise Violation(number, words)


@dataclass(frozen=True, slots=True)
class Asked:
    """What an ADD asked for: the pools by interface and family that the pod's annotation lists."""

    request: AddRequest
    pod: Pod
    wish: Mapping[str, Mapping[Version, tuple[str, ...]]]


@dataclass
class Judge:
    cluster: Cluster
    # By pod UID and interface: what the runtime was told, and configured.
    answers: dict[tuple[str, str], dict[Version, Address]] = field(default_factory=dict)
    # Claims whose call was killed with its agent before an answer: the successor may answer them unconfirmed.
    unconfirmed: set[tuple[Address, int]] = field(default_factory=set)
    # Records that a write made which landed after its caller had given up.
    strays: set[tuple[Address, str]] = field(default_factory=set)
    # Endpoints that a completed call has brought in line, by pod UID, and nothing has disturbed since.
    settled: set[str] = field(default_factory=set)
    # Pools that somebody took away while pods had addresses of them: nobody can say such an address in full any more.
    lost_pools: set[str] = field(default_factory=set)
    _judged: int = 0

    def always(self) -> None:
        """What holds after every single step."""
        for written in self.cluster.writes[self._judged :]:
            self._write_is_a_move(written)
        self._judged = len(self.cluster.writes)
        self._users_hold_their_addresses()
        self._one_address_each()
        self._endpoints_agree()

    def answered(self, call: Call, asked: Asked, given: Sequence[Assigned], *, alone: bool) -> None:
        """An ADD has given its answer."""
        request, pod = asked.request, asked.pod
        families = {each.version for each in given if each.interface == request.interface.name}
        hold("I3", families == set(asked.wish[request.interface.name]), f"{call.what} answered {given}")
        if not self.cluster.is_alive(pod.uid):
            return  # it ended meanwhile: what it was told is nobody's any more
        for each in given:
            record = self.cluster.ledger.records.get(each.address)
            hold(
                "I3",
                record is not None and record.is_of(pod.uid, each.interface),
                f"{call.what} answered {each.address}, the ledger says {record}",
            )
            assert record is not None
            if each.interface == request.interface.name:
                sandbox = record.holder.container_id if record.holder else ""
                hold("I3", sandbox == request.interface.container_id, f"{each.address} is of sandbox {sandbox}")
            hold(
                "I2",
                each.pool == record.pool,
                f"{each.address} is answered from {each.pool}, but of {record.pool}",
            )
            if (each.address, record.uid) in self.strays:
                # From now on it is the answer; that it was not confirmed is the price of a write that landed so late.
                self.strays.discard((each.address, record.uid))
                self.unconfirmed.add((each.address, self._claimed_at(each.address)))
            before = self.answers.setdefault((pod.uid, each.interface), {})
            told = before.setdefault(each.version, each.address)
            hold(
                "I4",
                told == each.address,
                f"{pod.uid}/{each.interface} had {told}, and is now told {each.address}",
            )
            self._first_answer_is_confirmed(call, record, pod)
        self._slot_got_its_own_back(call, asked, given)
        if alone and call.is_faultless and not call.was_behind:
            self.settled.add(pod.uid)

    def refused(self, call: Call, exhausted: Iterable[str]) -> None:
        """An ADD has failed with words for the user, who is told that these pools are exhausted."""
        if not call.is_faultless:
            return
        for address, tick in call.claims:
            record = self.cluster.ledger.records.get(address)
            if record is None or record.state is not State.HELD or self._claimed_at(address) != tick:
                continue
            is_its_own = record.holder is not None and record.holder.pod_uid == call.uid
            hold("I11", not is_its_own, f"{call.what} failed and left {record}")
        moments = self.cluster.since(self._tick_at(call))
        for name in () if call.was_behind else exhausted:
            hold("L1", any(_is_exhausted(name, each) for each in moments), f"{call.what}: {name} had an address")

    def released(self, call: Call, request: DelRequest, *, was_dead: bool) -> None:
        if not (call.is_faultless and not call.was_behind and was_dead and request.pod_uid):
            return
        for record in self.cluster.ledger.records.values():
            left = record.is_of(request.pod_uid, request.interface.name)
            same = record.holder is not None and record.holder.container_id == request.interface.container_id
            hold("DEL", not (left and same), f"{call.what} left {record}")

    # -- the single invariants

    def _write_is_a_move(self, written: Written) -> None:
        before, after, call = written.before, written.after, written.call
        if call is None:
            return
        if before is not None and before.state is State.QUARANTINED:
            raise Violation("I9", f"{call.what} took {before.address} out of quarantine")
        if before is not None and after is not None and is_claim(before, after):
            moment = self.cluster.moments[written.tick]
            now = before.until is None or (before.until - self.cluster.stage.now()).total_seconds() <= (
                moment.at - self.cluster.stage.elapsed
            )
            if not now:
                self._nothing_else_was_free(written, call)

    def _nothing_else_was_free(self, written: Written, call: Call) -> None:
        """I9: a list that this call could see, begun after it, showed nothing else in the pool."""
        assert written.after is not None
        pool_name = written.after.pool
        offers = self._offers(pool_name, 0 if call.was_behind else call.began)
        for listed in self.cluster.lists:
            if (listed.node, listed.pool) == (call.node, pool_name) and listed.began >= call.began:
                version = offers[0].version
                busy = _unavailable(listed.seen, version) | self._own_claims(listed, version)
                busy |= IntervalSet.addresses(version, [written.address])
                if not all(offer - busy for offer in offers):
                    return
        raise Violation("I9", f"{call.what} took {written.address}, which cools, and had not seen the pool exhausted")

    def _offers(self, name: str, since: int) -> list[IntervalSet]:
        """What the pool offered by any of its texts, and any reservations, that an agent may have seen since."""
        moments = self.cluster.since(since)
        names = {each for moment in moments for each in moment.pools}
        texts = [{moment.pools.get(each) for moment in moments} for each in names]
        reserved = {tuple(moment.reservations.values()) for moment in moments}
        return [
            _usable(name, [pool for pool in pools if pool is not None], each)
            for pools in itertools.product(*texts)
            if any(pool is not None and pool.name == name for pool in pools)
            for each in reserved
        ]

    def _users_hold_their_addresses(self) -> None:
        """I1 and I5: who was told an address, and lives, holds it."""
        alive = {pod.uid for pod in self.cluster.pods.values() if pod.alive}
        for (uid, interface), told in self.answers.items():
            for address in told.values() if uid in alive else ():
                record = self.cluster.ledger.records.get(address)
                if record is None or not record.is_of(uid, interface):
                    raise Violation("I1/I5", f"{uid}/{interface} uses {address}, but the ledger says {record}")

    def _one_address_each(self) -> None:
        held: dict[tuple[str, str, int], Record] = {}
        for record in self._held():
            assert record.holder is not None
            key = record.holder.pod_uid, record.holder.interface, record.address.version
            if key in held:
                raise Violation("I4", f"{key} holds {record} and {held[key]}")
            held[key] = record

    def _held(self) -> list[Record]:
        """What somebody holds; records do not count whose write landed after its caller had given up."""
        return [
            record
            for record in self.cluster.ledger.records.values()
            if record.state is State.HELD and (record.address, record.uid) not in self.strays
        ]

    def _endpoints_agree(self) -> None:
        """I10: once a call has completed without a fault, and until the next one begins."""
        for key, pod in self.cluster.pods.items():
            if pod.uid not in self.settled or not pod.alive:
                continue
            endpoint = self.cluster.endpoints.get(key)
            mine = [each for each in self._held() if each.holder is not None and each.holder.pod_uid == pod.uid]
            held = {
                (each.holder.interface, each.address)
                for each in mine
                if each.holder is not None and each.pool not in self.lost_pools
            }
            shown = {
                (each.interface, each.address)
                for each in (endpoint.assigned if endpoint else ())
                if each.pool not in self.lost_pools and each.address not in {address for address, _ in self.strays}
            }
            whose = endpoint.pod.uid if endpoint else None
            if (whose, shown) != (pod.uid, held):
                raise Violation("I10", f"{pod.uid} holds {held}, the endpoint is of {whose} and says {shown}")

    def _first_answer_is_confirmed(self, call: Call, record: Record, pod: Pod) -> None:
        """I2 and I7: at a moment of this call, after the claim, the pool offered this address to this pod."""
        claim = self._claim_of(record.address)
        if claim is None or claim.after is None or (record.address, claim.tick) in self.unconfirmed:
            return
        if claim.after.holder is not None and claim.after.holder.pod_uid != pod.uid:
            return  # taken over from the slot's predecessor
        self.unconfirmed.add((record.address, claim.tick))  # answered now: later answers repeat this one
        moments = self.cluster.since(max(claim.tick, call.began))
        serves = any(_serves(each.pools.get(record.pool), record, pod) for each in moments)
        hold("I2", serves, f"{record.address} was answered to {pod.uid}, but {record.pool} did not offer it")
        open_to_all = any(
            record.address not in reserved_of(_version(record), each.reservations.values()) for each in moments
        )
        hold("I2", open_to_all, f"{record.address} was answered to {pod.uid}, but is reserved")
        own = any(record.address not in _ceded(record.pool, each) for each in self.cluster.since(call.began))
        hold("I2", own or call.was_behind, f"{record.address} of {record.pool} belongs to an earlier pool")

    def _slot_got_its_own_back(self, call: Call, asked: Asked, given: Sequence[Assigned]) -> None:
        """I8: what stood for the slot when the ADD began, and still stands untouched, was not passed over."""
        pod = asked.pod
        if pod.slot is None:
            return
        at_first = self.cluster.moments[call.began].records
        for each in given:
            waiting = [
                record
                for record in at_first.values()
                if record.slot == pod.slot
                and record.state in (State.HELD, State.RETAINED)
                and record.holder is not None
                and record.holder.interface == each.interface
                and record.address.version == each.version
                and record.pool in asked.wish[each.interface][each.version]
                and self.cluster.ledger.records.get(record.address) == record
            ]
            passed_over = waiting and each.address not in at_first
            hold("I8", not passed_over, f"{pod.uid} got {each.address}, and {waiting} wait for its slot")

    def _claim_of(self, address: Address) -> Written | None:
        """The write that made the address somebody's, last."""
        writes = reversed(self.cluster.writes)
        return next((w for w in writes if w.address == address and w.after and is_claim(w.before, w.after)), None)

    def _claimed_at(self, address: Address) -> int:
        claim = self._claim_of(address)
        return claim.tick if claim is not None else -1

    def landed(self, written: Written, call: Call) -> None:
        """A write has taken effect that its caller had given up. A record that it made is nobody's answer; that there
        is another one beside it is the price where the agent could not try the same address again.
        """
        if written.after is None or not is_claim(written.before, written.after):
            return
        moments = self.cluster.since(call.began)
        edited = any((each.pools, each.reservations) != (moments[0].pools, moments[0].reservations) for each in moments)
        if call.was_killed or edited:
            self.strays.add((written.address, written.after.uid))

    def orphaned(self, node: str) -> None:
        """The agent died: what its calls had claimed and not answered, the next one may answer unconfirmed."""
        for written in self.cluster.writes:
            if written.call is not None and written.call.node == node:
                self.unconfirmed.add((written.address, written.tick))

    def _tick_at(self, call: Call) -> int:
        at = call.began_at - REMEMBERED_S
        return max((each.tick for each in self.cluster.moments if each.at <= at), default=0)

    def _own_claims(self, listed: Listed, version: Version) -> IntervalSet:
        """What the agent itself was after when it listed, or has been since: nothing that it takes for free."""
        since = self.cluster.stage.touched[listed.touched :]
        own = listed.under_way | {address for node, address in since if node == listed.node}
        return IntervalSet.addresses(version, (each for each in own if each.version == version))


def _usable(name: str, pools: Iterable[Pool], reservations: Iterable[Reservation]) -> IntervalSet:
    basis = Basis({pool.name: pool for pool in pools}, [*reservations])
    return basis.usable(basis.pools[name])


def _ceded(name: str, moment: Moment) -> IntervalSet:
    """Of the pool, what earlier pools have."""
    overlap = overlaps(moment.pools.values()).get(name)
    return overlap.ceded if overlap is not None else IntervalSet(4)


def _version(record: Record) -> Version:
    return 4 if record.address.version == 4 else 6


def _serves(pool: Pool | None, record: Record, pod: Pod) -> bool:
    return (
        pool is not None
        and not pool.edition.terminating
        and not pool.disabled
        and (not pool.node_names or pod.node in pool.node_names)
        and record.address in pool.usable(IntervalSet(pool.version))
    )


def _unavailable(moment: Moment, version: Version) -> IntervalSet:
    """The addresses that somebody has, cooling ones included until their time has come."""
    return IntervalSet.addresses(
        version,
        (
            record.address
            for record in moment.records.values()
            if record.address.version == version and not is_free(record, moment.at)
        ),
    )


def is_free(record: Record, at: float) -> bool:
    """Whether the record has cooled for long enough by then."""
    if record.state is not State.COOLING or record.until is None:
        return record.state is State.COOLING
    return (record.until - NOON).total_seconds() <= at


def _is_exhausted(name: str, moment: Moment) -> bool:
    """Whether the pool had nothing to give, not even an address that cools."""
    pool = moment.pools.get(name)
    if pool is None:
        return True
    usable = _usable(name, moment.pools.values(), moment.reservations.values())
    taken = (
        record.address
        for record in moment.records.values()
        if record.address.version == pool.version and record.state is not State.COOLING
    )
    return not usable - IntervalSet.addresses(pool.version, taken)
