"""ADDs that wait for pools which the controller makes, fills and lets grow, on a clock that tests move."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from allocator.awaiting import GROWTH_S, MARGIN_S
from allocator.domain import errors
from allocator.domain.pool import Edition
from allocator.domain.request import Owner
from allocator.domain.subnet_pools import SubnetRules
from tests.unit import values
from tests.unit.fake_clock import FakeClock
from tests.unit.memory import MemoryWorld
from tests.unit.values import CART, automatic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from allocator.domain.endpoint import Assigned
    from allocator.domain.request import Pod
    from allocator.service import Allocator

DEADLINE_S = 60.0
OWNER = Owner(CART.api_version, CART.kind, CART.name, CART.uid)


@pytest.fixture
def world() -> MemoryWorld:
    made = MemoryWorld(clock=FakeClock())
    rules = SubnetRules(is_on=True, makes_pools=True)
    made.view.around = replace(values.NOWHERE, subnet_rules=rules)
    made.pools.subnets = {"s4"}
    return made


def arrives(world: MemoryWorld, name: str = "cart-1", subnets: str = '"s4"') -> Pod:
    annotations = {"ipam.spidernet.io/subnet": f'{{"ipv4": [{subnets}]}}'}
    pod = values.pod(name, f"uid-{name}", annotations=annotations, controller=OWNER)
    world.view.put(pod)
    return pod


def grown(pool: str, items: str, generation: int = 2) -> Callable[[MemoryWorld], None]:
    made = automatic(pool, items, edition=Edition(f"uid-{pool}", generation))
    return lambda world: world.pools.put(made)


async def settles(world: MemoryWorld, waiting: int) -> None:
    """So many ADDs have nothing to do but wait."""
    for _ in range(100):
        await asyncio.sleep(0)
    assert world.clock.sleepers == waiting


@asynccontextmanager
async def waiting(
    world: MemoryWorld, *pods: Pod, allocator: Allocator | None = None
) -> AsyncIterator[list[asyncio.Task[tuple[Assigned, ...]]]]:
    """ADDs of the pods that wait; whoever asks for a result awaits its task."""
    serving = allocator or world.allocator()
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(serving.allocate(values.request(pod, container=pod.uid), deadline=DEADLINE_S))
            for pod in pods
        ]
        await settles(world, len(pods))
        yield tasks


async def refusal_of(allocator: Allocator, pod: Pod) -> errors.IpamError:
    try:
        await allocator.allocate(values.request(pod), deadline=DEADLINE_S)
    except errors.IpamError as error:
        return error
    raise AssertionError("it was not refused")


async def test_an_add_waits_for_the_pool_to_be_made_and_then_filled(world: MemoryWorld) -> None:
    async with waiting(world, arrives(world)) as (add,):
        world.pools.put(automatic("auto4-cart"))
        await settles(world, 1)
        grown("auto4-cart", "10.20.0.10")(world)
        (given,) = await add
    assert (str(given.address), given.pool) == ("10.20.0.10", "auto4-cart")
    assert world.clock.monotonic() == 0


async def test_all_pods_of_an_application_hear_of_its_pool(world: MemoryWorld) -> None:
    async with waiting(world, *(arrives(world, f"cart-{index}") for index in range(3))) as adds:
        grown("auto4-cart", "10.20.0.10-10.20.0.12")(world)
        given = {str(each.address) for add in adds for each in await add}
    assert given == {"10.20.0.10", "10.20.0.11", "10.20.0.12"}


async def test_news_of_another_application_wake_nobody(world: MemoryWorld) -> None:
    reads = 0
    current = world.pools.current

    async def counted() -> object:
        nonlocal reads
        reads += 1
        return await current()

    world.pools.current = counted  # type: ignore[method-assign,assignment]
    async with waiting(world, arrives(world)) as (add,):
        before = reads
        world.pools.put(automatic("auto4-pay", "10.20.0.20", application=replace(CART, name="pay")))
        await settles(world, 1)
        assert reads == before
        grown("auto4-cart", "10.20.0.10")(world)
        await add


async def test_a_pool_that_is_made_between_the_plan_and_the_wait_is_not_missed(world: MemoryWorld) -> None:
    has_subnet = world.pools.has_subnet

    async def meanwhile(name: str) -> bool:
        grown("auto4-cart", "10.20.0.10")(world)
        return await has_subnet(name)

    world.pools.has_subnet = meanwhile  # type: ignore[method-assign]
    assert await world.allocator().allocate(values.request(arrives(world)), deadline=DEADLINE_S)


async def test_a_wait_ends_before_the_deadline_and_says_what_it_was_for(world: MemoryWorld) -> None:
    async with asyncio.TaskGroup() as group:
        add = group.create_task(refusal_of(world.allocator(), arrives(world)))
        await settles(world, 1)
        world.clock.advance(DEADLINE_S - MARGIN_S - 0.1)
        await settles(world, 1)
        world.clock.advance(0.1)
        refusal = await add
    assert isinstance(refusal, errors.PoolPending)
    assert str(refusal).startswith("waited 59 s: eth0 of Deployment shop/cart has no IPv4 pool")
    assert str(refusal).endswith("kubectl describe ss s4")
    assert world.ledger.records == {}


@pytest.mark.parametrize("subnets", ['"gone"', '"gone", "away"'])
async def test_a_pod_is_refused_at_once_when_none_of_its_subnets_is_there(world: MemoryWorld, subnets: str) -> None:
    refusal = await refusal_of(world.allocator(), arrives(world, subnets=subnets))
    assert isinstance(refusal, errors.NoPool)
    assert "there is no SpiderSubnet gone" in str(refusal)


async def test_one_subnet_of_a_list_is_enough_to_wait_for(world: MemoryWorld) -> None:
    async with waiting(world, arrives(world, subnets='"gone", "s4"')) as (add,):
        grown("auto4-cart", "10.20.0.10")(world)
        await add


async def test_a_full_pool_that_grows_serves_who_waits(world: MemoryWorld) -> None:
    world.pools.put(automatic("auto4-cart", "10.20.0.10"))
    allocator = world.allocator()
    await allocator.allocate(values.request(arrives(world, "first")))
    async with waiting(world, arrives(world), allocator=allocator) as (add,):
        grown("auto4-cart", "10.20.0.10-10.20.0.11")(world)
        (given,) = await add
    assert str(given.address) == "10.20.0.11"


async def test_a_full_pool_that_does_not_grow_is_told_soon_with_advice_for_its_application(world: MemoryWorld) -> None:
    world.pools.put(automatic("auto4-cart", "10.20.0.10"))
    allocator = world.allocator()
    await allocator.allocate(values.request(arrives(world, "first")))
    async with asyncio.TaskGroup() as group:
        add = group.create_task(refusal_of(allocator, arrives(world)))
        await settles(world, 1)
        world.clock.advance(GROWTH_S / 2)
        # News that give nothing do not make the wait longer.
        grown("auto4-cart", "10.20.0.10")(world)
        await settles(world, 1)
        world.clock.advance(GROWTH_S / 2)
        refusal = str(await add)
    assert refusal.startswith("no free IPv4 address: auto4-cart: no free address")
    assert "made for" not in refusal
    assert "annotation ipam.spidernet.io/ippool-ip-number" in refusal
    assert "spec.ips" not in refusal


async def test_a_full_pool_that_people_made_is_told_at_once(world: MemoryWorld) -> None:
    world.pools.put(values.pool("hand", "10.20.0.10"))
    pods = [values.pod(f"p{index}", f"u{index}", annotations={"ipam.spidernet.io/ippool": "hand"}) for index in (1, 2)]
    world.view.put(*pods)
    allocator = world.allocator()
    await allocator.allocate(values.request(pods[0]))
    refusal = await refusal_of(allocator, pods[1])
    assert "Add addresses to spec.ips" in str(refusal)
    assert world.clock.slept == []


async def test_who_hangs_up_while_it_waits_leaves_nobody_listening(world: MemoryWorld) -> None:
    async with waiting(world, arrives(world)) as (add,):
        add.cancel()
        await asyncio.wait([add])
    assert world.pools.news.is_idle
    assert world.clock.sleepers == 0
