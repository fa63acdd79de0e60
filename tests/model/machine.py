"""Agents on one ledger, and everything that can happen to them, as rules that Hypothesis plays in any order."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.order import Turns
from allocator.domain import errors
from allocator.domain.addresses import IntervalSet, version_of
from allocator.domain.pool import Edition, Reservation
from allocator.domain.record import State, released, retained
from allocator.domain.request import DelRequest, Pod
from allocator.service import Allocator
from allocator.world import World
from tests.model.cluster import (
    Agent,
    AgentEndpoints,
    AgentLedger,
    AgentPools,
    AgentReservations,
    AgentView,
    Cluster,
)
from tests.model.invariants import Asked, Judge, Violation, hold, is_free
from tests.model.scenery import (
    DISTURBANCES,
    EDITS,
    ITEMS,
    NAMES,
    NODES,
    WISHES,
    Sandbox,
    Wish,
    annotations_of,
    edited,
)
from tests.model.standstill import Call, Outcome, Stage
from tests.unit import values
from tests.unit.memory import MemoryUplinks

if TYPE_CHECKING:
    from allocator.domain.addresses import Address
    from allocator.domain.pool import Pool
    from allocator.domain.record import Record

# More than any call needs: one that has passed so many gates is going round in circles.
ENOUGH: Final = 200
# How many gates a call passes: all of them, a few, or up to the next write, before and after it takes effect.
BEFORE_A_WRITE: Final = -1
AFTER_A_WRITE: Final = -2
steps = st.sampled_from(
    [ENOUGH, ENOUGH, ENOUGH, BEFORE_A_WRITE, BEFORE_A_WRITE, AFTER_A_WRITE, AFTER_A_WRITE, 1, 2, 4, 6]
)

nodes = st.sampled_from(NODES)
wishes = st.integers(0, len(WISHES) - 1)
picks = st.integers(0, 99)


@dataclass(eq=False)
class Node:
    """The agent's process on a node: what of it ends with a crash."""

    agent: Agent
    allocator: Allocator
    turns: Turns = field(default_factory=Turns)


class Machine(RuleBasedStateMachine):
    """Every call runs as far as the rule says, and stands still there; the next rule may be about any of them."""

    # What a test takes away to see that somebody notices.
    ledger_port: ClassVar[type[AgentLedger]] = AgentLedger
    pools_port: ClassVar[type[AgentPools]] = AgentPools
    reservations_port: ClassVar[type[AgentReservations]] = AgentReservations
    endpoints_port: ClassVar[type[AgentEndpoints]] = AgentEndpoints
    view_port: ClassVar[type[AgentView]] = AgentView
    turns: ClassVar[type[Turns]] = Turns
    compares: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage()
        self.cluster = Cluster(self.stage)
        self.cluster.ledger.comparing = self.compares
        self.judge = Judge(self.cluster)
        self.calls: list[Call] = []
        self.sandboxes: list[Sandbox] = []
        self.verdicts: list[Record] = []
        self.failure: Violation | None = None
        self._numbers = 0
        for name, items in ITEMS.items():
            subnet = "fd00::/64" if name == "sigma" else "10.20.0.0/24"
            self.cluster.pools[name] = values.pool(name, items[0], subnet)
        self.nodes = {node: self._started(node) for node in NODES}
        self.cluster.mark()

    def _started(self, node: str) -> Node:
        agent = Agent(node, self.cluster)
        agent.catch_up()
        self.cluster.followers = [each for each in self.cluster.followers if each.node != node] + [agent]
        world = World(
            ledger=self.ledger_port(agent),
            pools=self.pools_port(agent),
            reservations=self.reservations_port(agent),
            endpoints=self.endpoints_port(agent),
            view=self.view_port(agent),
            uplinks=MemoryUplinks(),
            clock=self.stage,
            rng=random.Random(self._number()),  # noqa: S311 - the same choices in every run
        )
        return Node(agent, Allocator(world, node=node, versions=frozenset({4, 6})), self.turns())

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    # -- pods

    @initialize(arrivals=st.lists(st.tuples(picks, nodes, wishes), max_size=3))
    def start_with(self, arrivals: list[tuple[int, str, int]]) -> None:
        for pick, node, wish in arrivals:
            self.arrive(pick=pick, node=node, wish=wish, gates=ENOUGH)

    @precondition(lambda self: len(self.cluster.pods) < len(NAMES))
    @rule(pick=picks, node=nodes, wish=wishes, gates=steps)
    def arrive(self, pick: int, node: str, wish: int, gates: int) -> None:
        """A new pod is bound to a node, whose runtime asks for its first interface."""
        missing = [name for name in NAMES if ("shop", name) not in self.cluster.pods]
        self._create(missing[pick % len(missing)], node, WISHES[wish])
        self._ask(self.sandboxes[-1], other=False, gates=gates)

    @precondition(lambda self: self.cluster.pods)
    @rule(pick=picks, node=nodes, gates=steps)
    def replace_by_force(self, pick: int, node: str, gates: int) -> None:
        """A pod is deleted without waiting for its node, and made again under its name."""
        pod = self._pod(pick)
        wish = next(each.wish for each in self.sandboxes if each.pod.uid == pod.uid)
        del self.cluster.pods[pod.namespace, pod.name]
        self._create(pod.name, node, wish)
        self._ask(self.sandboxes[-1], other=False, gates=gates)

    @precondition(lambda self: self.cluster.pods)
    @rule(pick=picks, how=st.sampled_from(["terminating", "finished", "gone"]))
    def end(self, pick: int, how: str) -> None:
        pod = self._pod(pick)
        key = pod.namespace, pod.name
        if how == "gone":
            del self.cluster.pods[key]
        elif how == "finished":
            self.cluster.pods[key] = replace(pod, phase="Succeeded")
        else:
            self.cluster.pods[key] = replace(pod, deleted_at=self.stage.now())
        self.cluster.mark()

    def _create(self, name: str, node: str, wish: Wish) -> None:
        uid = f"{name}#{self._number()}"
        if name.startswith("web-"):
            made = values.stateful_pod(int(name[-1]), uid, node=node)
        else:
            made = values.pod(name, uid, node=node)
        pod = replace(made, annotations=annotations_of(wish))
        self.cluster.pods[pod.namespace, pod.name] = pod
        self.sandboxes.append(Sandbox(pod, wish))
        self.cluster.mark()

    def _pod(self, pick: int) -> Pod:
        pods = sorted(self.cluster.pods.values(), key=lambda pod: pod.name)
        return pods[pick % len(pods)]

    # -- calls of the runtimes

    @precondition(lambda self: self.sandboxes)
    @rule(pick=picks, other=st.booleans(), fresh=st.booleans(), gates=steps)
    def add(self, pick: int, *, other: bool, fresh: bool, gates: int) -> None:
        """ADD for one interface, in the sandbox that stands or in a new one; of a pod that may be gone by now."""
        sandbox = self.sandboxes[-1 - pick % min(len(self.sandboxes), 5)]
        sandbox.number += fresh
        self._ask(sandbox, other=other, gates=gates)

    def _ask(self, sandbox: Sandbox, *, other: bool, gates: int) -> None:
        interface = sorted(sandbox.wish)[other and len(sandbox.wish) > 1]
        asked = Asked(sandbox.request(interface), sandbox.pod, sandbox.wish)
        self._start(sandbox.pod, f"ADD {sandbox.pod.uid}/{interface}", lambda call: self._add(call, asked), gates)

    @precondition(lambda self: self.sandboxes)
    @rule(pick=picks, other=st.booleans(), older=st.booleans(), gates=steps)
    def delete(self, pick: int, *, other: bool, older: bool, gates: int) -> None:
        sandbox = self.sandboxes[-1 - pick % min(len(self.sandboxes), 5)]
        interface = sorted(sandbox.wish)[other and len(sandbox.wish) > 1]
        container = f"{sandbox.pod.uid}-{max(1, sandbox.number - older)}"
        request = DelRequest(
            namespace=sandbox.pod.namespace,
            pod=sandbox.pod.name,
            pod_uid=sandbox.pod.uid,
            interface=values.request(sandbox.pod, container, interface).interface,
        )
        self._start(sandbox.pod, f"DEL {sandbox.pod.uid}/{interface}", lambda call: self._delete(call, request), gates)

    def _start(self, pod: Pod, what: str, work: Any, gates: int) -> None:
        call = Call(self._number(), pod.node, what, self.cluster.tick, self.stage.elapsed, uid=pod.uid)
        self.judge.settled.discard(pod.uid)
        self.calls.append(call)
        self.stage.start(call, work(call))
        self._pass(call, gates, is_new=True)

    async def _add(self, call: Call, asked: Asked) -> None:
        node = self.nodes[call.node]
        try:
            async with node.turns.of(asked.pod.uid):
                call.began, call.began_at = self.cluster.tick, self.stage.elapsed
                given = await node.allocator.allocate(asked.request)
                self._judged(lambda: self.judge.answered(call, asked, given, alone=self._is_alone(call)))
        except errors.Exhausted as refusal:
            names = re.findall(r"(\w+): no free address", str(refusal))
            self._judged(lambda: self.judge.refused(call, names))
        except errors.IpamError:
            self._judged(lambda: self.judge.refused(call, ()))

    async def _delete(self, call: Call, request: DelRequest) -> None:
        node = self.nodes[call.node]
        try:
            async with node.turns.of(request.pod_uid):
                was_dead = not self.cluster.is_alive(request.pod_uid)
                await node.allocator.release(request)
                self._judged(lambda: self.judge.released(call, request, was_dead=was_dead))
        except errors.IpamError:
            return

    def _is_alone(self, call: Call) -> bool:
        return not any(each is not call and each.uid == call.uid for each in self._running())

    def _running(self) -> list[Call]:
        return [call for call in self.calls if call.task is not None and not call.task.done()]

    def _judged(self, judge: Any) -> None:
        """Inside a task a violation would be lost with the task: the next step raises it."""
        try:
            judge()
        except Violation as violation:
            self.failure = self.failure or violation

    # -- the order of things

    def _pass(self, call: Call, gates: int, *, is_new: bool = False) -> None:
        """Open the call's gates, one after the other; unless it is new, it has stood before the first one already."""
        for count in range(ENOUGH):
            shut = [gate for gate in self.stage.gates if gate.call is call]
            if not shut or count == gates or (gates == BEFORE_A_WRITE and (count or is_new) and shut[0].is_write):
                return
            was_write = shut[0].is_write
            self.stage.open(shut[0])
            self.check()
            if gates == AFTER_A_WRITE and was_write:
                return
        # With caches that are out of date it may have to wait for them.
        hold("L1", call.was_behind, f"{call.what} goes round in circles")

    @precondition(lambda self: self.stage.gates)
    @rule(pick=picks, gates=steps)
    def go_on(self, pick: int, gates: int) -> None:
        self._pass(self.stage.gates[pick % len(self.stage.gates)].call, gates)

    @precondition(lambda self: self.stage.gates)
    @rule(pick=picks, how=st.sampled_from(DISTURBANCES), gates=steps)
    def disturb(self, pick: int, how: str, gates: int) -> None:
        """A request or its answer is lost, a write hangs, the runtime hangs up, or the agent dies; the rest goes on."""
        gate = self.stage.gates[pick % len(self.stage.gates)]
        lands = how.endswith("lands")
        if how.startswith("cut off"):
            self.stage.cancel(gate.call, lands=lands)
        elif how.startswith("crash"):
            self._crash(gate.call.node, lands=lands)
        else:
            self.stage.open(gate, Outcome(how))
        self._pass(gate.call, gates)

    def _crash(self, node: str, *, lands: bool) -> None:
        for call in [call for call in self._running() if call.node == node]:
            call.was_killed = True
            self.stage.cancel(call, lands=lands, killed=True)
            # After an ADD without an answer a runtime makes a new sandbox.
            for sandbox in self.sandboxes:
                sandbox.number += sandbox.pod.uid == call.uid
        self.judge.orphaned(node)
        self.nodes[node] = self._started(node)

    @precondition(lambda self: self.stage.late)
    @rule(pick=picks)
    def land(self, pick: int) -> None:
        """A write takes effect whose caller has long given up."""
        gate = self.stage.late.pop(pick % len(self.stage.late))
        assert gate.effect is not None
        count = len(self.cluster.writes)
        try:
            self.stage.loop.run_until_complete(_effect(gate.effect))
        except errors.Conflict:
            return
        for written in self.cluster.writes[count:]:
            self.judge.landed(written, gate.call)

    @rule(node=nodes, behind=st.booleans(), seconds=st.sampled_from([0.0, 0.3, 1.5, 20.0, 31.0]))
    def pass_time(self, node: str, *, behind: bool, seconds: float) -> None:
        """The watches of a node get stuck where they are, or come up to date; time passes."""
        self.stage.elapsed += seconds
        self._watch(node, behind=behind)

    def _watch(self, node: str, *, behind: bool) -> None:
        agent = self.nodes[node].agent
        agent.is_behind = behind
        if not behind:
            agent.catch_up()

    # -- people

    @rule(name=st.sampled_from(sorted(ITEMS)), how=st.sampled_from(EDITS), pick=picks)
    def edit(self, name: str, how: str, pick: int) -> None:
        """Somebody edits a pool, deletes it or makes it anew, reserves addresses, or scales the StatefulSet."""
        pool = self.cluster.pools.get(name)
        if how == "scale":
            self.cluster.replicas = pick % 3
        elif how == "reserve":
            self._reserve(f"of {name}", pick)
        elif pool is None:
            subnet = "fd00::/64" if name == "sigma" else "10.20.0.0/24"
            edition = Edition(f"pool-{self._number()}", 1)
            made = values.pool(name, ITEMS[name][0], subnet, edition=edition, created=self.stage.now())
            self.cluster.pools[name] = made
        elif how == "delete":
            self._delete_pool(pool, forced=pick % 2 == 0)
        else:
            changed = edited(pool, how, pick, self._taken(name))
            edition = replace(changed.edition, generation=pool.edition.generation + 1)
            self.cluster.pools[name] = replace(changed, edition=edition)
        self.cluster.mark()

    def _delete_pool(self, pool: Pool, *, forced: bool) -> None:
        """First it terminates; it goes when nobody has an address of it, or somebody takes the finalizer off."""
        records = self.cluster.ledger.records.values()
        in_use = any(each.pool == pool.name and each.state is State.HELD for each in records)
        if forced or (pool.edition.terminating and not in_use):
            del self.cluster.pools[pool.name]
            if in_use:
                self.judge.lost_pools.add(pool.name)
        else:
            self.cluster.pools[pool.name] = replace(pool, edition=replace(pool.edition, terminating=True))

    def _reserve(self, name: str, pick: int) -> None:
        """An address that somebody has; or the reservation goes."""
        if self.cluster.ledger.records and pick % 3:
            address = self._record(pick).address
            edition = Edition(f"reservation-{self._number()}", 1)
            ips = IntervalSet.addresses(version_of(address), [address])
            self.cluster.reservations[name] = Reservation(name, edition, ips)
        else:
            self.cluster.reservations.pop(name, None)

    def _taken(self, pool: str) -> list[Address]:
        return sorted((each.address for each in self.cluster.ledger.records.values() if each.pool == pool), key=int)

    # -- the controller

    @precondition(lambda self: self.cluster.ledger.records)
    @rule(pick=picks, what=st.sampled_from(["judge", "judge", "carry out", "carry out", "tidy up", "quarantine"]))
    def control(self, pick: int, what: str) -> None:
        """The controller finds a holder gone and later writes it down, deletes what has cooled, or sees somebody else
        with an address.
        """
        record = self._record(pick)
        gone = record.holder is None or not self.cluster.is_alive(record.holder.pod_uid)
        if what == "judge" and gone and record.state in (State.HELD, State.RETAINED):
            self.verdicts.append(record)
        elif what == "carry out" and self.verdicts:
            self._carry_out(self.verdicts.pop(pick % len(self.verdicts)))
        elif what == "tidy up" and is_free(record, self.stage.elapsed):
            self._write(record, self.cluster.ledger.delete(record))
        elif what == "quarantine" and gone:
            self._write(record, self.cluster.ledger.replace(replace(record, state=State.QUARANTINED, until=None)))

    def _carry_out(self, record: Record) -> None:
        """The record may have changed since."""
        slot_stands = record.slot is not None and self.cluster.wants(record.slot)
        if record.state is State.HELD and slot_stands:
            self._write(record, self.cluster.ledger.replace(retained(record, self.stage.now())))
        elif not slot_stands:
            self._write(record, self.cluster.ledger.replace(released(record, self.stage.now())))

    def _record(self, pick: int) -> Record:
        records = sorted(
            self.cluster.ledger.records.values(), key=lambda each: (each.address.version, int(each.address))
        )
        return records[pick % len(records)]

    def _write(self, record: Record, write: Any) -> None:
        try:
            self.stage.loop.run_until_complete(self.cluster.write(None, record.address, write))
        except errors.Conflict:
            return

    # -- the verdict

    @invariant()
    def check(self) -> None:
        if self.failure is not None:
            raise self.failure
        for call in self.calls:
            if call.task is not None and call.task.done() and not call.task.cancelled() and call.task.exception():
                raise AssertionError(f"{call.what} failed") from call.task.exception()
        self.calls = self._running()
        self.judge.always()

    def teardown(self) -> None:
        try:
            if self.failure is None:
                self._play_to_the_end()
        finally:
            for call in self._running():
                self.stage.cancel(call, lands=False, killed=True)
            self.stage.loop.close()

    def _play_to_the_end(self) -> None:
        """Without further faults every call ends, and every pod gets its addresses or hears a true reason."""
        for node in NODES:
            self._watch(node, behind=False)
        for _ in range(20 * ENOUGH):
            if not self.stage.gates:
                break
            self.stage.open(self.stage.gates[0])
            self.check()
        waiting = [call.what for call in self._running()]
        hold("L1", not waiting, f"these calls never end: {waiting}")


async def _effect(effect: Any) -> object:
    return await effect()
