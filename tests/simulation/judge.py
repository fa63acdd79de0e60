"""The invariants of DESIGN.md, checked at every commit of the store, every answer and every request that is sent.

The judge sees what nobody inside can see: the store itself, what really runs on the nodes, and when things happened.
`calls.py` has what concerns the answers to ADD, `lent.py` what subnets lend, `calm.py` the bounds, `byhand.py` what is
forgiven after people took a record by hand.

What it does not see: I10 is judged at rest only, I9 no more once a clock has jumped, and of I13 only that a dry run
leaves nothing (there is no webhook that completes anything). I14 is not judged. I4 lets a double stand that took effect
too late, until all is calm; then it must be gone if the node reports one of the two. The bound of a leak is judged in
fair weather, and at rest with more patience. A pod in a slot that is deleted by force counts as ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from allocator.domain.addresses import version_of
from allocator.domain.reclaim import MIRROR_ANNOTATION
from allocator.domain.record import State
from allocator.kube.codec import decode_record
from tests.simulation.byhand import ByHand
from tests.simulation.calls import Calls
from tests.simulation.lent import Lent
from tests.simulation.loop import NOON
from tests.simulation.offers import ENDPOINTS, RECORDS, Offers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.domain.addresses import Address
    from allocator.domain.record import Holder, Record
    from devcluster.plane.store import Event
    from tests.simulation.calls import Claim
    from tests.simulation.faults import Fate
    from tests.simulation.kubelet import Sandbox
    from tests.simulation.network import Delivery
    from tests.simulation.world import World

# A verdict of reclaim is good for the renew deadline; a DEL reads the owner right before it writes.
VERDICT_S: Final = 15.0
# How soon the leader has seen a pod's end in fair weather.
SEEN_S: Final = 1.0
# A sweep, a grace period and a little. The brake never comes on: so many records there are not.
LEAK_S: Final = 45.0
# A stray claim may meet an edit of its pool that is older than itself.
EDITED_S: Final = 30.0


class Violation(AssertionError):
    """`number` is that of the invariant or bound."""

    def __init__(self, number: str, words: str) -> None:
        super().__init__(f"{number}: {words}")
        self.number = number


@dataclass
class Judge:
    world: World
    offers: Offers
    records: dict[Address, Record] = field(default_factory=dict)
    written_at: dict[Address, float] = field(default_factory=dict)
    # When the leader last took the holder of an address for gone, by the address' text.
    suspected: dict[str, float] = field(default_factory=dict)
    # UIDs of pods that people have deleted by force.
    forced: set[str] = field(default_factory=set)
    failure: Violation | None = None
    _ended: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.byhand = ByHand()
        self.calls = Calls(self)
        self.lent = Lent(self)

    @property
    def now(self) -> float:
        return self.world.loop.time()

    def hold(self, number: str, holds: object, words: str, *parts: object) -> None:
        """The run ends when it does not hold."""
        if not holds:
            violation = Violation(number, words % tuple(_short(part) for part in parts))
            self.world.story.tell("VIOLATION %s", violation)
            self.failure = self.failure or violation
            self.world.stop()

    # -- the store

    def committed(self, event: Event) -> None:
        at_work = self.world.network.at_work
        is_meant = at_work is None or at_work.request.is_write
        self.hold("I13", is_meant, "%s is left of %s", event.key, at_work and at_work.request)
        self.offers.committed(event, self.now)
        self.lent.committed(event)
        if event.key.collection == RECORDS:
            self._record_written(event, at_work)
        elif event.key.collection == ENDPOINTS:
            current = (event.new.get("status") or {}).get("current") or {}
            self.world.story.tell("%s endpoint %s: %s", event.kind, event.key.name, current)
        elif event.key.collection == "/pods" and self.world.is_fair:
            self._pod_written(event)

    def _record_written(self, event: Event, delivery: Delivery | None) -> None:
        read = decode_record(event.new)
        new, old = None if event.kind == "DELETED" else read, self.records.get(read.address)
        who = delivery.process.name if delivery else "somebody"
        self.world.story.tell("%s writes %s: %s -> %s", who, read.address, _short(old), _short(new))
        self.written_at[read.address] = self.now
        if new is None:
            del self.records[read.address]
        else:
            self.records[read.address] = new
        if old is not None and self._is_late_undoing(old, delivery):
            with self.byhand.taking():
                self.byhand.written(old, new)
            return
        if old is not None and not self.byhand.is_at_work:
            self._nobody_loses_it(old, new, who)
            self._no_slot_loses_it(old, new, who)
        if new is not None and new.state is State.HELD:
            if old is None or old.state is State.COOLING:
                self.calls.claimed(old, new, delivery)
            self._one_of_each_family(new)
        self.byhand.written(old, new)

    def _is_late_undoing(self, old: Record, delivery: Delivery | None) -> bool:
        """A gap of the product, and known: an agent undoes a claim, gives up, and answers the ADD of another
        interface with this record before its DELETE takes effect. What follows is as if people had done it.
        """
        if delivery is None or not delivery.is_stray or delivery.request.method != "DELETE" or old.holder is None:
            return False
        key = old.holder.pod_uid, old.holder.interface, version_of(old.address)
        return self.calls.told.get(key) == old.address and delivery.sent_at < self.calls.told_at[key]

    def _nobody_loses_it(self, old: Record, new: Record | None, who: str) -> None:
        """I5, and I1 where it goes on to somebody else: who uses an address and lives keeps it."""
        kept = new.parties if new is not None and new.state is State.HELD else ()
        for party in old.parties if old.state in (State.HELD, State.RETAINED) else ():
            if any((each.pod_uid, each.interface) == (party.pod_uid, party.interface) for each in kept):
                continue
            key = party.pod_uid, party.interface, version_of(old.address)
            if self.calls.told.get(key) == old.address and self._is_protected(party.pod_uid, old.address):
                # The leader takes back what it has made again, when the pod's own ADD was faster.
                # An agent undoes the claim that it has made since, and that nobody was told of.
                claim = self.calls.claims.get(old.address)
                is_undone = claim is not None and not claim.is_answered and str(claim.process) == who
                is_forgiven = self.byhand.was_taken(*key) and (is_undone or self._has_another(old, party))
                number, whose = "I1" if kept else "I5", f"{party.namespace}/{party.pod}"
                self.hold(
                    number, is_forgiven, "%s took %s from %s (%s), which lives", who, old.address, whose, party.pod_uid
                )

    def _has_another(self, record: Record, party: Holder) -> bool:
        version = version_of(record.address)
        mine = [each for each in self.records.values() if each.is_of(party.pod_uid, party.interface)]
        return any(each.address != record.address and version_of(each.address) == version for each in mine)

    def _no_slot_loses_it(self, old: Record, new: Record | None, who: str) -> None:
        """I8: nobody gives up the address of a slot that its workload still counts, but for a double."""
        slot = old.slot
        if slot is None or new is None or new.state is not State.COOLING or old.state is State.COOLING:
            return
        doubles = [each for each in self.records.values() if each.slot == slot and each.state is not State.COOLING]
        is_wanted = self.offers.is_wanted(slot, since=self.now - VERDICT_S)
        self.hold("I8", doubles or not is_wanted, "%s gave up %s of %s, which is wanted", who, old.address, slot)

    def _one_of_each_family(self, new: Record) -> None:
        """I4, but for what took effect when its caller had given up, and met an edit or the end of its agent."""
        holder = new.holder
        assert holder is not None
        for other in self.records.values():
            if other.address == new.address or not other.is_of(holder.pod_uid, holder.interface):
                continue
            if version_of(other.address) == version_of(new.address):
                claims = [self.calls.claims.get(new.address), self.calls.claims.get(other.address)]
                is_excused = any(each is not None and self._is_excused(each) for each in claims)
                is_gone = self.world.pod_of(holder.pod_uid) is None
                # Until `calm` is over the leader may still give one back.
                was_taken = self.byhand.was_taken(holder.pod_uid, holder.interface, version_of(new.address))
                self.hold(
                    "I4", is_excused or is_gone or was_taken, "%s has %s and %s", holder, new.address, other.address
                )

    def _is_excused(self, claim: Claim) -> bool:
        process = claim.process
        is_new_life = process is None or process.is_dead
        return claim.is_stray and (is_new_life or self.offers.moments[-1].at > claim.at - EDITED_S)

    def _pod_written(self, event: Event) -> None:
        """In fair weather the leader sees the end of a pod within a second, and frees its addresses in time."""
        uid, phase = event.new["metadata"]["uid"], (event.new.get("status") or {}).get("phase")
        if uid in self._ended or not (event.kind == "DELETED" or phase in ("Succeeded", "Failed")):
            return
        self._ended.add(uid)
        for record in self.records.values():
            holder, is_settled = record.holder, self.now - self.written_at[record.address] > SEEN_S / 2
            if record.state is State.HELD and holder is not None and holder.pod_uid == uid and is_settled:
                context = self.world.process.context
                self.world.loop.call_later(SEEN_S, self._is_suspected, record, context=context)
                # Each return of a mirror starts reclaim over.
                if MIRROR_ANNOTATION not in event.new["metadata"].get("annotations", {}):
                    self.world.loop.call_later(LEAK_S, self._is_freed, record, self.now, context=context)

    def _is_suspected(self, record: Record) -> None:
        stands = self.records.get(record.address) == record and self.world.leads_since < self.now - 2 * SEEN_S
        is_seen = str(record.address) in self.suspected
        self.hold("L2", is_seen or not stands, "nobody suspects %s: %s", record.address, record)

    def _is_freed(self, record: Record, ended: float) -> None:
        """The bound of a leak: what the pod held, it holds no more, if the same leader saw it all."""
        after = self.records.get(record.address)
        is_held = after is not None and after.state is State.HELD and after.holder == record.holder
        leaks = is_held and self.world.leads_since < ended
        self.hold("L2", not leaks, "%s has outlived its pod for %.0f s: %s", record.address, LEAK_S, record)

    # -- the network

    def sent(self, delivery: Delivery, fate: Fate) -> None:
        self.calls.sent(delivery, fate)
        request, process = delivery.request, delivery.process
        if not request.is_write or request.path.startswith(("/apis/events", "/apis/coordination")):
            return
        if process.name.startswith("controller"):
            leader, mine = self.world.lease_holder(), self.world.controllers[process.name].election.identity
            self.hold("I12", leader == mine, "%s sends %s, and %s leads", process, request, leader or "nobody")
        if "/spideripaddresses/" in request.path:
            said = request.body["preconditions"] if request.method == "DELETE" else request.body["metadata"]
            self.hold("I6", said.get("uid") and said.get("resourceVersion"), "%s sends %s", process, request)

    def arrived(self, delivery: Delivery, fate: Fate) -> None:
        self.calls.arrived(delivery, fate)
        request, process = delivery.request, delivery.process
        if not request.is_watch and (fate.kind or "/spider" in request.path):
            self.world.story.tell("%s sent at %.3f: %s %s", process, delivery.sent_at, request, fate.kind)

    # -- the nodes

    def configured(self, sandbox: Sandbox) -> None:
        """I1, by what really runs: nobody else who is entitled to it uses the address."""
        self.world.story.tell("%s uses %s", sandbox, ", ".join(map(str, sandbox.addresses.values())))
        for address in sandbox.addresses.values():
            for other in self._users(address):
                # Whoever deletes a pod by force, whose node is away, says that it does not run.
                has_rights = self._is_entitled(other) or self.world.kubelets[other.node].is_in_touch
                # Nor does the predecessor in a slot: its name, and with it the address, is free at once.
                is_named_alike = (other.namespace, other.pod) == (sandbox.namespace, sandbox.pod)
                has_rights = has_rights and not self.byhand.is_forgiven(other, address)
                has_rights = has_rights and not (is_named_alike and self.forced & {other.uid, sandbox.uid})
                self.hold("I1", other.asked == sandbox.asked or not has_rights, "%s: %s, %s", address, sandbox, other)

    def stopped(self, sandbox: Sandbox) -> None:
        self.world.story.tell("%s has ended", sandbox)

    def _is_protected(self, uid: str, address: Address) -> bool:
        """Whether the pod lives by the API server's word, or its containers use the address while it winds up."""
        pod = self.world.pod_of(uid)
        if pod is not None and pod.alive:
            return True
        return any(sandbox.uid == uid and self._is_entitled(sandbox) for sandbox in self._users(address))

    def _users(self, address: Address) -> Iterator[Sandbox]:
        return (each for each in self.world.running() if address in each.addresses.values())

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


def _short(part: object) -> object:
    """A record in few words; everything else as it is."""
    if part is None:
        return "free"
    if not hasattr(part, "parties"):
        return part
    holder, state = getattr(part, "holder", None), getattr(part, "state", "")
    who = f" {holder.pod}({holder.pod_uid})/{holder.interface} {holder.container_id}" if holder else ""
    return f"{state}{who}"
