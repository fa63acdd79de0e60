"""What happens when the world changes in the middle of an allocation or a release."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from allocator.domain import errors
from allocator.domain.addresses import IntervalSet, parse_address
from allocator.domain.pool import Edition, Reservation
from allocator.domain.record import REUSE_DELAY, State
from allocator.domain.request import DelRequest
from allocator.kube.codec import reserving_nothing
from tests.unit import values
from tests.unit.memory import MemoryWorld

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocator.domain.record import Record, Slot
    from allocator.domain.request import Pod
    from allocator.service import Allocator


@pytest.fixture
def world() -> MemoryWorld:
    made = MemoryWorld()
    made.pools.put(values.pool("a", "10.20.0.10-10.20.0.12"))
    return made


def arrives(world: MemoryWorld, pod: Pod, ippool: str = '{"ipv4": ["a"]}') -> Pod:
    annotated = replace(pod, annotations={"ipam.spidernet.io/ippool": ippool})
    world.view.put(annotated)
    return annotated


def ends(world: MemoryWorld, pod: Pod) -> DelRequest:
    del world.view.live[pod.namespace, pod.name]
    return DelRequest(namespace=pod.namespace, pod=pod.name, pod_uid=pod.uid, interface=values.request(pod).interface)


def states(world: MemoryWorld) -> dict[str, State]:
    return {str(address): record.state for address, record in world.ledger.records.items()}


def once(world: MemoryWorld, act: object) -> None:
    """Run `act` after the next write only."""

    def hook(_record: Record) -> None:
        world.ledger.after_write = lambda _record: None
        assert callable(act)
        act()

    world.ledger.after_write = hook


async def test_a_pool_edited_between_claim_and_confirm_undoes_the_claim_and_decides_again(world: MemoryWorld) -> None:
    pod = arrives(world, values.pod())
    taken: list[str] = []

    def exclude_what_was_claimed() -> None:
        taken.extend(states(world))
        excludes = IntervalSet.parse(4, taken)
        world.pools.live["a"] = replace(world.pools.live["a"], edition=Edition("uid-a", 2), excludes=excludes)

    once(world, exclude_what_was_claimed)
    (given,) = await world.allocator().allocate(values.request(pod))
    assert taken
    assert states(world) == {str(given.address): State.HELD}
    assert str(given.address) not in taken


async def test_a_pool_deleted_between_claim_and_confirm_leaves_nothing_claimed(world: MemoryWorld) -> None:
    pod = arrives(world, values.pod())
    once(world, world.pools.live.clear)
    with pytest.raises(errors.NoPool, match="a: there is no SpiderIPPool of this name"):
        await world.allocator().allocate(values.request(pod))
    assert states(world) == {}
    assert world.endpoints.written == {}


async def test_an_address_reserved_between_claim_and_confirm_is_not_given(world: MemoryWorld) -> None:
    pod = arrives(world, values.pod())
    reserved: list[str] = []

    def reserve_what_was_claimed() -> None:
        reserved.extend(states(world))
        world.reservations.live.append(Reservation("r", Edition("r", 1), IntervalSet.parse(4, reserved)))

    once(world, reserve_what_was_claimed)
    (given,) = await world.allocator().allocate(values.request(pod))
    assert reserved
    assert str(given.address) not in reserved


async def test_a_claim_cut_off_after_its_commit_is_not_left_behind_by_the_next_try(world: MemoryWorld) -> None:
    pod = arrives(world, values.pod())
    allocator = world.allocator()

    def lose_the_answer(_record: Record) -> None:
        world.ledger.after_write = lambda _record: None
        raise asyncio.CancelledError

    world.ledger.after_write = lose_the_answer
    with pytest.raises(asyncio.CancelledError):
        await allocator.allocate(values.request(pod))
    assert len(states(world)) == 1
    (given,) = await allocator.allocate(values.request(pod))
    assert states(world) == {str(given.address): State.HELD}


async def test_a_claim_that_was_never_confirmed_is_not_answered_by_the_next_try(world: MemoryWorld) -> None:
    """The runtime hung up during the confirmation, and the pool has changed since."""
    pod = arrives(world, values.pod())
    allocator = world.allocator()
    edition = world.pools.edition

    hangs_up = True

    async def hang_up(name: str) -> Edition | None:
        if hangs_up:
            raise asyncio.CancelledError
        return await edition(name)

    world.pools.edition = hang_up  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await allocator.allocate(values.request(pod))
    hangs_up = False
    (claimed,) = states(world)
    excludes = IntervalSet.parse(4, [claimed])
    world.pools.put(replace(world.pools.live["a"], edition=Edition("uid-a", 2), excludes=excludes))
    (given,) = await allocator.allocate(values.request(pod))
    assert str(given.address) != claimed
    assert states(world) == {str(given.address): State.HELD}


async def test_a_claim_that_cannot_be_undone_is_undone_by_the_next_try_and_never_answered(world: MemoryWorld) -> None:
    pod = arrives(world, values.pod())
    allocator = world.allocator()
    delete = world.ledger.delete
    taken: list[str] = []

    def exclude_what_was_claimed() -> None:
        taken.extend(states(world))
        excludes = IntervalSet.parse(4, taken)
        world.pools.live["a"] = replace(world.pools.live["a"], edition=Edition("uid-a", 2), excludes=excludes)

    async def unavailable(record: Record) -> None:
        world.ledger.delete = delete  # type: ignore[method-assign]
        raise errors.Unavailable("no answer")

    once(world, exclude_what_was_claimed)
    world.ledger.delete = unavailable  # type: ignore[method-assign]
    (given,) = await allocator.allocate(values.request(pod))
    assert str(given.address) not in taken
    assert states(world) == {str(given.address): State.HELD}


async def test_a_claim_whose_answer_was_lost_is_tried_under_the_same_address_again(world: MemoryWorld) -> None:
    """The node's index does not know it yet, and it may still be on its way: a second address would be one too many."""
    pod = arrives(world, values.pod())
    allocator = world.allocator()
    create = world.ledger.create
    tried: list[str] = []

    async def unreachable(record: Record) -> Record | None:
        tried.append(str(record.address))
        raise errors.Unavailable("no answer")

    world.ledger.create = unreachable  # type: ignore[method-assign]
    with pytest.raises(errors.Unavailable):
        await allocator.allocate(values.request(pod))
    world.ledger.create = create  # type: ignore[method-assign]
    (given,) = await allocator.allocate(values.request(pod))
    assert tried == [str(given.address)]


async def test_what_one_interface_was_after_is_not_forgotten_when_another_one_is_answered(world: MemoryWorld) -> None:
    """The write for net1 may still be on its way; a new sandbox asks for eth0 first."""
    pod = arrives(world, values.pod())
    allocator = world.allocator()
    await allocator.allocate(values.request(pod))
    create = world.ledger.create
    tried: list[str] = []

    async def unreachable(record: Record) -> Record | None:
        tried.append(str(record.address))
        raise errors.Unavailable("no answer")

    world.ledger.create = unreachable  # type: ignore[method-assign]
    with pytest.raises(errors.Unavailable):
        await allocator.allocate(values.request(pod, interface="net1"))
    world.ledger.create = create  # type: ignore[method-assign]
    await allocator.allocate(values.request(pod, container="c2"))
    (given,) = await allocator.allocate(values.request(pod, container="c2", interface="net1"))
    assert tried == [str(given.address)]


async def test_a_write_that_lands_late_and_is_met_is_not_answered_before_it_is_confirmed(world: MemoryWorld) -> None:
    """The next try meets the late write and is cut off itself; then the pool excludes the address."""
    pod = arrives(world, values.pod())
    allocator = world.allocator()
    create, edition = world.ledger.create, world.pools.edition
    late: list[Record] = []
    hangs_up = True

    async def unreachable(record: Record) -> Record | None:
        late.append(record)
        raise errors.Unavailable("no answer")

    async def overtaken(record: Record) -> Record | None:
        world.ledger.create = create  # type: ignore[method-assign]
        await create(late[0])
        return await create(record)

    async def hang_up(name: str) -> Edition | None:
        if hangs_up:
            raise asyncio.CancelledError
        return await edition(name)

    world.ledger.create = unreachable  # type: ignore[method-assign]
    with pytest.raises(errors.Unavailable):
        await allocator.allocate(values.request(pod))
    world.ledger.create = overtaken  # type: ignore[method-assign]
    world.pools.edition = hang_up  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await allocator.allocate(values.request(pod))
    hangs_up = False
    excludes = IntervalSet.addresses(4, [late[0].address])
    world.pools.put(replace(world.pools.live["a"], edition=Edition("uid-a", 2), excludes=excludes))
    (given,) = await allocator.allocate(values.request(pod))
    assert given.address != late[0].address
    assert states(world) == {str(given.address): State.HELD}


async def test_an_address_that_a_lost_write_was_after_is_left_to_the_pod_that_has_it_by_now(world: MemoryWorld) -> None:
    pod = arrives(world, values.pod())
    allocator = world.allocator()
    create = world.ledger.create

    async def overtaken(record: Record) -> Record | None:
        world.ledger.create = create  # type: ignore[method-assign]
        await create(replace(record, holder=values.holder(values.pod("other", "other", node="n2"))))
        raise errors.Unavailable("no answer")

    world.ledger.create = overtaken  # type: ignore[method-assign]
    with pytest.raises(errors.Unavailable):
        await allocator.allocate(values.request(pod))
    before = dict(world.ledger.records)
    (given,) = await allocator.allocate(values.request(pod))
    assert given.address not in before
    assert before.items() <= world.ledger.records.items()


async def test_a_claim_that_was_cut_off_is_not_undone_once_a_migrating_machines_other_pod_has_it(
    world: MemoryWorld,
) -> None:
    source, target = values.launcher("source", "u1"), arrives(world, values.launcher("target", "u2"))
    world.view.put(source)
    allocator = world.allocator()

    def cut_off(_record: Record) -> None:
        world.ledger.after_write = lambda _record: None
        raise asyncio.CancelledError

    world.ledger.after_write = cut_off
    with pytest.raises(asyncio.CancelledError):
        await allocator.allocate(values.request(target))
    ((address, claimed),) = world.ledger.records.items()
    # The other one asked meanwhile, and a second try of this one was cut off right after it had asked in turn.
    world.ledger.records[address] = shared = replace(claimed, peer=values.holder(source), resource_version="9")
    (given,) = await allocator.allocate(values.request(target))
    assert given.address == address
    assert world.ledger.records == {address: shared}


async def test_agents_that_race_for_the_last_addresses_all_get_one(world: MemoryWorld) -> None:
    """A pool of 40 for 40 pods on 4 nodes: everybody meets everybody, and the last ones only find each other's."""
    world.pools.put(values.pool("a", "10.20.0.1-10.20.0.40"))
    pods = [arrives(world, values.pod(f"cart-{index}", f"u{index}", node=f"n{index % 4}")) for index in range(40)]
    agents = {f"n{index}": world.allocator(f"n{index}") for index in range(4)}
    async with asyncio.TaskGroup() as group:
        for pod in pods:
            group.create_task(agents[pod.node].allocate(values.request(pod)))
    assert set(states(world).values()) == {State.HELD}
    assert len({record.holder.pod_uid for record in world.ledger.records.values() if record.holder}) == 40
    assert world.ledger.lost_creates > 0
    late = arrives(world, values.pod("late", "late", node="n9"))
    with pytest.raises(errors.Exhausted, match=r"a: no free address, 40 usable \(40 Held\)"):
        await world.allocator("n9").allocate(values.request(late))


async def test_claims_of_one_agent_never_try_the_same_address(world: MemoryWorld) -> None:
    world.pools.put(values.pool("a", "10.20.0.1-10.20.0.40"))
    allocator = world.allocator()
    pods = [arrives(world, values.pod(f"cart-{index}", f"u{index}")) for index in range(40)]
    async with asyncio.TaskGroup() as group:
        for pod in pods:
            group.create_task(allocator.allocate(values.request(pod)))
    assert (world.ledger.lost_creates, world.ledger.lists) == (0, 0)


async def test_after_two_misses_the_pool_is_listed_instead_of_guessing_on(world: MemoryWorld) -> None:
    world.pools.put(values.pool("a", "10.20.0.1-10.20.0.40"))
    for index in range(1, 40):
        other = values.record(f"10.20.0.{index}", values.pod("other", f"other-{index}"))
        world.ledger.records[other.address] = other
    (given,) = await world.allocator().allocate(values.request(arrives(world, values.pod())))
    assert str(given.address) == "10.20.0.40"
    assert world.ledger.lost_creates <= 2
    assert world.ledger.lists <= 1


async def test_a_pool_found_exhausted_is_not_listed_again_for_every_waiting_pod(world: MemoryWorld) -> None:
    allocator = world.allocator()
    for index in range(3):
        await allocator.allocate(values.request(arrives(world, values.pod(f"cart-{index}", f"u{index}"))))
    for index in range(20):
        late = arrives(world, values.pod(f"late-{index}", f"late-{index}"))
        with pytest.raises(errors.Exhausted):
            await allocator.allocate(values.request(late))
    assert world.ledger.lists == 1


async def test_an_exhausted_pool_is_asked_again_after_a_second(world: MemoryWorld) -> None:
    world.pools.put(values.pool("a", "10.20.0.10"))
    allocator = world.allocator()
    await allocator.allocate(values.request(arrives(world, values.pod())))
    late = arrives(world, values.pod("late", "late"))
    with pytest.raises(errors.Exhausted):
        await allocator.allocate(values.request(late))
    world.ledger.records.clear()  # another agent's release
    with pytest.raises(errors.Exhausted):
        await allocator.allocate(values.request(late))
    world.clock.advance(1)
    assert await allocator.allocate(values.request(late))


async def test_a_release_on_this_agent_is_known_at_once_in_an_exhausted_pool(world: MemoryWorld) -> None:
    world.pools.put(values.pool("a", "10.20.0.10"))
    allocator = world.allocator()
    first = arrives(world, values.pod())
    await allocator.allocate(values.request(first))
    late = arrives(world, values.pod("late", "late"))
    with pytest.raises(errors.Exhausted):
        await allocator.allocate(values.request(late))
    await allocator.release(ends(world, first))
    assert await allocator.allocate(values.request(late))


async def test_a_pool_that_was_enlarged_a_moment_ago_is_read_before_the_pod_is_refused(world: MemoryWorld) -> None:
    world.pools.put(values.pool("a", "10.20.0.10"))
    allocator = world.allocator()
    await allocator.allocate(values.request(arrives(world, values.pod())))
    world.pools.live["a"] = values.pool("a", "10.20.0.10-10.20.0.11", edition=Edition("uid-a", 2))
    (given,) = await allocator.allocate(values.request(arrives(world, values.pod("late", "late"))))
    assert str(given.address) == "10.20.0.11"


async def test_a_claim_that_lands_late_is_waited_for_before_the_pod_is_refused(world: MemoryWorld) -> None:
    """One address, two pods of one agent: the first one's create is on its way, and then fails."""
    world.pools.put(values.pool("a", "10.20.0.10"))
    allocator = world.allocator()
    create = world.ledger.create
    landing = asyncio.Event()

    async def slow(record: Record) -> Record | None:
        world.ledger.create = create  # type: ignore[method-assign]
        await landing.wait()
        raise errors.Unavailable("refused in the end")

    world.ledger.create = slow  # type: ignore[method-assign]
    first, second = arrives(world, values.pod("one", "u1")), arrives(world, values.pod("two", "u2"))
    async with asyncio.TaskGroup() as group:
        failing = group.create_task(_refusal(allocator, first))
        waiting = group.create_task(allocator.allocate(values.request(second)))
        for _ in range(100):
            await asyncio.sleep(0)
        assert world.ledger.lists
        assert not waiting.done()
        landing.set()
    assert isinstance(failing.result(), errors.Unavailable)
    assert [str(each.address) for each in waiting.result()] == ["10.20.0.10"]


async def _refusal(allocator: Allocator, pod: Pod) -> Exception | None:
    try:
        await allocator.allocate(values.request(pod))
    except errors.IpamError as refusal:
        return refusal
    return None


async def test_many_addresses_taken_through_an_overlapping_pool_neither_hang_nor_hide_the_next_pool(
    world: MemoryWorld,
) -> None:
    world.pools.live.clear()
    wide = values.pool("wide", "10.20.0.0-10.20.3.255", "10.20.0.0/22")
    world.pools.put(wide, values.pool("b", "10.20.8.1", "10.20.8.0/24"))
    for index in range(1024):
        other = values.record(f"10.20.{index // 256}.{index % 256}", values.pod("o", f"o-{index}"), pool="old")
        world.ledger.records[other.address] = other
    allocator = world.allocator()
    late = arrives(world, values.pod("late", "late"), '{"ipv4": ["wide", "b"]}')
    (given,) = await allocator.allocate(values.request(late))
    assert given.pool == "b"
    assert world.ledger.lists <= 2
    last = arrives(world, values.pod("last", "last"), '{"ipv4": ["wide"]}')
    world.clock.advance(1)
    with pytest.raises(errors.Exhausted, match="1024 through pool old"):
        await allocator.allocate(values.request(last))


async def test_an_address_that_cools_in_an_overlapping_pool_is_the_last_choice_of_this_one_too(
    world: MemoryWorld,
) -> None:
    world.pools.put(values.pool("a", "10.20.0.10"))
    until = world.clock.now() + timedelta(seconds=20)
    cooling = values.record("10.20.0.10", values.pod("o", "o"), State.COOLING, pool="old", until=until)
    world.ledger.records[cooling.address] = cooling
    (given,) = await world.allocator().allocate(values.request(arrives(world, values.pod())))
    assert (given.address, world.ledger.records[given.address].pool) == (cooling.address, "a")


async def test_an_address_taken_through_an_overlapping_pool_is_not_given_twice(world: MemoryWorld) -> None:
    allocator = world.allocator()
    for index in range(3):
        await allocator.allocate(values.request(arrives(world, values.pod(f"cart-{index}", f"u{index}"))))
    # An older pool is given what the younger one hands out.
    world.pools.put(values.pool("b", "10.20.0.10-10.20.0.12", created=values.NOON - timedelta(hours=1)))
    late = arrives(world, values.pod("late", "late"), '{"ipv4": ["b"]}')
    with pytest.raises(errors.Exhausted, match="b: no free address"):
        await allocator.allocate(values.request(late))


async def test_the_longest_cooled_address_is_taken_when_nothing_else_is_left(world: MemoryWorld) -> None:
    allocator = world.allocator()
    pods = [arrives(world, values.pod(f"cart-{index}", f"u{index}")) for index in range(3)]
    given = [(await allocator.allocate(values.request(pod)))[0].address for pod in pods]
    for index in (1, 0):
        await allocator.release(ends(world, pods[index]))
        world.clock.advance(1)
    (again,) = await allocator.allocate(values.request(arrives(world, values.pod("next", "next"))))
    assert again.address == given[1]


async def test_an_expired_cooling_address_is_as_good_as_a_free_one(world: MemoryWorld) -> None:
    world.pools.put(values.pool("a", "10.20.0.10"))
    allocator = world.allocator()
    pod = arrives(world, values.pod())
    await allocator.allocate(values.request(pod))
    await allocator.release(ends(world, pod))
    world.clock.advance(REUSE_DELAY.total_seconds())
    world.pools.put(values.pool("b", "10.20.0.11"))
    (given,) = await allocator.allocate(
        values.request(arrives(world, values.pod("next", "next"), '{"ipv4": ["a", "b"]}'))
    )
    assert given.address == parse_address("10.20.0.10")


async def test_a_clock_far_ahead_cannot_lock_an_address_away(world: MemoryWorld) -> None:
    gone = values.pod("gone", "gone")
    far = world.clock.now() + timedelta(days=365)
    cooling = values.record("10.20.0.10", gone, State.COOLING, until=far)
    assert not cooling.is_free(world.clock.now())
    assert not cooling.is_free(far - timedelta(days=1))
    world.pools.put(values.pool("a", "10.20.0.10"))
    world.ledger.records[cooling.address] = cooling
    (given,) = await world.allocator().allocate(values.request(arrives(world, values.pod())))
    assert given.address == cooling.address


async def test_an_informer_that_is_behind_does_not_let_a_dead_uid_take_an_address(world: MemoryWorld) -> None:
    """A3 of the original: the ADD of a new pod of the same name must not run under the old pod's UID."""
    old = arrives(world, values.pod(uid="old"))
    new = replace(old, uid="new")
    world.view.live[new.namespace, new.name] = new
    await world.allocator().allocate(values.request(new))
    assert {record.holder.pod_uid for record in world.ledger.records.values() if record.holder} == {"new"}
    with pytest.raises(errors.PodGone):
        await world.allocator().allocate(values.request(replace(old, uid="older")))


async def test_a_delayed_add_of_a_dead_member_does_not_take_the_slot_from_the_living_one(world: MemoryWorld) -> None:
    old = arrives(world, values.stateful_pod(uid="old"))
    new = replace(old, uid="new", node="n2")
    world.view.live[new.namespace, new.name] = new
    await world.allocator("n2").allocate(values.request(new))
    with pytest.raises(errors.PodGone):
        await world.allocator("n1").allocate(values.request(old))
    assert {record.holder.pod_uid for record in world.ledger.records.values() if record.holder} == {"new"}


@pytest.mark.parametrize("ippool", ['{"ipv4": ["a"]}', '{"ipv4": ["b"]}'], ids=["same pool", "another pool"])
async def test_an_add_that_was_cut_off_leaves_the_address_of_a_living_successor_alone(
    world: MemoryWorld, ippool: str
) -> None:
    """The old pod's ADD is held up before it reads the slot's records; meanwhile its successor gets an answer."""
    world.pools.put(world.pools.live["a"], values.pool("b", "10.20.0.20-10.20.0.22"))
    old = arrives(world, values.stateful_pod(uid="old"))
    of_slot = world.ledger.of_slot

    async def held_up(slot: Slot) -> Sequence[Record]:
        world.ledger.of_slot = of_slot  # type: ignore[method-assign]
        new = replace(old, uid="new", node="n2", annotations={"ipam.spidernet.io/ippool": ippool})
        world.view.live[new.namespace, new.name] = new
        await world.allocator("n2").allocate(values.request(new))
        return await of_slot(slot)

    world.ledger.of_slot = held_up  # type: ignore[method-assign]
    with pytest.raises(errors.PodGone):
        await world.allocator("n1").allocate(values.request(old))
    (record,) = world.ledger.records.values()
    assert record.holder is not None
    assert (record.state, record.holder.pod_uid) == (State.HELD, "new")


async def test_a_member_comes_back_to_its_address_while_its_slot_is_wanted(world: MemoryWorld) -> None:
    allocator = world.allocator()
    pod = arrives(world, values.stateful_pod(uid="old"))
    (first,) = await allocator.allocate(values.request(pod))
    world.view.wanted_slots.add(values.slot(0))
    await allocator.release(ends(world, pod))
    assert states(world) == {str(first.address): State.RETAINED}
    assert (pod.namespace, pod.name) in world.endpoints.written
    (again,) = await allocator.allocate(values.request(arrives(world, values.stateful_pod(uid="new"))))
    assert again.address == first.address
    assert world.endpoints.written[pod.namespace, pod.name].pod.uid == "new"


async def test_a_member_keeps_the_address_that_it_got_before_static_addresses_were_switched_on(
    world: MemoryWorld,
) -> None:
    pod = arrives(world, values.stateful_pod())
    allocator = world.allocator()
    world.view.put(replace(pod, keeps_slot=False))
    (before,) = await allocator.allocate(values.request(pod))
    world.view.put(pod)
    world.endpoints.written.clear()
    (after,) = await allocator.allocate(values.request(pod, container="c2"))
    assert after.address == before.address
    assert len(world.ledger.records) == 1


async def test_a_failed_dual_stack_add_gives_back_the_half_it_had(world: MemoryWorld) -> None:
    world.pools.put(values.pool("six", "fd00::1", "fd00::/64"))
    other = arrives(world, values.pod("cart-2", "u2"), '{"ipv6": ["six"]}')
    await world.allocator().allocate(values.request(other))
    pod = arrives(world, values.pod(), '{"ipv4": ["a"], "ipv6": ["six"]}')
    with pytest.raises(errors.Exhausted, match="six: no free address"):
        await world.allocator().allocate(values.request(pod))
    assert states(world) == {"fd00::1": State.HELD}


async def test_a_pool_made_a_moment_ago_is_read_before_the_pod_is_refused(world: MemoryWorld) -> None:
    world.pools.live["new"] = values.pool("new", "10.20.0.50")
    (given,) = await world.allocator().allocate(values.request(arrives(world, values.pod(), '{"ipv4": ["new"]}')))
    assert given.pool == "new"


async def test_a_reservation_that_cannot_be_read_does_not_keep_pods_from_their_addresses(world: MemoryWorld) -> None:
    nothing = reserving_nothing({"metadata": {"name": "odd", "uid": "odd", "generation": 3}})
    world.reservations.live = world.reservations.seen = [nothing]
    assert await world.allocator().allocate(values.request(arrives(world, values.pod())))


async def test_a_pod_from_a_kubelets_own_files_is_known_by_its_mirrors_annotation(world: MemoryWorld) -> None:
    mirror = values.pod("static-n1", "api-uid")
    annotations = {"kubernetes.io/config.mirror": "hash", "ipam.spidernet.io/ippool": '{"ipv4": ["a"]}'}
    mirror = replace(mirror, annotations=annotations)
    world.view.put(mirror)
    allocator = world.allocator()
    (given,) = await allocator.allocate(values.request(replace(mirror, uid="hash")))
    record = world.ledger.records[given.address]
    assert record.holder is not None
    assert record.holder.pod_uid == "api-uid"
    world.view.put(replace(mirror, phase="Succeeded"))
    interface = values.request(mirror).interface
    await allocator.release(DelRequest(namespace="shop", pod="static-n1", pod_uid="hash", interface=interface))
    assert states(world) == {str(given.address): State.COOLING}


async def test_a_retained_address_of_a_family_that_is_switched_off_stays_where_it_is(world: MemoryWorld) -> None:
    left = values.record("fd00::1", values.stateful_pod(uid="old"), State.RETAINED, pool="six")
    world.ledger.records[left.address] = left
    world.pools.put(values.pool("a", "10.20.0.10"), values.pool("six", "fd00::1", "fd00::/64"))
    pod = arrives(world, values.stateful_pod(uid="new"), '{"ipv4": ["a"], "ipv6": ["six"]}')
    (given,) = await world.allocator(versions=frozenset({4})).allocate(values.request(pod))
    assert str(given.address) == "10.20.0.10"
    assert world.ledger.records[left.address] == left


async def test_a_dels_second_try_takes_the_endpoint_away_that_the_first_one_left(world: MemoryWorld) -> None:
    allocator = world.allocator()
    pod = arrives(world, values.pod())
    await allocator.allocate(values.request(pod))
    request = ends(world, pod)
    remove = world.endpoints.remove

    async def unavailable(namespace: str, name: str, pod_uid: str) -> None:
        world.endpoints.remove = remove  # type: ignore[method-assign]
        raise errors.Unavailable("no answer")

    world.endpoints.remove = unavailable  # type: ignore[method-assign]
    with pytest.raises(errors.Unavailable):
        await allocator.release(request)
    await allocator.release(request)
    assert world.endpoints.written == {}


async def test_a_pod_of_another_node_is_refused_by_name(world: MemoryWorld) -> None:
    pod = arrives(world, values.pod(node="n2"))
    with pytest.raises(errors.Invalid, match="bound to node n2, this agent serves n1"):
        await world.allocator("n1").allocate(values.request(pod))


async def test_of_many_exhausted_pools_few_are_spelled_out_and_the_advice_still_fits_an_event(
    world: MemoryWorld,
) -> None:
    names = [f"full-{number:02}" for number in range(40)]
    for number, name in enumerate(names):
        world.pools.put(values.pool(name, f"10.20.1.{number}", "10.20.0.0/16"))
        await world.allocator().allocate(
            values.request(arrives(world, values.pod(name, name), json.dumps({"ipv4": [name]})))
        )
    pod = arrives(world, values.pod(), json.dumps({"ipv4": ["full-*", "nowhere"]}))
    with pytest.raises(errors.Exhausted) as refusal:
        await world.allocator().allocate(values.request(pod))
    told = str(refusal.value)
    assert "full-09: no free address, 1 usable (1 Held); 30 more pools have no free address; nowhere: there is" in told
    assert len(told) < 1024
