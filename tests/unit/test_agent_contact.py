"""Whether the API server is within reach, told from a quiet watch and a question now and then."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from agent.contact import ASK_EVERY_S, SILENCE_S, STALE_S, Contact
from allocator.kube.cache import Cache
from allocator.kube.resources import NODES
from tests.unit.fake_clock import FakeClock
from tests.unit.scripted_server import ScriptedServer, Stream, connected, eventually, refuses, says

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "resourceVersion": "5"}}
LIST = {"apiVersion": "v1", "kind": "NodeList", "metadata": {"resourceVersion": "5"}, "items": []}


@dataclass(frozen=True, slots=True)
class Quiet:
    """An agent whose only watch is open, and tells nothing unless a test does."""

    server: ScriptedServer
    clock: FakeClock
    cache: Cache
    contact: Contact
    watch: Stream

    async def turn(self) -> None:
        """Time for one more question, and its answer."""
        self.clock.advance(ASK_EVERY_S)
        await eventually(lambda: self.clock.sleepers == 1)

    @property
    def questions(self) -> int:
        return sum(asked.path == "/api/v1/nodes/n1" for asked in self.server.asked)


@pytest.fixture
async def quiet(tmp_path: Path) -> AsyncIterator[Quiet]:
    async with _quiet(tmp_path) as made:
        yield made


@asynccontextmanager
async def _quiet(directory: Path) -> AsyncIterator[Quiet]:
    async with connected(directory) as (server, client):
        clock, watch = FakeClock(), Stream()
        server.then(says(LIST), watch)
        cache = Cache(client, NODES, clock=clock)
        contact = Contact(client, "n1", [cache], clock)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(cache.run()), group.create_task(contact.run())]
            await watch.opened.wait()
            yield Quiet(server, clock, cache, contact, watch)
            for task in tasks:
                task.cancel()


async def test_a_quiet_watch_is_no_outage_while_the_api_server_answers(quiet: Quiet) -> None:
    quiet.server.otherwise = says(NODE)
    for _ in range(int(SILENCE_S / ASK_EVERY_S) + 2):
        await quiet.turn()
        assert quiet.contact.problem() is None
    assert quiet.questions > 2


async def test_an_api_server_that_shows_no_such_node_does_answer(quiet: Quiet) -> None:
    quiet.server.otherwise = refuses(404, "NotFound")
    for _ in range(int(SILENCE_S / ASK_EVERY_S) + 2):
        await quiet.turn()
    assert quiet.contact.problem() is None


async def test_silence_is_told_with_its_reason_and_is_over_with_the_first_answer(quiet: Quiet) -> None:
    quiet.server.otherwise = refuses(503, "ServiceUnavailable", "etcd is away")
    for _ in range(int(SILENCE_S / ASK_EVERY_S)):
        await quiet.turn()
    assert quiet.contact.problem() is None
    await quiet.turn()
    problem = quiet.contact.problem()
    assert problem is not None
    assert problem.startswith("the API server has not answered for 40 s")
    assert "etcd is away" in problem
    quiet.server.otherwise = says(NODE)
    await quiet.turn()
    assert quiet.contact.problem() is None


async def test_nothing_is_asked_while_a_watch_tells_something(quiet: Quiet) -> None:
    quiet.server.otherwise = says(NODE)
    for version in range(6, 10):
        quiet.clock.advance(ASK_EVERY_S / 2)
        before = quiet.contact.problem()
        quiet.watch.event("ADDED", {**NODE, "metadata": {"name": f"n{version}", "resourceVersion": str(version)}})
        await eventually(lambda known=version: len(quiet.cache.items()) == known - 5)  # type: ignore[misc]
        quiet.clock.advance(ASK_EVERY_S / 2)
        await eventually(lambda: quiet.clock.sleepers == 1)
        assert before is None
    assert quiet.questions == 0


async def test_a_watch_that_tells_nothing_for_too_long_is_a_problem_though_the_api_server_answers(quiet: Quiet) -> None:
    quiet.server.otherwise = says(NODE)
    for _ in range(int(STALE_S / ASK_EVERY_S) + 1):
        await quiet.turn()
    problem = quiet.contact.problem()
    assert problem is not None
    assert problem.startswith("a watch of the API server has told nothing")
