"""Several interfaces of a pod: one ADD claims for all that `ippools` lists, each later ADD finds its own."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from allocator.domain import errors
from allocator.domain.addresses import IntervalSet, parse_address
from allocator.domain.candidates import Master
from allocator.domain.record import State
from tests.unit import values
from tests.unit.memory import MemoryWorld

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from allocator.domain.addresses import Address
    from allocator.domain.endpoint import Assigned
    from allocator.domain.pool import Edition
    from allocator.domain.record import Record
    from allocator.domain.request import Pod

TWO: Sequence[Mapping[str, object]] = [
    {"interface": "eth0", "ipv4": ["a"]},
    {"interface": "net1", "ipv4": ["b"], "cleangateway": True},
]


@pytest.fixture
def world() -> MemoryWorld:
    made = MemoryWorld()
    made.pools.put(
        values.pool("a", "10.20.0.10-10.20.0.12"),
        values.pool("b", "10.30.0.10-10.30.0.12", "10.30.0.0/24"),
        values.pool("six", "fd00::10-fd00::12", "fd00::/64"),
        values.pool("full", "10.40.0.10", "10.40.0.0/24"),
    )
    return made


def arrives(world: MemoryWorld, ippools: Sequence[Mapping[str, object]], pod: Pod | None = None) -> Pod:
    annotated = replace(pod or values.pod(), annotations={"ipam.spidernet.io/ippools": json.dumps(ippools)})
    world.view.put(annotated)
    return annotated


async def fill(world: MemoryWorld) -> None:
    other = replace(values.pod("other", "other"), annotations={"ipam.spidernet.io/ippool": '{"ipv4": ["full"]}'})
    world.view.put(other)
    await world.allocator().allocate(values.request(other))


def given(assigned: Sequence[Assigned]) -> list[tuple[str, str]]:
    return [(each.interface, each.pool) for each in assigned]


def held(world: MemoryWorld, pod: Pod) -> set[tuple[str, str]]:
    return {
        (record.holder.interface, record.pool)
        for record in world.ledger.records.values()
        if record.holder is not None and record.holder.pod_uid == pod.uid and record.state is State.HELD
    }


async def test_the_first_add_answers_for_every_interface_that_is_listed(world: MemoryWorld) -> None:
    pod = arrives(world, TWO)
    answer = await world.allocator().allocate(values.request(pod))
    assert given(answer) == [("eth0", "a"), ("net1", "b")]
    assert [each.clean_gateway for each in answer] == [False, True]
    assert given(world.endpoints.written["shop", "cart-1"].assigned) == [("eth0", "a"), ("net1", "b")]


async def test_a_later_add_finds_what_the_first_one_claimed_for_it(world: MemoryWorld) -> None:
    pod = arrives(world, TWO)
    allocator = world.allocator()
    first = await allocator.allocate(values.request(pod))
    later = await allocator.allocate(values.request(pod, interface="net1"))
    assert [each.address for each in later] == [each.address for each in first if each.interface == "net1"]
    assert len(world.ledger.records) == 2


async def test_the_order_of_the_adds_does_not_matter(world: MemoryWorld) -> None:
    pod = arrives(world, TWO)
    allocator = world.allocator()
    await allocator.allocate(values.request(pod, interface="net1"))
    await allocator.allocate(values.request(pod, interface="eth0"))
    assert held(world, pod) == {("eth0", "a"), ("net1", "b")}


async def test_two_interfaces_on_one_pool_get_two_addresses(world: MemoryWorld) -> None:
    pod = arrives(world, [{"interface": "eth0", "ipv4": ["a"]}, {"interface": "net1", "ipv4": ["a"]}])
    answer = await world.allocator().allocate(values.request(pod))
    assert given(answer) == [("eth0", "a"), ("net1", "a")]
    assert len({each.address for each in answer}) == 2


async def test_one_exhausted_interface_leaves_nothing_of_any(world: MemoryWorld) -> None:
    await fill(world)
    pod = arrives(
        world, [{"interface": "eth0", "ipv4": ["a"], "ipv6": ["six"]}, {"interface": "net1", "ipv4": ["full"]}]
    )
    with pytest.raises(errors.Exhausted, match="full: no free address"):
        await world.allocator().allocate(values.request(pod))
    assert held(world, pod) == set()
    assert ("shop", "cart-1") not in world.endpoints.written


async def test_a_pool_that_was_just_found_full_costs_no_claims_for_the_other_interfaces(world: MemoryWorld) -> None:
    await fill(world)
    pod = arrives(world, [{"interface": "eth0", "ipv4": ["a"]}, {"interface": "net1", "ipv4": ["full"]}])
    allocator = world.allocator()
    with pytest.raises(errors.Exhausted):
        await allocator.allocate(values.request(pod))
    written: list[Record] = []
    world.ledger.after_write = written.append
    with pytest.raises(errors.Exhausted):
        await allocator.allocate(values.request(pod))
    assert written == []


async def test_an_interface_that_has_its_address_does_not_wait_for_another(world: MemoryWorld) -> None:
    pod = arrives(world, TWO)
    allocator = world.allocator()
    (before, _) = await allocator.allocate(values.request(pod))
    await fill(world)
    arrives(world, [*TWO, {"interface": "net2", "ipv4": ["full"]}])
    (after,) = await allocator.allocate(values.request(pod, container="c2"))
    assert after.address == before.address


async def test_a_cut_off_add_leaves_no_interface_behind_when_the_pod_tries_again(world: MemoryWorld) -> None:
    pod = arrives(world, TWO)
    allocator = world.allocator()
    edition = world.pools.edition

    async def hang_up(name: str) -> Edition | None:
        raise asyncio.CancelledError

    world.pools.edition = hang_up  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await allocator.allocate(values.request(pod))
    assert len(held(world, pod)) == 2
    world.pools.edition = edition  # type: ignore[method-assign]
    arrives(world, [{"interface": "net1", "ipv4": ["b"]}])
    await allocator.allocate(values.request(pod, interface="net1"))
    assert held(world, pod) == {("net1", "b")}


@pytest.mark.parametrize("edited", ["a", "b"])
async def test_whichever_interfaces_pool_is_edited_before_the_confirmation_its_claim_is_not_answered(
    world: MemoryWorld, edited: str
) -> None:
    pod = arrives(world, TWO)
    edition = world.pools.edition
    taken: list[Address] = []

    async def edited_first(name: str) -> Edition | None:
        if not taken:
            taken.extend(address for address, record in world.ledger.records.items() if record.pool == edited)
            pool = world.pools.live[edited]
            excludes = IntervalSet.addresses(4, taken)
            world.pools.live[edited] = replace(pool, edition=replace(pool.edition, generation=2), excludes=excludes)
        return await edition(name)

    world.pools.edition = edited_first  # type: ignore[method-assign]
    answer = await world.allocator().allocate(values.request(pod))
    assert given(answer) == [("eth0", "a"), ("net1", "b")]
    assert {each.address for each in answer} == set(world.ledger.records)
    assert not {each.address for each in answer} & {*taken}


async def test_where_pools_must_fit_the_master_each_interface_asks_for_itself(world: MemoryWorld) -> None:
    pod = arrives(world, TWO)
    interface = replace(values.request(pod).interface, netns="/run/netns/1")
    world.uplinks.masters[interface.netns, "eth0"] = Master((parse_address("10.20.0.1"),))
    request = replace(values.request(pod), interface=interface, match_master_subnet=True)
    assert given(await world.allocator().allocate(request)) == [("eth0", "a")]
    assert held(world, pod) == {("eth0", "a")}


async def test_both_families_are_claimed_at_once(world: MemoryWorld) -> None:
    """The second claim is under way before the first has been written."""
    pod = arrives(world, [{"interface": "eth0", "ipv4": ["a"], "ipv6": ["six"]}])
    begun: list[str] = []
    both_begun = asyncio.Event()
    create = world.ledger.create

    async def wait_for_the_other(record: Record) -> Record | None:
        begun.append(record.pool)
        if len(begun) == 2:
            both_begun.set()
        await both_begun.wait()
        return await create(record)

    world.ledger.create = wait_for_the_other  # type: ignore[method-assign]
    async with asyncio.timeout(5):
        answer = await world.allocator().allocate(values.request(pod))
    assert given(answer) == [("eth0", "a"), ("eth0", "six")]


async def test_only_the_first_addresses_of_a_pool_are_handed_out_where_their_number_is_limited(
    world: MemoryWorld,
) -> None:
    allocator = world.allocator(max_per_pool=2)
    got = set()
    for index in range(2):
        pod = arrives(world, [{"ipv4": ["a"]}], values.pod(f"p{index}", f"p{index}"))
        (each,) = await allocator.allocate(values.request(pod))
        got.add(str(each.address))
    assert got == {"10.20.0.10", "10.20.0.11"}
    last = arrives(world, [{"ipv4": ["a"]}], values.pod("last", "last"))
    with pytest.raises(errors.Exhausted, match="2 usable"):
        await allocator.allocate(values.request(last))


def wishing(world: MemoryWorld, pod: Pod, **wishes: object) -> Pod:
    annotations = {f"ipam.spidernet.io/{name}": json.dumps(wish) for name, wish in wishes.items()}
    changed = replace(pod, annotations={**pod.annotations, **annotations})
    world.view.put(changed)
    return changed


def through(assigned: Sequence[Assigned]) -> dict[str, list[str]]:
    return {each.interface: [route.dst for route in each.routes] for each in assigned}


ROUTE_OF_B = {"dst": "10.99.0.0/16", "gw": "10.30.0.254"}


async def test_a_pods_own_route_goes_through_the_interface_whose_subnet_has_the_next_hop(world: MemoryWorld) -> None:
    pod = wishing(world, arrives(world, TWO), routes=[ROUTE_OF_B], dns={"domain": "a.b"})
    answer = await world.allocator().allocate(values.request(pod))
    assert through(answer) == {"eth0": [], "net1": ["10.99.0.0/16"]}
    assert {each.dns.domain for each in answer} == {"a.b"}
    assert through(world.endpoints.written["shop", "cart-1"].assigned) == through(answer)


async def test_a_route_that_fits_no_interface_is_a_refusal_and_leaves_nothing(world: MemoryWorld) -> None:
    pod = wishing(world, arrives(world, TWO), routes=[{"dst": "10.99.0.0/16", "gw": "10.77.0.1"}])
    with pytest.raises(errors.Invalid, match="lies in no subnet"):
        await world.allocator().allocate(values.request(pod))
    assert held(world, pod) == set()
    assert ("shop", "cart-1") not in world.endpoints.written


async def test_a_route_waits_for_the_interface_that_asks_later(world: MemoryWorld) -> None:
    """Without `ippools` each interface asks for itself."""
    pod = values.pod(annotations={"k8s.v1.cni.cncf.io/networks": "ns/macvlan"})
    world.view.put(pod)
    pod = wishing(world, pod, routes=[ROUTE_OF_B])
    allocator = world.allocator()
    first = await allocator.allocate(replace(values.request(pod), default_ipv4_pools=("a",)))
    later = await allocator.allocate(replace(values.request(pod, interface="net1"), default_ipv4_pools=("b",)))
    assert (through(first), through(later)) == ({"eth0": []}, {"net1": ["10.99.0.0/16"]})
    assert through(world.endpoints.written["shop", "cart-1"].assigned) == {"eth0": [], "net1": ["10.99.0.0/16"]}


async def test_a_malformed_route_costs_no_claim(world: MemoryWorld) -> None:
    pod = wishing(world, arrives(world, TWO), routes="10.99.0.0/16")
    with pytest.raises(errors.Invalid, match="routes must be a list"):
        await world.allocator().allocate(values.request(pod))
    assert world.ledger.records == {}


async def test_a_route_that_has_become_wrong_does_not_take_a_pods_address(world: MemoryWorld) -> None:
    pod = arrives(world, TWO)
    allocator = world.allocator()
    before = await allocator.allocate(values.request(pod))
    wishing(world, pod, routes="nonsense")
    (after,) = await allocator.allocate(values.request(pod, container="c2"))
    assert after.address == before[0].address
