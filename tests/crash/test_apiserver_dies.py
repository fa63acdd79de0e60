"""An API server that is killed while pods start and end, and comes back to what it had stored."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from allocator.kube.resources import SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS
from devcluster.waiting import until_true
from tests.crash import boundaries
from tests.crash.agent_scenes import asks_for
from tests.crash.armed import JOURNAL_LINES
from tests.crash.books import balanced
from tests.crash.conftest import small_stage
from tests.crash.stage import Stage, on_stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.kube.resources import Object
    from tests.crash.planes import Plane
    from tests.crash.stage import Cluster

NODES = ["n1", "n2"]
IS_REAL = os.environ.get("PLANE") == "envtest"
PARTS = ["kube-apiserver", "etcd"] if IS_REAL else ["kube-apiserver"]
# So many of 20 pods have started.
MOMENTS = [1, 10, 19]
# Of the embedded one, at which of the writes from then on.
DEATHS = [
    (point, times) for point in boundaries.failpoints("plane") for times in ((1, 7, 20) if "append-" in point else (1,))
]


@pytest.fixture(scope="module")
def stage(crash_plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with small_stage(crash_plane, tmp_path_factory.mktemp("stage"), NODES) as running:
        yield running


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("moment", MOMENTS)
async def test_the_books_balance_after_it_died_while_pods_started(stage: Stage, part: str, moment: int) -> None:
    async with on_stage(stage) as cluster, stage.supervised():
        annotation = asks_for(await cluster.pool(20))
        pods = [await cluster.pod(annotation, node=node) for node in NODES * 10]
        async with asyncio.TaskGroup() as group:
            for pod in pods:
                group.create_task(cluster.runtime.start(pod), name="pod")
            await until_true(lambda: len(cluster.runtime.told) >= moment, within_s=30, what="pods to start")
            await die(stage, part)
        books = await balanced(cluster.api, cluster.runtime.told)
        assert len(books.held) == len(pods)


@pytest.mark.parametrize("part", PARTS)
async def test_the_books_balance_after_it_died_while_pods_ended(stage: Stage, part: str) -> None:
    async with on_stage(stage) as cluster, stage.supervised():
        annotation = asks_for(await cluster.pool(20))
        pods = [await cluster.pod(annotation, node=node) for node in NODES * 10]
        for pod in pods:
            await cluster.runtime.start(pod)

        async def end(number: int) -> None:
            await cluster.end(pods[number])
            # Into what was just given back.
            await cluster.runtime.start(await cluster.pod(annotation, node=NODES[number % 2]))

        async with asyncio.TaskGroup() as group:
            for number in range(len(pods)):
                group.create_task(end(number), name=f"pod {number}")
            first = set(cluster.runtime.told)
            await until_true(lambda: len(set(cluster.runtime.told) - first) >= 5, within_s=30, what="pods to end")
            await die(stage, part)
        books = await balanced(cluster.api, cluster.runtime.told)
        assert len(books.held) == len(pods)


@pytest.mark.skipif(IS_REAL, reason="embedded only: nothing can be wrapped within a real kube-apiserver or etcd")
@pytest.mark.parametrize(("point", "times"), DEATHS)
async def test_the_books_balance_after_it_died_at_a_write(stage: Stage, point: str, times: int) -> None:
    async with on_stage(stage) as cluster, stage.supervised():
        pool = await cluster.pool(20)
        pods = [await cluster.pod(asks_for(pool), node=node) for node in NODES * 10]
        stage.plane.actor.arm(point, times)
        with stage.outage():
            async with asyncio.TaskGroup() as group:
                for pod in pods:
                    group.create_task(cluster.runtime.start(pod), name="pod")
                if "name-" in point:
                    group.create_task(label_often(cluster, pool), name="lines")
                try:
                    await stage.plane.died(point)
                finally:
                    await stage.plane.revive()
        books = await balanced(cluster.api, cluster.runtime.told)
        assert len(books.held) == len(pods)


async def test_what_it_had_stored_stands_at_the_version_it_had(stage: Stage) -> None:
    async with on_stage(stage) as cluster:
        pod = await cluster.pod(asks_for(await cluster.pool(1)))
        (address,) = await cluster.runtime.start(pod)
        before = await cluster.api.find(SPIDER_IP_ADDRESSES, address)
        await die(stage, "kube-apiserver")
        assert await cluster.api.find(SPIDER_IP_ADDRESSES, address) == before


async def label_often(cluster: Cluster, pool: Object) -> None:
    """As many lines as a journal has before it is begun anew."""
    for number in range(JOURNAL_LINES):
        await cluster.api.patch(SPIDER_IP_POOLS, pool, {"metadata": {"labels": {"number": str(number)}}})


async def die(stage: Stage, part: str) -> None:
    with stage.outage():
        await stage.plane.kill(part)
        await stage.plane.revive()
