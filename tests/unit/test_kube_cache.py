import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from allocator.kube.cache import LOST_S, Cache, Change
from allocator.kube.client import KubeClient
from allocator.kube.resources import NODES, Object
from tests.unit.fake_clock import FakeClock
from tests.unit.scripted_server import (
    ScriptedServer,
    Stream,
    connected,
    cuts,
    eventually,
    refuses,
    says,
    says_text,
)


class Highest:
    """No luck in the jitter: each delay is its bound."""

    def uniform(self, a: float, b: float, /) -> float:
        return max(a, b)


class World:
    def __init__(self, server: ScriptedServer, client: KubeClient) -> None:
        self.server = server
        self.client = client
        self.clock = FakeClock()
        self.changes: list[Change] = []

    def cache(self, **more: Any) -> Cache:
        return Cache(self.client, NODES, clock=self.clock, on_change=self.changes.append, rng=Highest(), **more)

    def told(self) -> list[tuple[str, str | None]]:
        return [(change.kind, version(change.new if change.new is not None else change.old)) for change in self.changes]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with connected(tmp_path) as (server, client):
        yield World(server, client)


@asynccontextmanager
async def running(cache: Cache) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(cache.run())
        yield
        task.cancel()


def node(version: str, *, name: str = "a", uid: str = "u1") -> Object:
    return {"kind": "Node", "apiVersion": "v1", "metadata": {"name": name, "uid": uid, "resourceVersion": version}}


def version(obj: Object | None) -> str | None:
    return None if obj is None else str(obj["metadata"]["resourceVersion"])


def page(*items: Object, version: str = "10", continue_: str = "") -> Object:
    return {
        "kind": "NodeList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": version, "continue": continue_},
        "items": list(items),
    }


def bookmark(version: str) -> Object:
    return {"kind": "Node", "metadata": {"resourceVersion": version}}


async def test_it_lists_in_pages_and_watches_from_there(world: World) -> None:
    stream = Stream()
    world.server.then(says(page(node("1"), continue_="x")), says(page(node("2", name="b", uid="u2"))), stream)
    cache = world.cache(label_selector="app=web", field_selector="metadata.name!=c")
    assert not cache.synced
    async with running(cache):
        await cache.wait_synced()
        stream.event("MODIFIED", node("11"))
        await eventually(lambda: version(cache.get("a")) == "11")
    assert len(cache.items()) == 2
    watch = world.server.asked[2].query
    assert watch["resourceVersion"] == "10"
    assert (watch["labelSelector"], watch["fieldSelector"]) == ("app=web", "metadata.name!=c")
    assert world.told() == [("added", "1"), ("added", "2"), ("modified", "11")]


async def test_a_watch_that_ended_goes_on_from_the_last_bookmark(world: World) -> None:
    first, second = Stream(), Stream()
    world.server.then(says(page()), first, second)
    async with running(world.cache()):
        first.event("ADDED", node("11"))
        first.event("BOOKMARK", bookmark("50"))
        first.end()
        await eventually(second.opened.is_set)
    assert world.server.asked[2].query["resourceVersion"] == "50"
    assert world.clock.slept == []


async def test_an_expired_watch_lists_again_and_keeps_showing_meanwhile(world: World) -> None:
    first, second = Stream(), Stream()
    world.server.then(says(page(node("1"))), first, says(page(node("20"), version="20")), second)
    cache = world.cache()
    async with running(cache):
        await cache.wait_synced()
        first.event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
        await eventually(lambda: world.clock.sleepers == 1)
        assert version(cache.get("a")) == "1"
        world.clock.advance(1)
        await eventually(second.opened.is_set)
        assert version(cache.get("a")) == "20"
    assert world.server.asked[3].query["resourceVersion"] == "20"
    assert world.told() == [("added", "1"), ("modified", "20")]


async def test_who_was_out_of_contact_for_long_lists_again(world: World) -> None:
    cut, again = Stream(), Stream()
    world.server.then(says(page(node("1"))), cut, says(page(node("20"), version="20")), again)
    cache = world.cache(idle_s=0.5)
    async with running(cache):
        await eventually(cut.opened.is_set)
        world.clock.advance(LOST_S + 1)
        await eventually(lambda: world.clock.sleepers == 1)
        world.clock.advance(1)
        await eventually(again.opened.is_set)
        assert version(cache.get("a")) == "20"
    assert "watch" not in world.server.asked[2].query


async def test_what_vanished_while_nobody_watched_is_told_as_deleted(world: World) -> None:
    world.server.then(says(page(node("1"))), refuses(410, "Expired"), says(page(version="30")), Stream())
    async with running(world.cache()):
        await eventually(lambda: world.clock.sleepers == 1)
        world.clock.advance(1)
        await eventually(lambda: len(world.server.asked) == 4)
    assert world.told() == [("added", "1"), ("deleted", "1")]


async def test_a_cut_connection_resumes_where_it_was_without_a_list(world: World) -> None:
    first, second = Stream(), Stream()
    world.server.then(says(page()), first, second)
    cache = world.cache()
    async with running(cache):
        first.event("ADDED", node("11"))
        first.write(b'{"type":"MODIFIED","object":{"meta')
        first.end()
        await eventually(lambda: world.clock.sleepers == 1)
        world.clock.advance(1)
        await eventually(second.opened.is_set)
        second.event("MODIFIED", node("12"))
        await eventually(lambda: version(cache.get("a")) == "12")
    assert world.server.asked[2].query["resourceVersion"] == "11"


async def test_failures_wait_longer_each_time_up_to_half_a_minute(world: World) -> None:
    world.server.then(*[refuses(503, "ServiceUnavailable") for _ in range(8)])
    async with running(world.cache()):
        for number in range(1, 9):
            await eventually(lambda number=number: len(world.clock.slept) == number)  # type: ignore[misc]
            world.clock.advance(30)
    assert world.clock.slept == [0.5, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(
    "fault",
    [
        refuses(403, "Forbidden"),
        refuses(404, "NotFound"),
        refuses(500, "InternalError"),
        says_text("<html>", status=502, content_type="text/html"),
        says_text('{"kind": "NodeLi', content_type="application/json"),
        cuts(b'{"kind": "NodeLi', announced=500),
    ],
    ids=["forbidden", "no such CRD", "500", "proxy page", "truncated", "cut"],
)
async def test_whatever_a_list_answers_is_waited_out(world: World, fault: Any) -> None:
    world.server.then(fault, says(page(node("1"))), Stream())
    cache = world.cache()
    async with running(cache):
        await eventually(lambda: world.clock.sleepers == 1)
        assert not cache.synced
        world.clock.advance(1)
        await cache.wait_synced()


async def test_the_wait_that_the_server_asks_for_is_kept_and_jittered(world: World) -> None:
    world.server.then(refuses(429, "TooManyRequests", retry_after=7))
    async with running(world.cache()):
        await eventually(lambda: world.clock.sleepers == 1)
    assert world.clock.slept == [7.5]


async def test_an_event_starts_the_back_off_over(world: World) -> None:
    stream = Stream()
    world.server.then(refuses(503, "x"), refuses(503, "x"), says(page()), stream, refuses(503, "x"))
    async with running(world.cache()):
        for number in (1, 2):
            await eventually(lambda number=number: len(world.clock.slept) == number)  # type: ignore[misc]
            world.clock.advance(30)
        stream.event("ADDED", node("11"))
        stream.end()
        await eventually(lambda: len(world.clock.slept) == 3)
    assert world.clock.slept == [0.5, 1, 0.5]


async def test_a_list_alone_does_not_start_the_back_off_over(world: World) -> None:
    """Else a server that lists but always expires its watches would be listed at full speed."""
    for _ in range(3):
        world.server.then(says(page()), refuses(410, "Expired"))
    async with running(world.cache()):
        for number in (1, 2, 3):
            await eventually(lambda number=number: len(world.clock.slept) == number)  # type: ignore[misc]
            world.clock.advance(30)
    assert world.clock.slept == [0.5, 1, 2]


async def test_watches_that_end_at_once_with_nothing_to_tell_are_slowed_down(world: World) -> None:
    world.server.then(says(page()), says_text(""), says_text(""))
    async with running(world.cache()):
        for number in (1, 2):
            await eventually(lambda number=number: len(world.clock.slept) == number)  # type: ignore[misc]
            world.clock.advance(1)
    assert world.clock.slept == [0.5, 1]


async def test_a_half_open_connection_is_noticed_and_replaced(world: World) -> None:
    second = Stream()
    world.server.then(says(page()), Stream(), second)
    async with running(world.cache(idle_s=0.2)):
        await eventually(lambda: world.clock.sleepers == 1)
        world.clock.advance(1)
        await eventually(second.opened.is_set)


async def test_staleness_counts_from_the_last_proof_of_contact(world: World) -> None:
    first, second = Stream(), Stream()
    world.server.then(says(page()), first, second)
    cache = world.cache()
    assert cache.staleness_s() == math.inf
    async with running(cache):
        await eventually(first.opened.is_set)
        world.clock.advance(100)
        assert cache.staleness_s() == 100
        first.event("BOOKMARK", bookmark("11"))
        await eventually(lambda: cache.staleness_s() == 0)
        world.clock.advance(7)
        first.event("ADDED", node("12"))
        await eventually(lambda: cache.staleness_s() == 0)
        world.clock.advance(9)
        first.end()
        await eventually(lambda: cache.staleness_s() == 0)


async def test_failures_are_no_proof_of_contact(world: World) -> None:
    world.server.then(says(page()), refuses(503, "ServiceUnavailable"))
    cache = world.cache()
    async with running(cache):
        await eventually(lambda: world.clock.sleepers == 1)
        world.clock.advance(0.25)
        assert cache.staleness_s() == 0.25
        assert cache.synced


async def test_a_bug_in_on_change_ends_run(world: World) -> None:
    world.server.then(says(page(node("1"))))

    def broken(_change: Change) -> None:
        raise ZeroDivisionError

    cache = Cache(world.client, NODES, clock=world.clock, on_change=broken)
    with pytest.raises(ZeroDivisionError):
        await cache.run()


async def test_a_note_holds_against_late_events_and_a_bookmark_ends_the_doubt(world: World) -> None:
    stream = Stream()
    world.server.then(says(page(node("1"))), stream)
    cache = world.cache()
    async with running(cache):
        await cache.wait_synced()
        cache.note(node("5"))
        stream.event("MODIFIED", node("3"))
        stream.event("BOOKMARK", bookmark("4"))
        stream.event("ADDED", node("4", name="b", uid="u2"))
        await eventually(lambda: cache.get("b") is not None)
        assert version(cache.get("a")) == "5"
        world.clock.advance(31)
        stream.event("BOOKMARK", bookmark("9"))
        await eventually(lambda: version(cache.get("a")) == "3")


async def test_a_noted_deletion_is_gone_at_once(world: World) -> None:
    world.server.then(says(page(node("1"))), Stream())
    cache = world.cache()
    async with running(cache):
        await cache.wait_synced()
        cache.note_deleted("a", "u1")
    assert cache.get("a") is None
    assert world.told() == [("added", "1"), ("deleted", "1")]


async def test_a_cache_of_metadata_keeps_nothing_else_of_a_note(world: World) -> None:
    cache = world.cache(metadata_only=True)
    cache.note({**node("1"), "spec": {"podCIDR": "10.0.0.0/24"}})
    assert cache.get("a") == node("1")


async def test_objects_are_found_by_namespace_and_name(world: World) -> None:
    cache = world.cache()
    web = node("1")
    web["metadata"]["namespace"] = "default"
    cache.note(web)
    assert cache.get("a", "default") == web
    assert cache.get("a") is None
