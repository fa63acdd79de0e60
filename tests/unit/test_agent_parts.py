"""Parts of the agent without a socket: the order of requests, stored intents, the deadline's form."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from agent import uplink
from agent.api import Detection
from agent.intents import Intents
from agent.order import Turns
from agent.recent import Recent
from agent.work import Work
from allocator.domain import errors
from allocator.domain.attachments import Sandbox
from tests.unit import values
from tests.unit.fake_clock import FakeClock
from tests.unit.memory import MemoryWorld

if TYPE_CHECKING:
    from pathlib import Path

    from agent.status import Status
    from allocator.domain.endpoint import Assigned
    from allocator.domain.request import DelRequest
    from allocator.kube.events import Recorder

BODY = {"containerID": "c", "ifName": "eth0", "podNamespace": "shop", "podName": "cart", "podUID": "u1"}


async def test_two_adds_of_one_pod_do_not_meet_when_only_one_of_them_knows_its_uid() -> None:
    """The second would take what the first has claimed, and not yet answered, for what a dead call left behind."""
    world = MemoryWorld()
    world.pools.put(values.pool("a", "10.20.0.10-10.20.0.12"))
    pod = values.pod(annotations={"ipam.spidernet.io/ippool": "a"})
    world.view.put(pod)
    work = Work(
        allocator=world.allocator(),
        world=world.ports(),
        recorder=cast("Recorder", None),
        status=cast("Status", None),
        turns=Turns(),
        recent=Recent(world.clock),
        detection=Detection(),
    )
    knows, does_not = values.request(pod), replace(values.request(pod), pod_uid="")
    answers: list[asyncio.Task[tuple[Assigned, ...]]] = []
    async with asyncio.TaskGroup() as group:

        def ask_again(_claimed: object) -> None:
            world.ledger.after_write = lambda _record: None
            answers.append(group.create_task(work.add(does_not, within_s=60)))

        world.ledger.after_write = ask_again
        answers.append(group.create_task(work.add(knows, within_s=60)))
    given = {each.address for answer in answers for each in answer.result()}
    assert len(answers) == 2
    assert given == set(world.ledger.records)


async def test_requests_of_one_pod_take_turns_in_the_order_of_arrival_and_others_do_not_wait() -> None:
    turns = Turns()
    said: list[str] = []
    go = asyncio.Event()

    async def request(pod: str, name: str, *, waits: bool) -> None:
        async with turns.of(pod):
            said.append(f"{name} begins")
            if waits:
                await go.wait()
            said.append(f"{name} ends")

    async with asyncio.TaskGroup() as group:
        for pod, name, waits in (("a", "a1", True), ("a", "a2", False), ("a", "a3", False), ("b", "b1", False)):
            group.create_task(request(pod, name, waits=waits))
        for _ in range(5):
            await asyncio.sleep(0)
        assert said == ["a1 begins", "b1 begins", "b1 ends"]
        go.set()
    assert said[3:] == ["a1 ends", "a2 begins", "a2 ends", "a3 begins", "a3 ends"]


async def test_a_turn_that_is_cancelled_while_it_waits_lets_the_others_pass() -> None:
    turns = Turns()
    go = asyncio.Event()
    passed: list[str] = []

    async def request(name: str) -> None:
        async with turns.of("a"):
            await go.wait()
            passed.append(name)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(request(name)) for name in ("one", "two", "three")]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        go.set()
    assert passed == ["one", "three"]


async def test_an_intent_that_fails_stays_and_the_others_are_carried_out(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.json").write_text(json.dumps({**BODY, "podName": name}))
    (tmp_path / "d.json").mkdir()
    (tmp_path / "torn.json").write_text('{"containerID')
    done: list[str] = []

    async def release(request: DelRequest) -> None:
        if request.pod == "a":
            raise errors.Unavailable("the API server is away")
        if request.pod == "b":
            raise ZeroDivisionError("a bug")
        done.append(request.pod)

    await Intents(tmp_path, release, FakeClock()).replay()
    assert done == ["c"]
    assert names(tmp_path) == ["a.json", "b.json", "d.json"]


def test_a_virtual_function_stands_on_the_interface_of_its_physical_function(tmp_path: Path) -> None:
    (tmp_path / "bus/pci/devices/0000:03:02.1/physfn/net/ens1f0").mkdir(parents=True)
    assert uplink.physical_function("0000:03:02.1", tmp_path) == "ens1f0"


def test_a_device_that_is_no_virtual_function_or_whose_physical_function_is_away_has_no_master(tmp_path: Path) -> None:
    devices = tmp_path / "bus/pci/devices"
    (devices / "0000:03:00.0").mkdir(parents=True)
    (devices / "0000:03:02.1/physfn/net").mkdir(parents=True)
    for bus, problem in (("0000:03:00.0", "no virtual function"), ("0000:03:02.1", "has no interface")):
        with pytest.raises(uplink.Unknown, match=problem):
            uplink.physical_function(bus, tmp_path)


def test_the_interface_answered_last_is_remembered_for_as_long_as_its_add_may_take() -> None:
    clock = FakeClock()
    recent = Recent(clock)
    pod = values.pod()
    sandbox = Sandbox(namespace="shop", pod="cart-1", pod_uid="u1", container_id="c1")
    assert recent.interface(sandbox) == ""
    for interface in ("eth0", "net1"):
        recent.note(values.request(pod, interface=interface))
        clock.advance(60)
    assert recent.interface(sandbox) == "net1"
    clock.advance(41)
    assert recent.interface(sandbox) == ""
    recent.note(values.request(pod, container="c2"))
    assert recent.interface(replace(sandbox, container_id="c2")) == "eth0"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
