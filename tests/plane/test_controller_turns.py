"""The leader's loops turn by turn, on a clock that the test moves, against an API server."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from allocator.domain.reclaim import MIRROR_ANNOTATION
from allocator.kube.resources import PODS, SPIDER_IP_POOLS
from controller.projection import Cadence, Projection
from controller.tidy import Cooled
from devcluster.waiting import until, until_true
from tests.plane.agents import make_node, make_pod
from tests.plane.controllers import NOBODY, make_pool, make_record, state_of
from tests.plane.turns import GRACE_S, leading, reclaim, two_sightings
from tests.unit.fake_clock import FakeClock

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from controller.books import Books
    from controller.reclaim import Hands


@pytest.fixture
async def pool(kube: KubeClient) -> str:
    await make_node(kube, "node-1")
    await make_pool(kube, "turns", "10.30.0.1-10.30.0.250")
    return "turns"


async def test_two_sightings_free_and_one_does_not(kube: KubeClient, namespace: str, pool: str) -> None:
    await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)
    clock = FakeClock()
    async with leading(kube, clock, reclaim) as loop:
        await loop.turn()
        clock.advance(GRACE_S - 0.1)
        await loop.turn()
        assert await state_of(kube, "10.30.0.1") == "Held"
        clock.advance(0.1)
        await loop.turn()
        assert await state_of(kube, "10.30.0.1") == "Cooling"


async def test_a_mirror_that_comes_back_between_two_sightings_clears_the_suspicion_of_its_pod(
    kube: KubeClient, namespace: str, pool: str
) -> None:
    await make_record(kube, "10.30.0.1", pool, namespace, "kube-proxy-node-1", NOBODY)
    clock = FakeClock()
    async with leading(kube, clock, reclaim) as loop:
        await loop.turn()
        assert loop.candidates == 1
        meta = {"name": "kube-proxy-node-1", "namespace": namespace, "annotations": {MIRROR_ANNOTATION: "hash"}}
        spec = {"nodeName": "node-1", "containers": [{"name": "main", "image": "none"}]}
        await kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        await until_true(lambda: loop.candidates == 0, within_s=10, what="the watch to clear the suspicion")


async def test_who_is_not_sure_to_lead_frees_nothing(kube: KubeClient, namespace: str, pool: str) -> None:
    await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)
    clock = FakeClock()
    async with leading(kube, clock, reclaim, may_act=lambda: False) as loop:
        await two_sightings(loop, clock)
        assert await state_of(kube, "10.30.0.1") == "Held"


async def test_a_leak_grows_older_however_often_its_release_has_to_be_begun_anew(
    kube: KubeClient, namespace: str, pool: str
) -> None:
    await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)
    clock = FakeClock()
    async with leading(kube, clock, reclaim, may_act=lambda: False) as loop:
        await two_sightings(loop, clock)
        await two_sightings(loop, clock)
        assert loop.leaks() == [2 * GRACE_S]
    async with leading(kube, clock, reclaim) as loop:
        await two_sightings(loop, clock)
        assert loop.leaks() == []


async def test_time_that_passes_between_the_reads_and_the_write_voids_the_verdict(
    kube: KubeClient, namespace: str, pool: str
) -> None:
    await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)
    clock = FakeClock()

    def paused_here() -> bool:
        clock.advance(11)
        return True

    async with leading(kube, clock, reclaim, may_act=paused_here) as loop:
        await two_sightings(loop, clock)
        assert await state_of(kube, "10.30.0.1") == "Held"


async def test_a_living_pod_that_the_cache_does_not_show_is_seen_by_the_live_read(
    kube: KubeClient, namespace: str, pool: str
) -> None:
    clock = FakeClock()
    async with leading(kube, clock, reclaim, deaf_to="pods") as loop:
        pod = await make_pod(kube, namespace, "cart", "node-1")
        await make_record(kube, "10.30.0.1", pool, namespace, "cart", pod["metadata"]["uid"])
        await make_record(kube, "10.30.0.2", pool, namespace, "ghost", NOBODY)

        async def freed() -> bool:
            await two_sightings(loop, clock)
            return await state_of(kube, "10.30.0.2") == "Cooling"

        await until(freed, within_s=20, what="the ghost's address to be freed")
        assert await state_of(kube, "10.30.0.1") == "Held"


async def test_the_brake_lets_go_what_a_sweep_half_a_minute_later_confirms(
    kube: KubeClient, namespace: str, pool: str
) -> None:
    texts = [f"10.30.0.{number}" for number in range(1, 52)]
    for text in texts:
        await make_record(kube, text, pool, namespace, "ghost", NOBODY)
    clock = FakeClock()
    async with leading(kube, clock, reclaim) as loop:
        await two_sightings(loop, clock)
        assert {await state_of(kube, text) for text in texts} == {"Held"}
        clock.advance(10)
        await loop.turn()
        assert {await state_of(kube, text) for text in texts} == {"Cooling"}


async def test_a_cooling_time_from_a_wrong_clock_ends_when_the_longest_one_would(
    kube: KubeClient, namespace: str, pool: str
) -> None:
    never = "2099-01-01T00:00:00Z"
    await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY, state="Cooling", until=never)
    clock = FakeClock()

    def cooled(books: Books, hands: Hands) -> Cooled:
        return Cooled(books, hands, reuse_delay=timedelta(seconds=5))

    async with leading(kube, clock, cooled) as loop:
        clock.advance(600.9)
        await loop.turn()
        assert await state_of(kube, "10.30.0.1") == "Cooling"
        clock.advance(0.1)
        await loop.turn()
        assert await state_of(kube, "10.30.0.1") == ""


async def test_counts_go_out_after_a_quiet_time_and_then_at_a_bounded_rate(
    kube: KubeClient, namespace: str, pool: str
) -> None:
    clock = FakeClock()
    books: list[Books] = []

    def projection(those: Books, hands: Hands) -> Projection:
        books.append(those)
        return Projection(those, kube, may_act=hands.may_act, clock=clock, cadence=Cadence())

    async with leading(kube, clock, projection) as loop:

        async def claim(text: str) -> None:
            await make_record(kube, text, pool, namespace, "ghost", NOBODY)
            await until_true(lambda: books[0].record(text) is not None, within_s=10, what=f"the watch to show {text}")

        async def counted_after(seconds: float) -> int:
            clock.advance(seconds)
            await loop.turn()
            status = (await kube.get(SPIDER_IP_POOLS, pool))["status"]
            assert isinstance(status["allocatedIPCount"], int)
            return status["allocatedIPCount"]

        assert await counted_after(0) == 0
        clock.advance(60)
        await loop.turn()
        await claim("10.30.0.1")
        assert await counted_after(0.2) == 0
        assert await counted_after(0.1) == 1
        await claim("10.30.0.2")
        await claim("10.30.0.3")
        assert await counted_after(4.9) == 1
        assert await counted_after(0.2) == 3


async def test_a_claim_that_no_watch_has_shown_holds_up_the_end_of_its_pool(
    kube: KubeClient, namespace: str, pool: str
) -> None:
    clock = FakeClock()

    def projection(books: Books, hands: Hands) -> Projection:
        return Projection(books, kube, may_act=hands.may_act, clock=clock, cadence=Cadence())

    async with leading(kube, clock, projection, deaf_to="addresses") as loop:
        await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)
        await kube.delete(SPIDER_IP_POOLS, pool)

        async def told() -> bool:
            clock.advance(1)
            await loop.turn()
            found = await kube.get(SPIDER_IP_POOLS, pool)
            conditions = (found.get("status") or {}).get("conditions") or ()
            return any(each["reason"] == "Terminating" for each in conditions)

        await until(told, within_s=20, what="the pool to be shown as terminating")
