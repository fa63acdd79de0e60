"""A thousand pods on exactly a thousand addresses, while everybody who has a part in it is killed again and again."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from tests.crash import actors, boundaries
from tests.crash.agent_scenes import asks_for, plugin_of
from tests.crash.books import address, balanced
from tests.crash.conftest import running_stage
from tests.crash.fates import Fates
from tests.crash.stage import NAMESPACE, Stage, on_stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.kube.resources import Object
    from tests.crash.planes import Plane
    from tests.crash.runtime import Line
    from tests.crash.stage import Cluster

SEED: Final = 20_261_128
NODES: Final = [f"n{number}" for number in range(1, 6)]
PODS_IN_ALL: Final = 1000
WAVES: Final = 3
# Of a wave; those that end without DEL stay fewer than reclaim frees at once, a tenth, without a second thought.
CHANGED: Final = 200
# Pods that start or end at a time: what kubelets of five busy nodes do.
AT_ONCE: Final = 40
# So many ADDs and DELs go through the plugin, which costs a process each.
PLUGIN_SHARE: Final = 0.08
WEIGHTS: Final = {
    "agent killed": 4,
    "agent died at a boundary": 8,
    "controller killed": 2,
    "controller died at a boundary": 4,
    "webhook killed": 1,
    "plugin died at a boundary": 4,
    "API server killed": 2,
}


@pytest.fixture
def stage(crash_plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    with running_stage(crash_plane, folder, NODES) as running:
        for node in NODES:
            running.add(actors.agent(crash_plane.kubeconfig, node, folder))
        for identity in ("one", "two"):
            own = (*actors.QUICK_RECLAIM, "--log-level", "info")
            running.add(actors.controller(crash_plane.kubeconfig, NAMESPACE, folder, identity, *own))
        running.add(actors.webhook(crash_plane.kubeconfig, folder, "--namespace", NAMESPACE))
        asyncio.run(running.start())
        yield running


@dataclass(slots=True)
class Crowd:
    """A thousand seats, each with its pod; a wave gives some of them to new pods."""

    cluster: Cluster
    annotation: str
    rng: random.Random
    seats: dict[int, Object] = field(default_factory=dict)
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def fill(self) -> None:
        async with asyncio.TaskGroup() as group:
            for seat in range(PODS_IN_ALL):
                group.create_task(self._sit(seat, self._line(seat)), name=f"pod {seat}")

    async def wave(self) -> None:
        chosen = self.rng.sample(range(PODS_IN_ALL), CHANGED)
        fates = self.rng.choices(("ended", "forced", "lost"), (6, 2, 2), k=CHANGED)
        async with asyncio.TaskGroup() as group:
            for seat, fate in zip(chosen, fates, strict=True):
                group.create_task(self._change(seat, fate, self._line(seat)), name=f"pod {seat}")

    def _line(self, seat: int) -> Line | None:
        return plugin_of(self.cluster, node_of(seat)) if self.rng.random() < PLUGIN_SHARE else None

    async def _sit(self, seat: int, line: Line | None) -> None:
        async with self.places:
            self.seats[seat] = await self.cluster.pod(self.annotation, node=node_of(seat))
        # One that waits for an address keeps nobody from ending.
        await self.cluster.runtime.start(self.seats[seat], line=line, within_s=120)

    async def _change(self, seat: int, fate: str, line: Line | None) -> None:
        pod = self.seats[seat]
        async with self.places:
            match fate:
                case "ended":
                    await self.cluster.end(pod, line=line)
                case "forced":
                    if (told := await self.cluster.lose(pod)) is not None:
                        await self.cluster.runtime.release(told, line=line)
                case _:
                    await self.cluster.lose(pod)
        await self._sit(seat, line)


def node_of(seat: int) -> str:
    return NODES[seat % len(NODES)]


@pytest.mark.timeout(400)
async def test_a_thousand_pods_on_a_thousand_addresses_live_through_everybodys_death(stage: Stage) -> None:
    # One for each task, so that both go through the same numbers however they meet.
    rng, fate = random.Random(SEED), random.Random(SEED)  # noqa: S311
    async with on_stage(stage) as cluster, stage.supervised():
        cluster.runtime.retry_s = 0.5
        pool = await cluster.pool_of("10.60.0.0/16", "10.60.0.1-10.60.3.232")
        crowd = Crowd(cluster, asks_for(pool), rng)
        fates = Fates(stage, fate)
        async with asyncio.TaskGroup() as group:
            dealing = group.create_task(fates.run(WEIGHTS, pause_s=(0.3, 1.0)), name="fates")
            await crowd.fill()
            for _ in range(WAVES):
                await crowd.wave()
            dealing.cancel()
        books = await balanced(cluster.api, cluster.runtime.told, counts=True)
        assert len(cluster.runtime.told) == PODS_IN_ALL
        assert len({address(record) for record in books.held}) == PODS_IN_ALL == len(books.records)
        assert set(books.pods) == set(cluster.runtime.told)
        assert WEIGHTS.keys() <= fates.counts.keys()
        # Those that died at a boundary did, and not by another's hand.
        died = sum(bool(point) for _, point in stage.deaths)
        assert died >= sum(fates.counts[f"{process} died at a boundary"] for process in ("agent", "controller")) > 0
    passed = {point for actor in stage.actors.values() for point in actor.passed()}
    assert not boundaries.unknown(passed)
