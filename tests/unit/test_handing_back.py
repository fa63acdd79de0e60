"""An ADD that hands back what it got: in which order, and what stays when somebody else writes in between."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from allocator.domain import errors
from allocator.domain.attachments import Sandbox
from allocator.domain.record import State
from tests.unit import values
from tests.unit.memory import MemoryWorld

SANDBOX = Sandbox(namespace="shop", pod="cart-1", pod_uid="u1", container_id="c1")
POD = values.pod(annotations={"ipam.spidernet.io/ippool": '{"ipv4": ["four"], "ipv6": ["six"]}'})


@pytest.fixture
async def world() -> MemoryWorld:
    """A pod whose eth0 and net1 have an address of each family."""
    made = MemoryWorld()
    made.pools.put(values.pool("four", "10.20.0.10-10.20.0.19"), values.pool("six", "fd00::10-fd00::19", "fd00::/64"))
    made.view.put(POD)
    for interface in ("eth0", "net1"):
        await made.allocator().allocate(values.request(POD, interface=interface))
    return made


def held(world: MemoryWorld) -> list[str]:
    records = world.ledger.records.values()
    return sorted(each.holder.interface for each in records if each.holder and each.state is State.HELD)


async def test_both_families_of_the_interface_are_freed_and_then_taken_off_the_endpoint(world: MemoryWorld) -> None:
    shown: list[set[str]] = []

    def look(_record: object) -> None:
        shown.append({each.interface for each in world.endpoints.written["shop", "cart-1"].assigned})

    world.ledger.after_write = look
    freed = await world.allocator().hand_back(SANDBOX, "net1")
    assert sorted(record.pool for record in freed) == ["four", "six"]
    assert {record.until for record in freed} == {world.clock.now() + timedelta(minutes=10)}
    assert held(world) == ["eth0", "eth0"]
    assert shown == [{"eth0", "net1"}] * 2
    assert {each.interface for each in world.endpoints.written["shop", "cart-1"].assigned} == {"eth0"}


async def test_a_write_by_somebody_else_in_between_means_looking_again(world: MemoryWorld) -> None:
    records = world.ledger.records
    meddled: list[str] = []

    def meddle(_record: object) -> None:
        if not meddled:
            for each in [each for each in records.values() if each.state is State.HELD]:
                records[each.address] = replace(each, resource_version="meddled")
                meddled.append(str(each.address))

    world.ledger.after_write = meddle
    await world.allocator().hand_back(SANDBOX, "net1")
    assert len(meddled) == 3
    assert held(world) == ["eth0", "eth0"]


async def test_a_pod_that_is_being_deleted_still_runs_and_loses_what_was_answered_only(world: MemoryWorld) -> None:
    world.view.put(replace(POD, deleted_at=values.NOON))
    await world.allocator().hand_back(SANDBOX, "net1")
    assert held(world) == ["eth0", "eth0"]


@pytest.mark.parametrize("pod", [None, values.pod(uid="u2"), replace(POD, phase="Failed")])
async def test_everything_of_the_sandbox_goes_once_its_pod_is_gone(world: MemoryWorld, pod: object) -> None:
    world.view.live.clear()
    world.view.seen.clear()
    if pod is not None:
        world.view.put(pod)  # type: ignore[arg-type]
    await world.allocator().hand_back(replace(SANDBOX, container_id="c9"), "")
    assert held(world) == ["eth0", "eth0", "net1", "net1"]
    await world.allocator().hand_back(SANDBOX, "")
    assert held(world) == []


async def test_nobody_is_guessed_when_the_sandbox_is_of_no_pod_that_is_there(world: MemoryWorld) -> None:
    world.view.live.clear()
    for nobody in (replace(SANDBOX, pod_uid=""), replace(SANDBOX, pod="", pod_uid=""), replace(SANDBOX, namespace="")):
        assert await world.allocator().hand_back(nobody, "eth0") == ()
    with pytest.raises(errors.Invalid, match="holds no address of this node"):
        await world.allocator().hand_back(replace(SANDBOX, pod_uid="u7"), "eth0")
    assert held(world) == ["eth0", "eth0", "net1", "net1"]
