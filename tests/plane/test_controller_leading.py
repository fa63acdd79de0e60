"""Only the leader acts, and only while it is sure to lead."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import aiohttp
import pytest

from allocator.domain.reclaim import Rules
from allocator.kube.events import Recorder
from allocator.kube.ledger import KubeLedger
from allocator.kube.stores import KubeEndpoints
from controller.books import Books
from controller.receipts import Receipts
from controller.reclaim import Hands, Reclaim, ReclaimConfig
from controller.witness import Witness
from devcluster.waiting import until
from tests.plane.agents import make_node, make_pod
from tests.plane.controllers import (
    NOBODY,
    leader_of,
    make_pool,
    make_record,
    running_controller,
    state_of,
    until_state,
)
from tests.unit.fake_clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane

GRACE_S = 20.0


@pytest.fixture
async def pool(kube: KubeClient) -> str:
    await make_node(kube, "node-1")
    await make_pool(kube, "leading", "10.30.0.1-10.30.0.250")
    return "leading"


async def test_of_two_replicas_one_leads_and_the_other_takes_over_when_it_ends(
    kube: KubeClient, plane: Plane, namespace: str, pool: str, tmp_path: Path
) -> None:
    with running_controller(plane.kubeconfig, namespace, tmp_path, identity="two") as two:
        with running_controller(plane.kubeconfig, namespace, tmp_path, identity="one") as one:

            async def leader() -> str:
                return await leader_of(kube, namespace)

            first = await until(leader, within_s=20, what="a leader")
            await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)
            await until_state(kube, "10.30.0.1", "Cooling", "")
            acted, stood_by = (one, two) if first == "one" else (two, one)
            assert len(acted.lines("address_released")) == 1
            assert not stood_by.lines("leading")
        await two.logged("leading")
        await make_record(kube, "10.30.0.2", pool, namespace, "ghost", NOBODY)
        await until_state(kube, "10.30.0.2", "Cooling", "")


async def test_a_leader_that_was_paused_finds_its_verdict_void_when_it_resumes(
    kube: KubeClient, plane: Plane, namespace: str, pool: str, tmp_path: Path
) -> None:
    await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)
    slowly = ("--reclaim-grace", "2")
    with running_controller(plane.kubeconfig, namespace, tmp_path, *slowly, identity="one") as one:
        await one.logged("holder_suspected")
        one.pause()
        # The second one leads but frees nothing, so that the record stays as the first one saw it.
        with running_controller(
            plane.kubeconfig, namespace, tmp_path, identity="two", SPIDERPOOL_GC_IP_ENABLED="false"
        ) as two:
            await two.logged("leading")
            one.resume()
            await one.logged("leader_overdue")
            await make_record(
                kube, "10.30.0.2", pool, namespace, "ghost", NOBODY, state="Cooling", until="2020-01-01T00:00:00Z"
            )
            await until_state(kube, "10.30.0.2", "")
            assert await leader_of(kube, namespace) == "two"
            assert await state_of(kube, "10.30.0.1") == "Held"
        assert not one.lines("address_released")


async def test_the_probes_answer_on_the_originals_paths(
    kube: KubeClient, plane: Plane, namespace: str, pool: str, tmp_path: Path
) -> None:
    listen = ("--health-listen", "127.0.0.1:0")
    with running_controller(plane.kubeconfig, namespace, tmp_path, *listen) as running:
        host, port = (await running.logged("health_listening"))["addresses"][0]
        await running.logged("leading")
        async with aiohttp.ClientSession() as session:
            for probe in ("startup", "readiness", "liveness"):
                async with session.get(f"http://{host}:{port}/v1/runtime/{probe}") as answer:
                    assert answer.status == 200, await answer.text()


@asynccontextmanager
async def reclaiming(
    kube: KubeClient, clock: FakeClock, *, may_act: Callable[[], bool] = lambda: True, deaf_to_pods: bool = False
) -> AsyncIterator[Reclaim]:
    """The loop without its loop: each `turn` is the test's. `deaf_to_pods`: the pod cache lags without end."""
    books = Books(kube, clock=clock, static_pods=True)
    rng = random.Random(1)  # noqa: S311 - jitter
    hands = Hands(
        ledger=KubeLedger(kube, books.addresses, clock=clock, rng=rng),
        witness=Witness(kube, books.node_state, clock=clock, rng=rng, static_pods=True),
        endpoints=KubeEndpoints(kube, clock=clock, rng=rng),
        receipts=Receipts(Recorder(kube, component="test", clock=clock), namespace="default", lease="none"),
        may_act=may_act,
        clock=clock,
    )
    config = ReclaimConfig(
        grace_s=GRACE_S,
        sweep_interval_s=1,
        reuse_delay=timedelta(seconds=30),
        renew_deadline_s=10,
        rules=Rules(),
    )
    reclaim = Reclaim(books, hands, config)
    async with asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(cache.run()) for name, cache in books.caches.items()}
        await books.wait_synced()
        if deaf_to_pods:
            tasks["pods"].cancel()
        yield reclaim
        for task in tasks.values():
            task.cancel()


async def two_sightings(reclaim: Reclaim, clock: FakeClock) -> None:
    await reclaim.turn()
    clock.advance(GRACE_S)
    await reclaim.turn()


async def test_two_sightings_free_and_one_does_not(kube: KubeClient, namespace: str, pool: str) -> None:
    await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)
    clock = FakeClock()
    async with reclaiming(kube, clock) as reclaim:
        await reclaim.turn()
        clock.advance(GRACE_S - 0.1)
        await reclaim.turn()
        assert await state_of(kube, "10.30.0.1") == "Held"
        clock.advance(0.1)
        await reclaim.turn()
        assert await state_of(kube, "10.30.0.1") == "Cooling"


async def test_who_is_not_sure_to_lead_frees_nothing(kube: KubeClient, namespace: str, pool: str) -> None:
    await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)
    clock = FakeClock()
    async with reclaiming(kube, clock, may_act=lambda: False) as reclaim:
        await two_sightings(reclaim, clock)
        assert await state_of(kube, "10.30.0.1") == "Held"


async def test_time_that_passes_between_the_reads_and_the_write_voids_the_verdict(
    kube: KubeClient, namespace: str, pool: str
) -> None:
    await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)
    clock = FakeClock()

    def paused_here() -> bool:
        clock.advance(11)
        return True

    async with reclaiming(kube, clock, may_act=paused_here) as reclaim:
        await two_sightings(reclaim, clock)
        assert await state_of(kube, "10.30.0.1") == "Held"


async def test_a_living_pod_that_the_cache_does_not_show_is_seen_by_the_live_read(
    kube: KubeClient, namespace: str, pool: str
) -> None:
    clock = FakeClock()
    async with reclaiming(kube, clock, deaf_to_pods=True) as reclaim:
        pod = await make_pod(kube, namespace, "cart", "node-1")
        await make_record(kube, "10.30.0.1", pool, namespace, "cart", pod["metadata"]["uid"])
        await make_record(kube, "10.30.0.2", pool, namespace, "ghost", NOBODY)

        async def freed() -> bool:
            await two_sightings(reclaim, clock)
            return await state_of(kube, "10.30.0.2") == "Cooling"

        await until(freed, within_s=20, what="the ghost's address to be freed")
        assert await state_of(kube, "10.30.0.1") == "Held"
