"""What agents answer, and what they have done for it: ADDs under way, their claims, and the lists they have seen."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.domain.addresses import IntervalSet, address_of, version_of
from allocator.domain.reclaim import MIRROR_ANNOTATION
from allocator.domain.record import State
from tests.simulation.loop import NOON, PROCESS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.work import Work
    from allocator.domain.addresses import Address, Version
    from allocator.domain.endpoint import Assigned
    from allocator.domain.record import Record
    from allocator.domain.request import AddRequest, Pod
    from tests.simulation.faults import Fate
    from tests.simulation.judge import Judge
    from tests.simulation.loop import Process
    from tests.simulation.network import Delivery

# How long an agent may be after an address before it hears what has become of its request.
IN_FLIGHT_S: Final = 12.0
_LIST: Final = "/spideripaddresses"


@dataclass(slots=True)
class Claim:
    """The write that last made an address somebody's. `is_stray`: it took effect when its caller had given up.

    `is_confirmed`: its pool was looked at between the claim and the answer.
    """

    record: Record
    process: Process | None
    at: float
    is_stray: bool
    is_answered: bool = False
    is_confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """A live list of records: who saw what when."""

    process: Process
    at: float
    records: dict[Address, Record]


@dataclass(slots=True)
class Adding:
    """`faults` is how many requests of the process the weather had struck when the ADD began."""

    process: Process
    began: float
    faults: int
    claims: list[Claim] = field(default_factory=list)


@dataclass
class Calls:
    judge: Judge
    # By address.
    claims: dict[Address, Claim] = field(default_factory=dict)
    # By pod UID, interface and family: what the runtime was told.
    told: dict[tuple[str, str, Version], Address] = field(default_factory=dict)
    told_at: dict[tuple[str, str, Version], float] = field(default_factory=dict)
    answers: int = 0
    # By the pod's namespace and name: its ADDs, of which the first has its turn.
    _adding: dict[tuple[str, str], list[Adding]] = field(default_factory=lambda: defaultdict(list))
    _faults: dict[Process, int] = field(default_factory=lambda: defaultdict(int))
    _lists: list[Listing] = field(default_factory=list)
    # What each process asked for, and when: names of records.
    _touched: dict[Process, list[tuple[float, str]]] = field(default_factory=lambda: defaultdict(list))

    # -- on the way to the server

    def sent(self, delivery: Delivery, fate: Fate) -> None:
        request = delivery.request
        self._faults[delivery.process] += bool(fate.kind)
        if _LIST in request.path and not request.path.endswith(_LIST):
            self._touched[delivery.process].append((delivery.sent_at, request.path.rpartition("/")[2]))
        elif _LIST in request.path and request.method == "POST":
            self._touched[delivery.process].append((delivery.sent_at, request.body["metadata"]["name"]))

    def arrived(self, delivery: Delivery, fate: Fate) -> None:
        request = delivery.request
        if request.path.endswith(_LIST) and request.method == "GET" and not request.is_watch and fate.takes_effect:
            self._lists.append(Listing(delivery.process, self.judge.now, dict(self.judge.records)))

    def claimed(self, old: Record | None, new: Record, delivery: Delivery | None) -> None:
        process, is_stray = (delivery.process, delivery.is_stray) if delivery else (None, False)
        claim = self.claims[new.address] = Claim(new, process, self.judge.now, is_stray)
        adds = [each for each in self._adds_of(new) if each.process is process]
        if adds:
            adds[0].claims.append(claim)
        is_back = new.holder is not None and self.judge.byhand.has_lost(new.holder.pod_uid, new.address)
        is_checked = not is_stray and not is_back and not self.judge.world.has_wrong_clocks
        if old is not None and process is not None and is_checked:
            self._was_not_cut_short(old, new, process)

    def _adds_of(self, record: Record) -> list[Adding]:
        holder = record.holder
        return self._adding[holder.namespace, holder.pod] if holder else []

    def _was_not_cut_short(self, old: Record, new: Record, process: Process) -> None:
        """I9: before an address is taken that still cools, a list of this request has shown nothing else."""
        judge = self.judge
        if _has_cooled(old, judge.now):
            return
        began = min((each.began for each in self._adds_of(new)), default=judge.now)
        version = version_of(new.address)
        sure = judge.offers.surely(new.pool, version, judge.now)
        for listing in self._lists:
            if listing.process is process and listing.at >= began:
                # What it is after itself is as good as taken.
                busy = [address_of(name) for at, name in self._touched[process] if at >= listing.at - IN_FLIGHT_S]
                busy += [each.address for each in listing.records.values() if not _has_cooled(each, listing.at)]
                if not sure - IntervalSet.addresses(version, (each for each in busy if version_of(each) == version)):
                    return
        judge.hold("I9", False, "%s took %s, which cools, and had not seen %s full", process, new.address, new.pool)

    # -- in the agent

    async def add(self, work: Work, request: AddRequest, within_s: float) -> tuple[Assigned, ...]:
        """The agent's answer, looked at in the moment in which it is given."""
        process, key = PROCESS.get(), (request.namespace, request.pod)
        adding = Adding(process, self.judge.now, self._faults[process])
        self._adding[key].append(adding)
        try:
            given = await work.add(request, within_s=within_s)
        except errors.IpamError as refusal:
            self._refused(request, adding, refusal)
            raise
        finally:
            self._adding[key].remove(adding)
        self._answered(request, given, adding)
        return given

    def _refused(self, request: AddRequest, adding: Adding, refusal: errors.IpamError) -> None:
        """I11, where nothing went wrong on the way."""
        self.judge.world.story.tell("ADD of %s refused: %s", request.pod_uid, refusal)
        if self._faults[adding.process] != adding.faults or isinstance(refusal, errors.DeadlineExceeded):
            return
        for claim in adding.claims:
            record, holder = self.judge.records.get(claim.record.address), claim.record.holder
            is_left = record is not None and holder is not None and record.is_of(holder.pod_uid, holder.interface)
            self.judge.hold("I11", not is_left or claim.is_answered, "%r left %s", refusal, record)

    def _answered(self, request: AddRequest, given: Sequence[Assigned], adding: Adding) -> None:
        self.answers += 1
        judge, asking = self.judge, request.interface
        pod = judge.world.pod_named(request.namespace, request.pod)
        if pod is None or not pod.answers_to(request.pod_uid) or not pod.alive:
            return  # it ended meanwhile: what it was told is nobody's any more
        judge.world.story.tell("ADD of %s %s: %s", pod.name, asking.name, _told(given))
        judge.hold("I3", any(each.interface == asking.name for each in given), "%s is told %s", pod.name, given)
        for each in given:
            record = judge.records.get(each.address)
            holds = record is not None and _is_of(record, pod, each.interface)
            holds = holds or judge.byhand.has_lost(pod.uid, each.address)
            judge.hold("I3", holds, "%s (%s) is told %s, which is %s", pod.name, pod.uid, each.address, record)
            if record is None or record.holder is None or not _is_of(record, pod, each.interface):
                continue
            if each.interface == asking.name:
                same = record.holder.container_id == asking.container_id
                judge.hold("I3", same, "%s is of %s, not of %s", each.address, record.holder, asking)
            key = record.holder.pod_uid, each.interface, each.version
            before = self.told.setdefault(key, each.address)
            self.told_at.setdefault(key, judge.now)
            if judge.byhand.was_taken(*key):
                if before != each.address:
                    judge.byhand.moved(pod.uid, each.interface, before)
                before = self.told[key] = each.address
            judge.hold("I4", before == each.address, "%s had %s, and is told %s", pod.name, before, each.address)
            self._is_confirmed(record, pod, adding.process)
            self._slot_got_its_own(record, pod, adding)

    def _is_confirmed(self, record: Record, pod: Pod, process: Process) -> None:
        """I2 and I7: between the claim and its first answer the pool offered the address to this pod. What an agent
        has claimed that died then, its successor may answer unconfirmed, as any agent what took effect too late for its
        own ADD; and a slot keeps what it has.
        """
        claim = self.claims.get(record.address)
        if claim is None or claim.is_answered or claim.record.holder is None:
            return
        claim.is_answered = True
        if claim.process is not process or claim.is_stray or claim.record.holder.pod_uid != pod.uid:
            return
        claim.is_confirmed = True
        self.judge.lent.confirmed(record)
        offers, pool, address = self.judge.offers, record.pool, record.address
        is_offered = offers.offered(pool, address, pod, since=claim.at)
        self.judge.hold("I2", is_offered, "%s is told %s, and %s did not offer it", pod.name, address, pool)

    def _slot_got_its_own(self, record: Record, pod: Pod, adding: Adding) -> None:
        """I8: an address that waited for the slot all the time is not passed over for another one."""
        claim = self.claims.get(record.address)
        if pod.slot is None or claim is None or claim.at < adding.began or claim.process is not adding.process:
            return
        for other in self.judge.records.values():
            earlier = self.claims.get(other.address)
            waited = (
                other is not record
                and other.slot == pod.slot
                and other.state in (State.HELD, State.RETAINED)
                and _interface(other) == _interface(record)
                and version_of(other.address) == version_of(record.address)
                and earlier is not None
                and earlier.at < adding.began
                and not earlier.is_stray
                and self.judge.lent.serves(other.pool, pod)
            )
            self.judge.hold("I8", not waited, "%s got %s, and %s waited", pod.name, record.address, other.address)


def _is_of(record: Record, pod: Pod, interface: str) -> bool:
    """Of a static pod an earlier mirror may be the holder."""
    holder = record.holder
    if record.is_of(pod.uid, interface):
        return True
    is_older = holder is not None and (holder.pod, holder.node) == (pod.name, pod.node)
    return is_older and MIRROR_ANNOTATION in pod.annotations and record.state is State.HELD


def _interface(record: Record) -> str:
    return record.holder.interface if record.holder else ""


def _has_cooled(record: Record, at: float) -> bool:
    return record.state is State.COOLING and record.until is not None and (record.until - NOON).total_seconds() < at


def _told(given: Iterable[Assigned]) -> str:
    return ", ".join(f"{each.interface} {each.address} of {each.pool}" for each in given)
