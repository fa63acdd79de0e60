"""Drift turn by turn, on a clock that the test moves, against an API server."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from allocator.domain.drift import FOLLOW
from allocator.kube.cache import Cache
from allocator.kube.resources import SPIDER_IP_POOLS, SPIDER_SUBNETS
from controller.drift import Drift
from controller.projection import Cadence, Projection
from tests.plane.controllers import make_pool, status_of
from tests.plane.turns import leading
from tests.plane.webhooks import subnet
from tests.unit.fake_clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from allocator.domain.conditions import Finding
    from allocator.kube.client import KubeClient
    from controller.books import Books
    from controller.reclaim import Hands

APART: Finding = (True, "DiffersFromSubnet", "SpiderSubnet dc1 has gateway 10.30.0.1")


@pytest.fixture
async def pool(kube: KubeClient) -> str:
    """One that follows the subnet dc1, and has another gateway."""
    await kube.create(SPIDER_SUBNETS, subnet("dc1", subnet="10.30.0.0/16", gateway="10.30.0.1"))
    await make_pool(kube, "a", "10.30.0.2-10.30.0.10", gateway="10.30.0.100")
    labels = {"ipam.spidernet.io/owner-spider-subnet": "dc1"}
    await kube.patch(SPIDER_IP_POOLS, "a", {"metadata": {"labels": labels, "annotations": {FOLLOW: "true"}}})
    return "a"


@asynccontextmanager
async def drifting(kube: KubeClient, *, leads: bool = True, deaf_to: str = "") -> AsyncIterator[Drift]:
    clock = FakeClock()
    subnets = Cache(kube, SPIDER_SUBNETS, clock=clock)

    def build(books: Books, _hands: Hands) -> Drift:
        return Drift(books, subnets, kube, may_act=lambda: leads, clock=clock)

    async with leading(kube, clock, build, deaf_to=deaf_to) as loop, asyncio.TaskGroup() as group:
        task = group.create_task(subnets.run())
        await subnets.wait_synced()
        yield loop
        task.cancel()


async def spec_of(kube: KubeClient, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = (await kube.get(SPIDER_IP_POOLS, name))["spec"]
    return spec


async def test_all_findings_are_told_once_and_then_only_when_one_is_another(kube: KubeClient, pool: str) -> None:
    told: list[Mapping[str, Finding]] = []
    async with drifting(kube) as loop:
        loop.on_drift.append(lambda found: told.append(dict(found)))
        await loop.turn()
        await loop.turn()
        await loop.turn()
        assert [found[pool][1] for found in told] == ["Following", "AsSubnet"]
        assert (await spec_of(kube, pool))["gateway"] == "10.30.0.1"


async def test_who_is_not_sure_to_lead_changes_no_pool(kube: KubeClient, pool: str) -> None:
    async with drifting(kube, leads=False) as loop:
        await loop.turn()
        assert (await spec_of(kube, pool))["gateway"] == "10.30.0.100"


async def test_a_pool_that_is_not_as_it_was_read_is_left_as_it_is(kube: KubeClient, pool: str) -> None:
    async with drifting(kube, deaf_to="pools") as loop:
        await kube.patch(SPIDER_IP_POOLS, pool, {"metadata": {"annotations": {FOLLOW: None}}})
        await loop.turn()
        assert (await spec_of(kube, pool))["gateway"] == "10.30.0.100"


async def test_a_pool_that_is_being_deleted_follows_nothing(kube: KubeClient, pool: str) -> None:
    await kube.delete(SPIDER_IP_POOLS, pool)
    async with drifting(kube) as loop:
        await loop.turn()
        assert (await spec_of(kube, pool))["gateway"] == "10.30.0.100"


async def test_a_finding_is_written_without_any_change_of_the_pool_and_stands_until_somebody_has_looked(
    kube: KubeClient, pool: str
) -> None:
    clock = FakeClock()

    def projection(books: Books, hands: Hands) -> Projection:
        return Projection(books, kube, may_act=hands.may_act, clock=clock, cadence=Cadence())

    async def said(loop: Projection) -> list[str]:
        # A second look answers the first one's own write; after that nothing moves by itself.
        for _ in range(2):
            clock.advance(60)
            await loop.turn()
        return [each["reason"] for each in (await status_of(kube, pool))["conditions"] if each["type"] == "SubnetDrift"]

    async with leading(kube, clock, projection) as loop:
        loop.on_drift({})
        assert await said(loop) == []
        loop.on_drift({pool: APART})
        assert await said(loop) == ["DiffersFromSubnet"]
    async with leading(kube, clock, projection) as successor:
        assert await said(successor) == ["DiffersFromSubnet"]
        successor.on_drift({})
        assert await said(successor) == []
