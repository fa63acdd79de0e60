"""The service's ports in memory. `tests/plane/test_ledger.py` holds this ledger to the one on the API server.

`MemoryLedger.after_write` lets a test act the moment a write has been committed: change a pool, lose the answer.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from allocator.domain import errors
from allocator.domain.applications import application_of
from allocator.domain.candidates import Master
from allocator.domain.request import Owner
from allocator.kube.pool_news import PoolNews
from allocator.service import Allocator
from allocator.world import World
from tests.unit import values
from tests.unit.fake_clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from allocator.domain.addresses import Address, Version
    from allocator.domain.applications import Application
    from allocator.domain.candidates import Surroundings
    from allocator.domain.endpoint import Endpoint
    from allocator.domain.pool import Edition, Pool, Reservation
    from allocator.domain.record import Entry, Holder, Record, Slot
    from allocator.domain.request import Pod
    from allocator.ports import News


class MemoryLedger:
    def __init__(self) -> None:
        self.records: dict[Address, Record] = {}
        self.after_write: Callable[[Record], None] = lambda _record: None
        self.lists = 0
        self.lost_creates = 0
        self._version = 0

    async def create(self, record: Record) -> Record | None:
        await self._under_way()
        if record.address in self.records:
            self.lost_creates += 1
            return None
        return self._stored(replace(record, uid=f"uid-{self._version}"))

    async def replace(self, record: Record) -> Record:
        await self._under_way()
        self._compare(record)
        return self._stored(record)

    async def delete(self, record: Record) -> None:
        await self._under_way()
        if record.address in self.records:
            self._compare(record)
            del self.records[record.address]

    async def read(self, address: Address) -> Record | None:
        await self._under_way()
        return self.records.get(address)

    async def in_pool(self, pool: str) -> Sequence[Entry]:
        self.lists += 1
        await self._under_way()
        return [record.entry for record in self.records.values() if record.pool == pool]

    async def everything(self) -> Sequence[Entry]:
        await self._under_way()
        return [record.entry for record in self.records.values()]

    async def of_slot(self, slot: Slot) -> Sequence[Record]:
        return [record for record in self.records.values() if record.slot == slot]

    def of_container(self, container_id: str) -> Sequence[Record]:
        return [
            record
            for record in self.records.values()
            if record.holder is not None and record.holder.container_id == container_id
        ]

    def own(self, pod_uid: str) -> Sequence[Record]:
        return [
            record for record in self.records.values() if record.holder is not None and record.holder.pod_uid == pod_uid
        ]

    def known(self) -> Sequence[Record]:
        return list(self.records.values())

    async def _under_way(self) -> None:
        """Every call takes a turn of the loop, so that calls made at once do meet."""
        await asyncio.sleep(0)

    def _compare(self, record: Record) -> None:
        found = self.records.get(record.address)
        if found is None or (found.uid, found.resource_version) != (record.uid, record.resource_version):
            raise errors.Conflict(f"{record.address} changed")

    def _stored(self, record: Record) -> Record:
        self._version += 1
        stored = replace(record, resource_version=str(self._version))
        self.records[stored.address] = stored
        self.after_write(stored)
        return stored


class MemoryPools:
    """`live` is what the API server has, `seen` what the agent's watch has shown. `subnets` that there are."""

    def __init__(self) -> None:
        self.live: dict[str, Pool] = {}
        self.seen: dict[str, Pool] = {}
        self.subnets: set[str] = set()
        self.news = PoolNews()

    def put(self, *pools: Pool) -> None:
        self.live |= {pool.name: pool for pool in pools}
        self.seen = dict(self.live)
        for pool in pools:
            if pool.purpose is not None:
                self.news.tell_of(pool.purpose)

    async def current(self) -> Mapping[str, Pool]:
        return self.seen

    async def edition(self, name: str) -> Edition | None:
        return self.live[name].edition if name in self.live else None

    async def reread(self, name: str) -> None:
        self.seen = {key: pool for key, pool in {**self.seen, **self.live}.items() if key != name or key in self.live}

    def news_of(self, application: Application) -> AbstractContextManager[News]:
        return self.news.of(application)

    async def has_subnet(self, name: str) -> bool:
        return name in self.subnets


class MemoryReservations:
    def __init__(self) -> None:
        self.live: list[Reservation] = []
        self.seen: list[Reservation] = []

    def current(self) -> Sequence[Reservation]:
        return self.seen

    async def editions(self) -> frozenset[tuple[str, Edition]]:
        return frozenset((each.name, each.edition) for each in self.live)

    async def reread(self) -> None:
        self.seen = list(self.live)


class MemoryEndpoints:
    def __init__(self) -> None:
        self.written: dict[tuple[str, str], Endpoint] = {}

    async def write(self, endpoint: Endpoint) -> None:
        self.written[endpoint.pod.namespace, endpoint.name] = endpoint

    async def remove(self, namespace: str, name: str, pod_uid: str) -> None:
        found = self.written.get((namespace, name))
        if found is not None and found.pod.uid == pod_uid:
            del self.written[namespace, name]

    async def addresses(self, namespace: str, name: str) -> Mapping[tuple[str, Version], Address]:
        found = self.written.get((namespace, name))
        return {(each.interface, each.version): each.address for each in found.assigned} if found else {}

    async def hand_over(self, namespace: str, name: str, pod_uid: str, heir: Holder) -> None:
        found = self.written.get((namespace, name))
        if found is not None and found.pod.uid == pod_uid:
            pod = replace(found.pod, name=heir.pod, uid=heir.pod_uid, node=heir.node)
            self.written[namespace, name] = replace(found, pod=pod)


class MemoryView:
    """`live` is what the API server has, `seen` what the node's informer has shown."""

    def __init__(self) -> None:
        self.live: dict[tuple[str, str], Pod] = {}
        self.seen: dict[tuple[str, str], Pod] = {}
        self.wanted_slots: set[Slot] = set()
        self.around = values.NOWHERE

    def put(self, *pods: Pod) -> None:
        for pod in pods:
            self.live[pod.namespace, pod.name] = self.seen[pod.namespace, pod.name] = pod

    def pod(self, namespace: str, name: str) -> Pod | None:
        return self.seen.get((namespace, name))

    async def read_pod(self, namespace: str, name: str) -> Pod | None:
        return self.live.get((namespace, name))

    async def surroundings(self, pod: Pod) -> Surroundings:
        return replace(self.around, application=application_of(await self.owner(pod), pod.namespace))

    async def owner(self, pod: Pod) -> Owner:
        return pod.controller or Owner("v1", "Pod", pod.name, pod.uid)

    async def slot_is_wanted(self, slot: Slot) -> bool:
        return slot in self.wanted_slots


class MemoryUplinks:
    """`masters` by network namespace and interface."""

    def __init__(self) -> None:
        self.masters: dict[tuple[str, str], Master] = {}

    async def master_of(self, netns: str, interface: str) -> Master:
        return self.masters.get((netns, interface)) or Master((), f"{interface} in {netns} stands on nothing")


@dataclass
class MemoryWorld:
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    pools: MemoryPools = field(default_factory=MemoryPools)
    reservations: MemoryReservations = field(default_factory=MemoryReservations)
    endpoints: MemoryEndpoints = field(default_factory=MemoryEndpoints)
    view: MemoryView = field(default_factory=MemoryView)
    uplinks: MemoryUplinks = field(default_factory=MemoryUplinks)
    clock: FakeClock = field(default_factory=lambda: FakeClock(auto=True))

    def allocator(
        self, node: str = "n1", versions: frozenset[Version] = frozenset({4, 6}), max_per_pool: int | None = None
    ) -> Allocator:
        return Allocator(self.ports(), node=node, versions=versions, max_per_pool=max_per_pool)

    def ports(self) -> World:
        return World(
            ledger=self.ledger,
            pools=self.pools,
            reservations=self.reservations,
            endpoints=self.endpoints,
            view=self.view,
            uplinks=self.uplinks,
            clock=self.clock,
            rng=random.Random(7),  # noqa: S311 - the same choices in every run
        )
