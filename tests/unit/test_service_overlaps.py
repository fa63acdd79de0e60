"""Pools that overlap: what the later one still gives, what its pods keep, and what a refusal says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from allocator.domain import errors
from allocator.domain.record import State
from tests.unit import values
from tests.unit.memory import MemoryWorld
from tests.unit.test_service import arrives, ends, states

BEFORE = values.NOON - timedelta(hours=1)


@pytest.fixture
def world() -> MemoryWorld:
    made = MemoryWorld()
    made.pools.put(values.pool("later", "10.20.0.10-10.20.0.12"))
    return made


def begin_overlap(world: MemoryWorld, items: str = "10.20.0.10-10.20.0.11", subnet: str = "10.20.0.0/24") -> None:
    world.pools.put(values.pool("earlier", items, subnet, created=BEFORE))


async def fill(world: MemoryWorld, pool: str) -> tuple[list[str], str]:
    """The addresses that pods get of the pool, and why the first pod without one got none."""
    allocator = world.allocator()
    given: list[str] = []
    for number in range(20):
        pod = arrives(world, values.pod(f"{pool}-{number}", f"{pool}-{number}"), f'{{"ipv4": ["{pool}"]}}')
        try:
            (got,) = await allocator.allocate(values.request(pod))
        except errors.IpamError as refusal:
            return sorted(given), str(refusal)
        assert got.pool == pool
        given.append(str(got.address))
    raise AssertionError("the pool has no end")


async def test_each_pool_gives_its_own_and_a_refusal_says_who_has_the_rest(world: MemoryWorld) -> None:
    begin_overlap(world)
    given, refusal = await fill(world, "later")
    assert given == ["10.20.0.12"]
    told = "later: no free address, 1 usable (1 Held) (SpiderIPPool earlier, made earlier, has 2 more)"
    assert f"no free IPv4 address: {told}. Add addresses" in refusal
    given, refusal = await fill(world, "earlier")
    assert given == ["10.20.0.10", "10.20.0.11"]
    assert "earlier: no free address, 2 usable (2 Held). Add addresses" in refusal


async def test_a_pool_with_nothing_left_is_refused_with_the_name_of_the_pool_that_has_it(world: MemoryWorld) -> None:
    begin_overlap(world, "10.20.0.100", "10.20.0.0/16")
    given, refusal = await fill(world, "later")
    assert given == []
    assert "SpiderIPPool earlier, made earlier, has 10.20.0.10-10.20.0.12" in refusal


async def test_a_pod_keeps_its_address_when_an_earlier_pool_comes_to_offer_it(world: MemoryWorld) -> None:
    allocator = world.allocator()
    pod = arrives(world, values.pod(), '{"ipv4": ["later"]}')
    (given,) = await allocator.allocate(values.request(pod))
    for subnet in ("10.20.0.0/24", "10.20.0.0/16"):
        begin_overlap(world, "10.20.0.10-10.20.0.12", subnet)
        (again,) = await allocator.allocate(values.request(pod, container="c2"))
        assert again == given
    assert states(world) == {str(given.address): State.HELD}


async def test_a_slot_keeps_its_address_when_an_earlier_pool_comes_to_offer_it(world: MemoryWorld) -> None:
    allocator = world.allocator()
    world.view.wanted_slots.add(values.slot(0))
    first = arrives(world, values.stateful_pod(), '{"ipv4": ["later"]}')
    (given,) = await allocator.allocate(values.request(first))
    begin_overlap(world, "10.20.0.10-10.20.0.12")
    await allocator.release(ends(world, first))
    second = arrives(world, values.stateful_pod(uid="u2"), '{"ipv4": ["later"]}')
    (again,) = await allocator.allocate(values.request(second, container="c2"))
    assert again == given


async def test_what_was_held_in_the_overlap_goes_back_to_the_earlier_pool(world: MemoryWorld) -> None:
    allocator = world.allocator()
    pod = arrives(world, values.pod(), '{"ipv4": ["later"]}')
    (given,) = await allocator.allocate(values.request(pod))
    begin_overlap(world, str(given.address))
    await allocator.release(ends(world, pod))
    assert (await fill(world, "earlier"))[0] == [str(given.address)]


async def test_an_earlier_pool_that_goes_leaves_everything_to_the_later_one(world: MemoryWorld) -> None:
    begin_overlap(world)
    assert (await fill(world, "later"))[0] == ["10.20.0.12"]
    del world.pools.live["earlier"]
    world.pools.put()
    assert (await fill(world, "later"))[0] == ["10.20.0.10", "10.20.0.11", "10.20.0.12"]


async def test_a_disabled_earlier_pool_keeps_the_overlap(world: MemoryWorld) -> None:
    begin_overlap(world)
    world.pools.put(replace(world.pools.live["earlier"], disabled=True))
    assert (await fill(world, "later"))[0] == ["10.20.0.12"]
