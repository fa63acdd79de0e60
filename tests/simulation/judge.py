"""The invariants of DESIGN.md, checked at every commit of the store, every answer and every request that is sent.

The judge sees what nobody inside can see: the store itself, what really runs on the nodes, and when things happened.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from allocator.domain import errors
from allocator.domain.addresses import IntervalSet, version_of
from allocator.domain.pool import reserved_of
from allocator.domain.record import State
from allocator.domain.slots import public_name
from allocator.kube.codec import decode_pod, decode_pool, decode_record, decode_reservation, decode_time
from tests.simulation.loop import NOON, PROCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from agent.work import Work
    from allocator.domain.addresses import Address, Version
    from allocator.domain.endpoint import Assigned
    from allocator.domain.pool import Pool, Reservation
    from allocator.domain.record import Record, Slot
    from allocator.domain.request import AddRequest, DelRequest, Pod
    from devcluster.plane.problems import Object
    from devcluster.plane.store import Event, Key
    from tests.simulation.faults import Fate
    from tests.simulation.kubelet import Sandbox
    from tests.simulation.loop import Process
    from tests.simulation.network import Delivery
    from tests.simulation.world import World

RECORDS: Final = "spiderpool.spidernet.io/spideripaddresses"
ENDPOINTS: Final = "spiderpool.spidernet.io/spiderendpoints"
POOLS: Final = "spiderpool.spidernet.io/spiderippools"
RESERVATIONS: Final = "spiderpool.spidernet.io/spiderreservedips"
# A verdict of reclaim is good for the renew deadline; a DEL reads the owner right before it writes.
VERDICT_S: Final = 15.0
# How far a cache of pools may be behind, and a little more.
BEHIND_S: Final = 130.0


class Violation(AssertionError):
    """`number` is that of the invariant or bound."""

    def __init__(self, number: str, words: str) -> None:
        super().__init__(f"{number}: {words}")
        self.number = number


@dataclass(frozen=True, slots=True)
class Moment:
    """What was offered from `at` on."""

    at: float
    pools: dict[str, Pool]
    reservations: tuple[Reservation, ...]


@dataclass(slots=True)
class Claim:
    """The write that last made an address somebody's. `is_stray`: it took effect when its caller had given up."""

    record: Record
    process: Process | None
    at: float
    is_stray: bool
    is_answered: bool = False


@dataclass(slots=True)
class Listing:
    """A live list of records: when it was made, by whom, and what could be had then."""

    process: Process
    at: float
    records: dict[Address, Record]


@dataclass(slots=True)
class Adding:
    process: Process
    began: float
    faults: int
    claims: list[Claim] = field(default_factory=list)


@dataclass
class Judge:
    world: World
    records: dict[Address, Record] = field(default_factory=dict)
    claims: dict[Address, Claim] = field(default_factory=dict)
    # By pod UID, interface and family: what the runtime was told.
    told: dict[tuple[str, str, Version], Address] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    slots: dict[tuple[str, str], list[tuple[float, range]]] = field(default_factory=dict)
    failure: Violation | None = None
    # By pod UID: its ADD under way.
    adding: dict[str, list[Adding]] = field(default_factory=lambda: defaultdict(list))
    # Requests of each process that the weather has struck.
    faults: dict[Process, int] = field(default_factory=lambda: defaultdict(int))
    lists: list[Listing] = field(default_factory=list)
    touched: dict[Process, list[tuple[float, str]]] = field(default_factory=lambda: defaultdict(list))
    suspected: set[str] = field(default_factory=set)
    gone_at: dict[str, float] = field(default_factory=dict)
    written_at: dict[Address, float] = field(default_factory=dict)
    answers: int = 0

    def hold(self, number: str, holds: object, words: Callable[[], str]) -> None:
        if not holds:
            violation = Violation(number, words())
            self.world.story.tell("VIOLATION %s", violation)
            self.failure = self.failure or violation
            self.world.stop()

    # -- the store

    def committed(self, event: Event) -> None:
        delivery = self.world.network.at_work
        match event.key.collection:
            case "spiderpool.spidernet.io/spideripaddresses":
                self._record_written(event, delivery)
            case "spiderpool.spidernet.io/spiderippools":
                if event.kind != "MODIFIED" or _edition(event.old) != _edition(event.new):
                    self._offer_changed()
            case "spiderpool.spidernet.io/spiderreservedips":
                self._offer_changed()
            case "/pods":
                self._pod_written(event)
            case "apps/statefulsets":
                self._set_written(event)

    def _record_written(self, event: Event, delivery: Delivery | None) -> None:
        new = None if event.kind == "DELETED" else decode_record(event.new)
        address = (new or decode_record(event.new)).address
        old = self.records.get(address)
        who = delivery.process.name if delivery else "somebody"
        self.world.story.tell("%s: %s %s -> %s", who, address, _short(old), _short(new))
        self.written_at[address] = self.now
        if new is None:
            del self.records[address]
        else:
            self.records[address] = new
        if old is not None:
            self._nobody_loses_it(old, new, who)
            if new is not None and new.state is State.COOLING and old.slot is not None:
                self._slot_was_unwanted(old.slot, old, who)
        if new is not None and new.state is State.HELD and (old is None or old.state is State.COOLING):
            self._claimed(old, new, delivery)
        if new is not None and new.state is State.HELD:
            self._one_of_each_family(new)

    def _claimed(self, old: Record | None, new: Record, delivery: Delivery | None) -> None:
        process = delivery.process if delivery else None
        is_stray = delivery is not None and delivery.is_stray
        claim = self.claims[new.address] = Claim(new, process, self.now, is_stray)
        for adding in self.adding[new.holder.pod_uid] if new.holder else ():
            if adding.process is process:
                adding.claims.append(claim)
        if old is not None and process is not None and not self.world.has_wrong_clocks:
            self._was_not_cut_short(old, new, process)

    def _nobody_loses_it(self, old: Record, new: Record | None, who: str) -> None:
        """I5, and I1 where it goes on to somebody else: who uses an address and lives keeps it."""
        for party in old.parties if old.state in (State.HELD, State.RETAINED) else ():
            if (
                new is not None
                and new.state is State.HELD
                and any((each.pod_uid, each.interface) == (party.pod_uid, party.interface) for each in new.parties)
            ):
                continue
            key = party.pod_uid, party.interface, version_of(old.address)
            if self.told.get(key) != old.address or not self._is_protected(party.pod_uid, old.address):
                continue
            self.hold(
                "I5" if new is None or new.state is not State.HELD else "I1",
                False,
                lambda: f"{who} took {old.address} from {party.namespace}/{party.pod} ({party.pod_uid}), which lives",  # noqa: B023
            )

    def _is_protected(self, uid: str, address: Address) -> bool:
        """Whether the pod lives by the API server's word, or its containers use the address while it winds up."""
        pod = self.world.pod_of(uid)
        if pod is not None and pod.alive:
            return True
        for sandbox in self._users(address):
            if sandbox.uid == uid and self._is_entitled(sandbox):
                return True
        return False

    def _users(self, address: Address) -> Iterable[Sandbox]:
        for kubelet in self.world.kubelets.values():
            for sandbox in kubelet.sandboxes:
                if sandbox.is_running and address in sandbox.addresses.values():
                    yield sandbox

    def _is_entitled(self, sandbox: Sandbox) -> bool:
        """Whether the running sandbox may count on its addresses: its pod lives or winds up within its grace; or it
        is a static pod, whose mirror may be missing for a moment, on a node that works.
        """
        kubelet = self.world.kubelets[sandbox.node]
        if sandbox.is_mirrored:
            return not kubelet.is_cut_off and kubelet.manifests.get(sandbox.pod) == sandbox.asked
        pod = self.world.pod_of(sandbox.uid)
        if pod is None or pod.is_over:
            return False
        return pod.deleted_at is None or (pod.deleted_at - NOON).total_seconds() > self.now

    def _slot_was_unwanted(self, slot: Slot, old: Record, who: str) -> None:
        """I8: nobody gives up the address of a slot that its workload still counts."""
        if old.holder is not None and slot.kind == "StatefulSet" and slot.name != "gone":
            history = self.slots.get((slot.namespace, slot.name), [])
            unwanted = not history
            for number, (_, wanted) in enumerate(history):
                until = history[number + 1][0] if number + 1 < len(history) else self.now
                if slot.ordinal not in wanted and until >= self.now - VERDICT_S:
                    unwanted = True
            doubles = any(
                each.slot == slot and each.state in (State.HELD, State.RETAINED) for each in self.records.values()
            )
            self.hold("I8", unwanted or doubles, lambda: f"{who} gave up {old.address} of {slot}, which is wanted")

    def _one_of_each_family(self, new: Record) -> None:
        """I4, but for what took effect when its caller had given up, and met an edit or the end of its agent."""
        holder = new.holder
        assert holder is not None
        for other in self.records.values():
            if other.address == new.address or other.state is not State.HELD or other.holder is None:
                continue
            same = (other.holder.pod_uid, other.holder.interface) == (holder.pod_uid, holder.interface)
            if same and version_of(other.address) == version_of(new.address):
                strays = [self.claims.get(new.address), self.claims.get(other.address)]
                if any(each is not None and each.is_stray and self._is_excused(each) for each in strays):
                    continue
                pod = self.world.pod_of(holder.pod_uid)
                self.hold(
                    "I4",
                    pod is None,
                    lambda: f"{holder.pod} ({holder.pod_uid}) has {new.address} and {other.address}",  # noqa: B023
                )

    def _is_excused(self, stray: Claim) -> bool:
        process = stray.process
        return process is None or process.is_dead or self.moments[-1].at > stray.at - 30.0

    def _was_not_cut_short(self, old: Record, new: Record, process: Process) -> None:
        """I9: before an address is taken that still cools, a list of this request has shown nothing else."""
        if old.until is None or (old.until - NOON).total_seconds() <= self.now or new.holder is None:
            return
        began = min((each.began for each in self.adding[new.holder.pod_uid]), default=self.now)
        offers = [
            moment.pools[new.pool].usable(reserved_of(moment.pools[new.pool].version, moment.reservations))
            for moment in self._moments_since(self.now - BEHIND_S)
            if new.pool in moment.pools
        ]
        for listing in self.lists:
            if listing.process is process and listing.at >= began:
                mine = {name for at, name in self.touched[process] if at >= listing.at - 12.0}
                busy = [
                    each.address
                    for each in listing.records.values()
                    if version_of(each.address) == version_of(new.address)
                    and not (each.state is State.COOLING and _seconds_left(each, listing.at) < 0)
                ]
                taken = IntervalSet.addresses(version_of(new.address), busy)
                free = [offer - taken for offer in offers]
                if not all(any(str(one) not in mine for one in _some(each)) for each in free):
                    return
        self.hold("I9", False, lambda: f"{process} took {new.address}, which cools, and had not seen {new.pool} full")

    # -- what is offered and wanted

    def _offer_changed(self) -> None:
        store = self.world.server.store
        pools = {key.name: decode_pool(obj) for key, obj in store.items(POOLS)}
        reservations = tuple(decode_reservation(obj) for _, obj in store.items(RESERVATIONS))
        self.moments.append(Moment(self.now, pools, reservations))

    def _moments_since(self, at: float) -> Sequence[Moment]:
        first = 0
        for number, moment in enumerate(self.moments):
            if moment.at <= at:
                first = number
        return self.moments[first:]

    def _set_written(self, event: Event) -> None:
        meta, spec = event.new["metadata"], event.new.get("spec") or {}
        is_going = event.kind == "DELETED" or meta.get("deletionTimestamp")
        wanted = range(0) if is_going else range(int(spec.get("replicas", 1)))
        history = self.slots.setdefault((meta["namespace"], meta["name"]), [(-1.0, range(0))])
        history.append((self.now, wanted))

    def _pod_written(self, event: Event) -> None:
        new = event.new
        phase = (new.get("status") or {}).get("phase")
        is_over = event.kind == "DELETED" or phase in ("Succeeded", "Failed")
        uid = new["metadata"]["uid"]
        if is_over and uid not in self.gone_at:
            self.gone_at[uid] = self.now
            if not self.world.is_stormy:
                self._will_be_suspected(uid)

    def _will_be_suspected(self, uid: str) -> None:
        """In fair weather the leader sees the end of a pod within a second."""
        mine = [each for each in self.records.values() if each.state is State.HELD and each.holder is not None]
        due = [each for each in mine if each.holder is not None and each.holder.pod_uid == uid]
        settled = [each for each in due if self.now - self.claims[each.address].at > 0.5]

        def look() -> None:
            for record in settled:
                stands = self.records.get(record.address) == record and self.world.leads_since() < self.now - 2.0
                is_seen = str(record.address) in self.suspected
                self.hold("L2", is_seen or not stands, lambda: f"nobody suspects {_short(record)} of {record.address}")  # noqa: B023

        if settled:
            self.world.loop.call_later(1.0, look, context=self.world.process.context)

    # -- the network

    def sent(self, delivery: Delivery) -> None:
        request, process = delivery.request, delivery.process
        if not request.is_write or request.path.startswith(("/apis/events", "/apis/coordination")):
            return
        if process.name.startswith("controller"):
            leader = self.world.lease_holder()
            mine = self.world.controllers[process.name].election.identity
            self.hold("I12", leader == mine, lambda: f"{process} sends {request}, and {leader or 'nobody'} leads")
        if "/spideripaddresses" in request.path and request.method in ("PATCH", "PUT", "DELETE"):
            meta = request.body["preconditions"] if request.method == "DELETE" else request.body["metadata"]
            self.hold("I6", meta.get("uid") and meta.get("resourceVersion"), lambda: f"{process} sends {request}")

    def arrived(self, delivery: Delivery, fate: Fate) -> None:
        request, process = delivery.request, delivery.process
        if fate.kind:
            self.faults[process] += 1
        if "/spideripaddresses" in request.path and process.name.startswith("agent") and not request.is_watch:
            name = request.path.rpartition("/spideripaddresses")[2].strip("/")
            if request.method == "POST":
                name = request.body["metadata"]["name"]
            if name:
                self.touched[process].append((self.now, name))
            elif fate.takes_effect:
                self.lists.append(Listing(process, self.now, dict(self.records)))

    # -- calls of the runtimes

    async def watched_add(self, work: Work, request: AddRequest, within_s: float) -> tuple[Assigned, ...]:
        """The agent's answer, looked at in the moment in which it is given."""
        process = PROCESS.get()
        pod = self.world.pod_named(request.namespace, request.pod)
        uid = pod.uid if pod is not None else request.pod_uid
        adding = Adding(process, self.now, self.faults[process])
        self.adding[uid].append(adding)
        try:
            given = await work.add(request, within_s=within_s)
        except errors.DeadlineExceeded:
            raise
        except errors.IpamError as refusal:
            self._refused(uid, adding, refusal)
            raise
        finally:
            self.adding[uid].remove(adding)
        self._answered(request, given, adding, process)
        return given

    async def watched_delete(self, work: Work, request: DelRequest, within_s: float) -> None:
        await work.delete(request, within_s=within_s)

    def _answered(self, request: AddRequest, given: Sequence[Assigned], adding: Adding, process: Process) -> None:
        self.answers += 1
        pod = self.world.pod_named(request.namespace, request.pod)
        if pod is None or not pod.answers_to(request.pod_uid) or not pod.alive:
            return  # it ended meanwhile: what it was told is nobody's any more
        self.world.story.tell("%s: ADD %s %s: %s", process, pod.name, request.interface.name, _told(given))
        wanted = request.interface.name
        self.hold("I3", any(each.interface == wanted for each in given), lambda: f"ADD of {pod.name} answers {given}")
        for each in given:
            record = self.records.get(each.address)
            holds = record is not None and record.is_of(pod.uid, each.interface)
            self.hold("I3", holds, lambda: f"{pod.name} ({pod.uid}) is told {each.address}, which is {_short(record)}")  # noqa: B023
            if record is None or record.holder is None:
                continue
            if each.interface == wanted:
                same = record.holder.container_id == request.interface.container_id
                self.hold("I3", same, lambda: f"{each.address} is of {record.holder}, not {request.interface}")  # noqa: B023
            before = self.told.setdefault((pod.uid, each.interface, each.version), each.address)
            self.hold("I4", before == each.address, lambda: f"{pod.name} had {before}, and is told {each.address}")  # noqa: B023
            self._is_confirmed(record, pod, process)
            self._slot_got_its_own(record, pod, adding)

    def _is_confirmed(self, record: Record, pod: Pod, process: Process) -> None:
        """I2 and I7: between the claim and its answer the pool offered the address to this pod."""
        claim = self.claims.get(record.address)
        if claim is None or claim.is_answered or claim.record.holder is None:
            return
        claim.is_answered = True
        # Claimed by an agent that died, or taken over from the slot's predecessor.
        if claim.process is not process or claim.record.holder.pod_uid != pod.uid:
            return
        moments = self._moments_since(claim.at)
        offered = any(_offers(moment.pools.get(record.pool), record.address, pod) for moment in moments)
        version = version_of(record.address)
        reserved = all(record.address in reserved_of(version, moment.reservations) for moment in moments)
        self.hold("I2", offered, lambda: f"{pod.name} is told {record.address}, which {record.pool} does not offer it")
        self.hold("I2", not reserved, lambda: f"{pod.name} is told {record.address}, which is reserved")

    def _slot_got_its_own(self, record: Record, pod: Pod, adding: Adding) -> None:
        """I8: an address that waited for the slot all the time is not passed over for another one."""
        claim = self.claims.get(record.address)
        if pod.slot is None or claim is None or claim.at < adding.began or claim.process is not adding.process:
            return
        for other in self.records.values():
            waits = other.slot == pod.slot and other.state in (State.HELD, State.RETAINED) and other is not record
            if waits and version_of(other.address) == version_of(record.address):
                earlier = self.claims.get(other.address)
                is_older = earlier is not None and earlier.at < adding.began and not earlier.is_stray
                same = other.holder is not None and record.holder is not None
                if is_older and same and other.holder and record.holder:
                    passed = other.holder.interface == record.holder.interface
                    self.hold("I8", not passed, lambda: f"{pod.name} got {record.address}, {other.address} waited")  # noqa: B023

    def _refused(self, uid: str, adding: Adding, refusal: errors.IpamError) -> None:
        """I11, where nothing went wrong on the way."""
        self.world.story.tell("ADD of %s refused: %s", uid, refusal)
        if self.faults[adding.process] != adding.faults:
            return
        for claim in adding.claims:
            record = self.records.get(claim.record.address)
            left = record is not None and record.is_of(
                uid, claim.record.holder.interface if claim.record.holder else ""
            )
            self.hold("I11", not left or claim.is_answered, lambda: f"{refusal!r} left {_short(record)}")  # noqa: B023

    def configured(self, sandbox: Sandbox) -> None:
        """I1, by what really runs: nobody else who is entitled to it uses the address."""
        self.world.story.tell("%s uses %s", sandbox, ", ".join(map(str, sandbox.addresses.values())))
        for address in sandbox.addresses.values():
            for other in self._users(address):
                same = other.asked == sandbox.asked
                rights = self._is_entitled(other) or not self.world.kubelets[other.node].is_cut_off
                self.hold("I1", same or not rights, lambda: f"{sandbox} and {other} use {address}")  # noqa: B023

    def stopped(self, sandbox: Sandbox) -> None:
        self.world.story.tell("%s has ended", sandbox)

    @property
    def now(self) -> float:
        return self.world.loop.time()


def _edition(raw: Object | None) -> tuple[Any, ...]:
    meta = (raw or {"metadata": {}})["metadata"]
    return meta.get("uid"), meta.get("generation"), meta.get("deletionTimestamp")


def _offers(pool: Pool | None, address: Address, pod: Pod) -> bool:
    return (
        pool is not None
        and not pool.edition.terminating
        and not pool.disabled
        and (not pool.node_names or pod.node in pool.node_names)
        and address in pool.usable(IntervalSet(pool.version))
    )


def _seconds_left(record: Record, at: float) -> float:
    return 0.0 if record.until is None else (record.until - NOON).total_seconds() - at


def _some(free: IntervalSet) -> list[Address]:
    return [free.nth(number) for number in range(min(free.size, 32))]


def _short(record: Record | None) -> str:
    if record is None:
        return "free"
    holder = record.holder
    peer = f"+{record.peer.pod_uid}" if record.peer else ""
    who = f" {holder.pod}({holder.pod_uid}{peer})/{holder.interface} {holder.container_id}" if holder else ""
    return f"{record.state.value}{who}"


def _told(given: Iterable[Assigned]) -> str:
    return ", ".join(f"{each.interface} {each.address} of {each.pool}" for each in given)
