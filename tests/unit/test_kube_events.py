import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from aiohttp import web

from allocator.kube.client import KubeClient
from allocator.kube.events import QUEUE_LIMIT, Recorder
from allocator.kube.resources import Object
from tests.unit.fake_clock import FakeClock
from tests.unit.scripted_server import Asked, ScriptedServer, connected, eventually, refuses, says

POD: Object = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web-0", "namespace": "default", "uid": "u1", "resourceVersion": "7"},
    "spec": {"nodeName": "n1"},
}
POOL: Object = {
    "apiVersion": "spiderpool.spidernet.io/v2beta1",
    "kind": "SpiderIPPool",
    "metadata": {"name": "v4", "uid": "u2"},
}


class Highest:
    def uniform(self, a: float, b: float, /) -> float:
        return max(a, b)


class World:
    def __init__(self, server: ScriptedServer, client: KubeClient) -> None:
        self.server = server
        self.clock = FakeClock()
        self.recorder = Recorder(client, component="spiderpool-agent", clock=self.clock, rng=Highest())
        server.otherwise = self._accept

    @staticmethod
    async def _accept(request: web.BaseRequest) -> web.StreamResponse:
        return await says({"kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": {}})(request)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.recorder.run())
            yield
            task.cancel()

    def emit(self, regarding: Object = POD, *, message: str = "pool v4 is exhausted", **more: Any) -> None:
        self.recorder.emit(
            regarding=regarding, reason="IPExhausted", message=message, action="Allocate", type="Warning", **more
        )

    async def asked(self, number: int) -> list[Asked]:
        await eventually(lambda: len(self.server.asked) >= number)
        assert len(self.server.asked) == number
        return self.server.asked


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with connected(tmp_path) as (server, client):
        yield World(server, client)


async def test_an_event_has_all_that_the_api_wants(world: World) -> None:
    world.emit(related=POOL)
    async with world.running():
        (asked,) = await world.asked(1)
    assert (asked.method, asked.path) == ("POST", "/apis/events.k8s.io/v1/namespaces/default/events")
    assert asked.body == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "web-0.64752550bf000", "namespace": "default"},
        "eventTime": "2026-01-01T12:00:00.000000Z",
        "type": "Warning",
        "reason": "IPExhausted",
        "note": "pool v4 is exhausted",
        "action": "Allocate",
        "reportingController": "spiderpool-agent",
        "reportingInstance": f"spiderpool-agent-{socket.gethostname()}",
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": "web-0",
            "namespace": "default",
            "uid": "u1",
            "resourceVersion": "7",
        },
        "related": {
            "apiVersion": "spiderpool.spidernet.io/v2beta1",
            "kind": "SpiderIPPool",
            "name": "v4",
            "uid": "u2",
        },
    }


async def test_events_of_cluster_scoped_objects_go_to_the_default_namespace(world: World) -> None:
    world.emit(POOL)
    async with world.running():
        (asked,) = await world.asked(1)
    assert asked.path == "/apis/events.k8s.io/v1/namespaces/default/events"


async def test_repeats_are_counted_on_the_first_event(world: World) -> None:
    async with world.running():
        world.emit()
        first = (await world.asked(1))[0]
        world.emit()
        world.emit()
        await eventually(lambda: world.clock.sleepers == 1)
        world.clock.advance(10)
        repeat = (await world.asked(2))[1]
        world.emit()
        await eventually(lambda: world.clock.sleepers == 1)
        world.clock.advance(60)
        again = (await world.asked(3))[2]
    name = first.body["metadata"]["name"]
    assert (repeat.method, repeat.path) == ("PATCH", f"/apis/events.k8s.io/v1/namespaces/default/events/{name}")
    assert repeat.body == {"series": {"count": 3, "lastObservedTime": "2026-01-01T12:00:00.000000Z"}}
    assert again.body["series"]["count"] == 4


async def test_repeats_before_the_first_write_make_one_event(world: World) -> None:
    for _ in range(500):
        world.emit()
    async with world.running():
        (asked,) = await world.asked(1)
    assert asked.body["series"]["count"] == 500


async def test_a_repeat_after_six_quiet_minutes_is_a_new_event(world: World) -> None:
    async with world.running():
        world.emit()
        world.emit(POOL)
        await world.asked(2)  # they go out one by one: the first has been answered
        world.clock.advance(361)
        world.emit()
        first, _, again = await world.asked(3)
    assert (first.method, again.method) == ("POST", "POST")
    assert first.body["metadata"]["name"] != again.body["metadata"]["name"]


@pytest.mark.parametrize(
    "other",
    [
        {"regarding": POOL},
        {"message": "pool v5 is exhausted"},
    ],
    ids=["object", "message"],
)
async def test_different_events_are_not_counted_together(world: World, other: Any) -> None:
    world.emit()
    world.emit(**other)
    async with world.running():
        found = await world.asked(2)
    assert [asked.method for asked in found] == ["POST", "POST"]
    assert found[0].body["metadata"]["name"] != found[1].body["metadata"]["name"]


async def test_a_series_whose_event_is_gone_begins_anew(world: World) -> None:
    async with world.running():
        world.emit()
        await world.asked(1)
        world.emit()
        world.server.then(refuses(404, "NotFound"))
        await eventually(lambda: world.clock.sleepers == 1)
        world.clock.advance(10)
        found = await world.asked(3)
    assert [asked.method for asked in found] == ["POST", "PATCH", "POST"]


async def test_a_full_queue_drops_the_oldest_and_counts(world: World) -> None:
    for number in range(QUEUE_LIMIT + 2):
        world.emit(message=f"number {number}")
    assert world.recorder.dropped == 2
    async with world.running():
        await eventually(lambda: len(world.server.asked) >= 1)
    assert world.server.asked[0].body["note"] == "number 2"


async def test_the_rate_is_bounded_after_a_burst(world: World) -> None:
    for number in range(60):
        world.emit(message=f"number {number}")
    async with world.running():
        await eventually(lambda: world.clock.sleepers == 1)
        await world.asked(50)
        world.clock.advance(1)
        await eventually(lambda: world.clock.sleepers == 1)
        await world.asked(55)


async def test_an_outage_is_waited_out_with_one_line_in_the_log(world: World) -> None:
    world.emit()
    world.server.then(refuses(503, "x"), refuses(429, "y"))
    with structlog.testing.capture_logs() as lines:
        async with world.running():
            for _ in range(2):
                await eventually(lambda: world.clock.sleepers == 1)
                world.clock.advance(30)
            await world.asked(3)
    assert world.clock.slept == [1, 2]
    assert [line["event"] for line in lines] == ["event_not_written"]
    assert world.recorder.dropped == 0


async def test_a_lost_answer_does_not_make_a_second_event(world: World) -> None:
    world.emit()
    world.server.then(refuses(500, "x"), refuses(409, "AlreadyExists"))
    async with world.running():
        await eventually(lambda: world.clock.sleepers == 1)
        world.clock.advance(30)
        first, second = await world.asked(2)
    assert first.body["metadata"] == second.body["metadata"]
    assert world.recorder.dropped == 0


async def test_a_repeat_during_an_outage_is_counted_with_what_waits(world: World) -> None:
    world.emit()
    world.server.then(refuses(503, "x"))
    async with world.running():
        await eventually(lambda: world.clock.sleepers == 1)
        world.emit()
        world.clock.advance(30)
        _, second = await world.asked(2)
    assert second.body["series"]["count"] == 2


async def test_a_repeat_while_a_write_fails_is_counted_with_it(world: World) -> None:
    world.emit()

    async def fail(request: web.BaseRequest) -> web.StreamResponse:
        world.emit()
        return await refuses(503, "x")(request)

    world.server.then(fail)
    async with world.running():
        await eventually(lambda: world.clock.sleepers == 1)
        world.clock.advance(30)
        _, second = await world.asked(2)
    assert second.body["series"]["count"] == 2


async def test_a_refused_event_is_dropped_and_the_next_is_written(world: World) -> None:
    world.emit()
    world.emit(POOL)
    world.server.then(refuses(403, "Forbidden", "namespace is being terminated"))
    async with world.running():
        await world.asked(2)
    assert world.recorder.dropped == 1
    assert world.clock.slept == []


async def test_an_object_without_a_name_is_dropped_and_nothing_is_raised(world: World) -> None:
    world.emit({"kind": "Pod"})
    assert world.recorder.dropped == 1


async def test_long_texts_are_cut_to_what_the_api_takes(world: World) -> None:
    pod = {**POD, "metadata": {**POD["metadata"], "name": "x" * 253}}
    world.emit(pod, message="y" * 5000)
    async with world.running():
        (asked,) = await world.asked(1)
    assert len(asked.body["note"]) == 1024
    assert asked.body["note"].endswith("y...")
    assert len(asked.body["metadata"]["name"]) == 253
