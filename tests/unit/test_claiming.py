"""Which addresses an agent tries, and which it leaves alone, when what it remembers of a pool is out of date."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from allocator.domain import errors
from allocator.domain.addresses import IntervalSet
from allocator.domain.pool import Edition, Reservation
from allocator.domain.record import State
from tests.unit import values
from tests.unit.memory import MemoryWorld

if TYPE_CHECKING:
    from allocator.domain.addresses import Address
    from allocator.domain.record import Record
    from allocator.domain.request import Pod


@pytest.fixture
def world() -> MemoryWorld:
    made = MemoryWorld()
    made.pools.put(values.pool("a", "10.20.0.10-10.20.0.11"))
    return made


def arrives(world: MemoryWorld, name: str) -> Pod:
    pod = values.pod(name, name, annotations={"ipam.spidernet.io/ippool": "a"})
    world.view.put(pod)
    return pod


@pytest.mark.parametrize("state", [state for state in State if state is not State.COOLING])
@pytest.mark.parametrize("left_s", [-1, 20], ids=["cooled", "cools"])
async def test_an_address_that_is_in_use_again_since_it_was_listed_is_left_alone(
    world: MemoryWorld, left_s: int, state: State
) -> None:
    world.pools.put(values.pool("a", "10.20.0.10"))
    until = world.clock.now() + timedelta(seconds=left_s)
    cooling = values.record("10.20.0.10", values.pod("gone", "gone"), State.COOLING, until=until)
    taken = replace(cooling, state=state, holder=values.holder(values.pod("other", "other")), resource_version="2")
    world.ledger.records[cooling.address] = cooling
    read = world.ledger.read

    async def overtaken(address: Address) -> Record | None:
        world.ledger.records[taken.address] = taken
        return await read(address)

    world.ledger.read = overtaken  # type: ignore[method-assign]
    with pytest.raises(errors.Exhausted):
        await world.allocator().allocate(values.request(arrives(world, "late")))
    assert world.ledger.records == {taken.address: taken}


async def test_an_address_that_a_lost_write_was_after_is_not_tried_again_once_it_is_excluded(
    world: MemoryWorld,
) -> None:
    allocator, pod, create = world.allocator(), arrives(world, "cart"), world.ledger.create
    lost: list[Record] = []

    async def unreachable(record: Record) -> Record | None:
        lost.append(record)
        raise errors.Unavailable("no answer")

    world.ledger.create = unreachable  # type: ignore[method-assign]
    with pytest.raises(errors.Unavailable):
        await allocator.allocate(values.request(pod))
    world.ledger.create = create  # type: ignore[method-assign]
    excludes = IntervalSet.addresses(4, [lost[0].address])
    world.pools.put(replace(world.pools.live["a"], edition=Edition("uid-a", 2), excludes=excludes))
    (given,) = await allocator.allocate(values.request(pod))
    assert given.address != lost[0].address


async def test_an_address_that_is_reserved_no_more_is_given_at_once_in_an_exhausted_pool(world: MemoryWorld) -> None:
    reserved = Reservation("r", Edition("r", 1), IntervalSet.parse(4, ["10.20.0.11"]))
    world.reservations.live = world.reservations.seen = [reserved]
    allocator = world.allocator()
    await allocator.allocate(values.request(arrives(world, "cart")))
    late = arrives(world, "late")
    with pytest.raises(errors.Exhausted):
        await allocator.allocate(values.request(late))
    world.reservations.live = world.reservations.seen = []
    (given,) = await allocator.allocate(values.request(late))
    assert str(given.address) == "10.20.0.11"


async def test_an_address_whose_write_failed_is_tried_by_the_next_pod_without_a_list(world: MemoryWorld) -> None:
    world.pools.put(values.pool("a", "10.20.0.10"))
    allocator, create = world.allocator(), world.ledger.create

    async def unreachable(record: Record) -> Record | None:
        raise errors.Unavailable("no answer")

    world.ledger.create = unreachable  # type: ignore[method-assign]
    with pytest.raises(errors.Unavailable):
        await allocator.allocate(values.request(arrives(world, "cart")))
    world.ledger.create = create  # type: ignore[method-assign]
    await allocator.allocate(values.request(arrives(world, "next")))
    assert world.ledger.lists == 0
