"""match_master_subnet: a pool serves an interface when its subnet holds an address of what the interface stands on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from allocator.domain import errors
from allocator.domain.addresses import parse_address
from allocator.domain.candidates import Master
from tests.unit import values
from tests.unit.memory import MemoryWorld

if TYPE_CHECKING:
    from allocator.domain.request import AddRequest

POD = values.pod(annotations={"ipam.spidernet.io/ippool": '{"ipv4": ["far", "near"]}'})


@pytest.fixture
def world() -> MemoryWorld:
    made = MemoryWorld()
    made.view.put(POD)
    made.pools.put(
        values.pool("far", "10.30.0.10", "10.30.0.0/24"),
        values.pool("near", "10.20.0.10", "10.20.0.0/24"),
    )
    return made


def asking(netns: str) -> AddRequest:
    request = values.request(POD)
    return replace(request, match_master_subnet=True, interface=replace(request.interface, netns=netns))


async def test_only_a_pool_of_the_masters_subnet_serves_the_interface(world: MemoryWorld) -> None:
    world.uplinks.masters["/run/netns/p", "eth0"] = Master((parse_address("10.20.0.7"),))
    (given,) = await world.allocator().allocate(asking("/run/netns/p"))
    assert given.pool == "near"


async def test_a_master_that_cannot_be_found_is_told_for_each_pool(world: MemoryWorld) -> None:
    with pytest.raises(errors.NoPool, match="near: eth0 in /run/netns/q stands on nothing"):
        await world.allocator().allocate(asking("/run/netns/q"))
    assert world.ledger.records == {}


async def test_nobody_looks_for_a_master_unless_the_network_asks_for_it(world: MemoryWorld) -> None:
    (given,) = await world.allocator().allocate(values.request(POD))
    assert given.pool == "far"
