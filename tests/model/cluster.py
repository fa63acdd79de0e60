"""The cluster as it is, with its history; and as one agent sees it, through watches that may be behind."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from allocator.domain import errors
from allocator.domain.applications import application_of
from allocator.domain.candidates import Surroundings
from allocator.domain.record import State
from allocator.domain.request import Owner
from tests.model.standstill import CALL, Stage
from tests.unit.memory import MemoryLedger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from allocator.domain.addresses import Address, Version
    from allocator.domain.applications import Application
    from allocator.domain.endpoint import Endpoint
    from allocator.domain.pool import Edition, Pool, Reservation
    from allocator.domain.record import Entry, Holder, Record, Slot
    from allocator.domain.request import Pod
    from allocator.ports import News
    from tests.model.standstill import Call

T = TypeVar("T")
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Moment:
    """The cluster right after a change; `at` is when, by the clock."""

    tick: int
    at: float
    records: Mapping[Address, Record]
    pools: Mapping[str, Pool]
    reservations: Mapping[str, Reservation]
    pods: Mapping[Key, Pod]


@dataclass(frozen=True, slots=True)
class Listed:
    """A list of a pool's records: who asked, when the request set out, and what the API server saw. `under_way` are the
    addresses that the agent was after at that time, and `touched` is the length of the stage's list of that name.
    """

    node: str
    pool: str
    began: int
    seen: Moment
    under_way: frozenset[Address]
    touched: int


@dataclass(frozen=True, slots=True)
class Written:
    """One change of one record; `call` is None when the controller or the operator made it."""

    tick: int
    call: Call | None
    address: Address
    before: Record | None
    after: Record | None


class TrueLedger(MemoryLedger):
    """The memory ledger, whose calls take effect at once: the gates are elsewhere. `comparing` off forgets I6."""

    comparing = True

    async def _under_way(self) -> None:
        return

    def _compare(self, record: Record) -> None:
        if self.comparing:
            super()._compare(record)


class Cluster:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.ledger = TrueLedger()
        self.pools: dict[str, Pool] = {}
        self.reservations: dict[str, Reservation] = {}
        self.pods: dict[Key, Pod] = {}
        self.endpoints: dict[Key, Endpoint] = {}
        self.replicas = 2
        self.moments: list[Moment] = []
        self.lists: list[Listed] = []
        self.writes: list[Written] = []
        self.followers: list[Agent] = []
        self.mark()

    @property
    def tick(self) -> int:
        return self.moments[-1].tick

    def mark(self) -> Moment:
        """Remember the present, and tell it to every watch that is not behind."""
        tick = self.moments[-1].tick + 1 if self.moments else 0
        moment = Moment(
            tick=tick,
            at=self.stage.elapsed,
            records=dict(self.ledger.records),
            pools=dict(self.pools),
            reservations=dict(self.reservations),
            pods=dict(self.pods),
        )
        self.moments.append(moment)
        for agent in self.followers:
            if not agent.is_behind:
                agent.catch_up()
        return moment

    async def write(self, call: Call | None, address: Address, write: Awaitable[T]) -> T:
        """A write of the ledger takes effect, and goes down in history."""
        before = self.ledger.records.get(address)
        value = await write
        after = self.ledger.records.get(address)
        if after is not before:
            self.writes.append(Written(self.mark().tick, call, address, before, after))
            if call is not None and after is not None and is_claim(before, after):
                call.claims.append((address, self.tick))
        return value

    def since(self, tick: int) -> Sequence[Moment]:
        """The moments from the one that stood at `tick` until now."""
        return self.moments[tick:]

    def is_alive(self, uid: str) -> bool:
        return any(pod.uid == uid and pod.alive for pod in self.pods.values())

    def wants(self, slot: Slot) -> bool:
        return slot.ordinal < self.replicas


def is_claim(before: Record | None, after: Record) -> bool:
    return after.state is State.HELD and (before is None or before.state is State.COOLING)


@dataclass
class Agent:
    """What the agent of one node has in its caches. `is_behind`: its watches are stuck where they are."""

    node: str
    cluster: Cluster
    is_behind: bool = False
    pods: dict[Key, Pod] = field(default_factory=dict)
    pools: Mapping[str, Pool] = field(default_factory=dict)
    reservations: tuple[Reservation, ...] = ()
    # What the watch of this node's records has shown, and what is known with this agent's own writes.
    shown: Mapping[Address, Record] = field(default_factory=dict)
    index: dict[Address, Record] = field(default_factory=dict)

    def catch_up(self) -> None:
        truth = self.cluster
        self.pods = {key: pod for key, pod in truth.pods.items() if pod.node == self.node}
        self.pools = dict(truth.pools)
        self.reservations = tuple(truth.reservations.values())
        self.shown = {
            address: record
            for address, record in truth.ledger.records.items()
            if record.holder is not None and record.holder.node == self.node
        }
        self.index = dict(self.shown)

    def note(self, record: Record) -> None:
        """A write of this agent came back; what a watch already showed may be newer."""
        shown = self.index.get(record.address)
        live = self.cluster.ledger.records.get(record.address)
        if (shown is None and (self.is_behind or live == record)) or (
            shown is not None and int(shown.resource_version) < int(record.resource_version)
        ):
            self.index[record.address] = record

    def note_deleted(self, record: Record) -> None:
        shown = self.index.get(record.address)
        if shown is not None and shown.uid == record.uid:
            del self.index[record.address]


class AgentLedger:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._cluster = agent.cluster
        self._stage = agent.cluster.stage

    async def create(self, record: Record) -> Record | None:
        created = await self._write("create", record, lambda: self._cluster.ledger.create(record))
        if created is not None:
            self._agent.note(created)
        return created

    async def replace(self, record: Record) -> Record:
        written = await self._write("replace", record, lambda: self._cluster.ledger.replace(record))
        self._agent.note(written)
        return written

    async def delete(self, record: Record) -> None:
        await self._write("delete", record, lambda: self._cluster.ledger.delete(record))
        self._agent.note_deleted(record)

    async def read(self, address: Address) -> Record | None:
        known = self._agent.index.get(address)
        found = await self._stage.ask(f"read {address}", lambda: self._cluster.ledger.read(address), about=address)
        if found is None and known is not None:
            self._agent.note_deleted(known)
        return found

    async def in_pool(self, pool: str) -> Sequence[Entry]:
        began = self._cluster.tick

        async def effect() -> Sequence[Entry]:
            node, gates = self._agent.node, self._stage.gates
            under_way = frozenset(gate.about for gate in gates if gate.about is not None and gate.call.node == node)
            seen = self._cluster.mark()
            self._cluster.lists.append(Listed(node, pool, began, seen, under_way, len(self._stage.touched)))
            return await self._cluster.ledger.in_pool(pool)

        return await self._stage.ask(f"list {pool}", effect)

    async def everything(self) -> Sequence[Entry]:
        return await self._stage.ask("list everything", self._cluster.ledger.everything)

    async def of_slot(self, slot: Slot) -> Sequence[Record]:
        return await self._stage.ask(f"list of {slot.name}", lambda: self._cluster.ledger.of_slot(slot))

    def of_container(self, container_id: str) -> Sequence[Record]:
        return [each for each in self._index() if each.holder and each.holder.container_id == container_id]

    def own(self, pod_uid: str) -> Sequence[Record]:
        return [each for each in self._index() if each.holder and each.holder.pod_uid == pod_uid]

    def known(self) -> Sequence[Record]:
        return self._index()

    def _index(self) -> Sequence[Record]:
        if self._agent.is_behind:
            CALL.get().was_behind = True
        return list(self._agent.index.values())

    async def _write(self, verb: str, record: Record, effect: Callable[[], Awaitable[T]]) -> T:
        call = CALL.get()
        return await self._stage.write(
            f"{verb} {record.address}",
            lambda: self._cluster.write(call, record.address, effect()),
            about=record.address,
        )


class AgentPools:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._cluster = agent.cluster

    async def current(self) -> Mapping[str, Pool]:
        return self._agent.pools

    async def edition(self, name: str) -> Edition | None:
        async def effect() -> Edition | None:
            pool = self._cluster.pools.get(name)
            return None if pool is None else pool.edition

        return await self._cluster.stage.ask(f"read edition of {name}", effect)

    async def reread(self, name: str) -> None:
        async def effect() -> Pool | None:
            return self._cluster.pools.get(name)

        found = await self._cluster.stage.ask(f"read {name}", effect)
        others = {key: pool for key, pool in self._agent.pools.items() if key != name}
        self._agent.pools = others if found is None else {**others, name: found}

    def news_of(self, _application: Application) -> AbstractContextManager[News]:
        raise NotImplementedError  # nobody asks for subnets here

    async def has_subnet(self, _name: str) -> bool:
        raise NotImplementedError


class AgentReservations:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._cluster = agent.cluster

    def current(self) -> Sequence[Reservation]:
        return self._agent.reservations

    async def editions(self) -> frozenset[tuple[str, Edition]]:
        async def effect() -> frozenset[tuple[str, Edition]]:
            return frozenset((each.name, each.edition) for each in self._cluster.reservations.values())

        return await self._cluster.stage.ask("read editions of reservations", effect)

    async def reread(self) -> None:
        async def effect() -> tuple[Reservation, ...]:
            return tuple(self._cluster.reservations.values())

        self._agent.reservations = await self._cluster.stage.ask("read reservations", effect)


class AgentEndpoints:
    def __init__(self, agent: Agent) -> None:
        self._cluster = agent.cluster

    async def write(self, endpoint: Endpoint) -> None:
        await self._write(endpoint)

    async def _write(self, endpoint: Endpoint, *, whoever_has_it: bool = False) -> None:
        pod = endpoint.pod
        key = pod.namespace, pod.name

        async def effect() -> None:
            found, live = self._cluster.endpoints.get(key), self._cluster.pods.get(key)
            is_others = found is not None and found.pod.uid != pod.uid and (live is None or live.uid != pod.uid)
            if is_others and not whoever_has_it:
                raise errors.PodGone(f"pod {pod.name} is now another one")
            self._cluster.endpoints[key] = endpoint

        await self._cluster.stage.ask(f"write endpoint {pod.name}", effect)

    async def remove(self, namespace: str, name: str, pod_uid: str) -> None:
        async def effect() -> None:
            found = self._cluster.endpoints.get((namespace, name))
            if found is not None and found.pod.uid == pod_uid:
                del self._cluster.endpoints[namespace, name]

        await self._cluster.stage.ask(f"remove endpoint {name}", effect)

    async def addresses(self, namespace: str, name: str) -> Mapping[tuple[str, Version], Address]:
        async def effect() -> Mapping[tuple[str, Version], Address]:
            found = self._cluster.endpoints.get((namespace, name))
            return {(each.interface, each.version): each.address for each in found.assigned} if found else {}

        return await self._cluster.stage.ask(f"read endpoint {name}", effect)

    async def hand_over(self, namespace: str, name: str, pod_uid: str, heir: Holder) -> None:
        async def effect() -> None:
            found = self._cluster.endpoints.get((namespace, name))
            if found is not None and found.pod.uid == pod_uid:
                pod = replace(found.pod, name=heir.pod, uid=heir.pod_uid, node=heir.node)
                self._cluster.endpoints[namespace, name] = replace(found, pod=pod)

        await self._cluster.stage.ask(f"hand endpoint {name} over", effect)


class AgentView:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._cluster = agent.cluster

    def pod(self, namespace: str, name: str) -> Pod | None:
        return self._agent.pods.get((namespace, name))

    async def read_pod(self, namespace: str, name: str) -> Pod | None:
        async def effect() -> Pod | None:
            return self._cluster.pods.get((namespace, name))

        return await self._cluster.stage.ask(f"read pod {name}", effect)

    async def surroundings(self, pod: Pod) -> Surroundings:
        application = application_of(await self.owner(pod), pod.namespace)
        return Surroundings(application=application, namespace_labels={}, namespace_annotations={}, node_labels={})

    async def owner(self, pod: Pod) -> Owner:
        return pod.controller or Owner("v1", "Pod", pod.name, pod.uid)

    async def slot_is_wanted(self, slot: Slot) -> bool:
        async def effect() -> bool:
            return self._cluster.wants(slot)

        return await self._cluster.stage.ask(f"read set {slot.name}", effect)
