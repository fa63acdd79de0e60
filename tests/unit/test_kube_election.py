import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from allocator.kube.client import KubeClient
from allocator.kube.election import Election
from allocator.kube.resources import Object
from allocator.kube.view import Change
from tests.unit.fake_clock import FakeClock
from tests.unit.scripted_server import (
    Answer,
    ScriptedServer,
    connected,
    eventually,
    hangs,
    refuses,
    says,
)

PATH = "/apis/coordination.k8s.io/v1/namespaces/system/leases/controller"


class LeaseStore:
    """The one lease, with the API server's compare-and-swap."""

    def __init__(self) -> None:
        self.lease: Object | None = None
        self.version = 0

    @property
    def spec(self) -> Object:
        assert self.lease is not None
        spec: Object = self.lease["spec"]
        return spec

    def put(self, lease: Object) -> Object:
        self.version += 1
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": str(self.version)}}
        return self.lease

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        payload = await request.read()
        return await self._answer(request.method, json.loads(payload) if payload else None)(request)

    def _answer(self, method: str, body: Any) -> Answer:
        if method == "POST":
            return refuses(409, "AlreadyExists") if self.lease else says(self.put(body), status=201)
        if self.lease is None:
            return refuses(404, "NotFound")
        if method == "GET":
            return says(self.lease)
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            return refuses(409, "Conflict")
        return says(self.put(body))


class Replica:
    """One controller: its own clock, and a lead() that a test can watch."""

    def __init__(self, client: KubeClient, identity: str, **settings: Any) -> None:
        self.clock = FakeClock()
        self.election = Election(
            client, namespace="system", name="controller", identity=identity, clock=self.clock, **settings
        )
        self.leading = False
        self.terms = 0
        self.finish = asyncio.Event()
        self.crashes = False

    async def lead(self) -> None:
        self.leading = True
        self.terms += 1
        try:
            if self.crashes:
                raise ZeroDivisionError
            await self.finish.wait()
        finally:
            self.leading = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.election.run(self.lead))
            yield task
            task.cancel()

    async def tick(self, seconds: float) -> None:
        """Let time pass once everybody of this replica sleeps: a leader in its renewal and its deadline."""
        await eventually(lambda: self.clock.sleepers == (2 if self.leading else 1))
        self.clock.advance(seconds)


class World:
    def __init__(self, server: ScriptedServer, client: KubeClient) -> None:
        self.server = server
        self.client = client
        self.store = LeaseStore()
        server.otherwise = self.store

    def replica(self, identity: str, **settings: Any) -> Replica:
        return Replica(self.client, identity, **settings)

    def writes(self) -> int:
        return sum(asked.method in ("POST", "PUT") for asked in self.server.asked)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with connected(tmp_path) as (server, client):
        yield World(server, client)


async def renewed(world: World, replica: Replica, *, by: float = 2) -> None:
    """One renewal: the time passes and the write arrives."""
    before = world.store.version
    await replica.tick(by)
    await eventually(lambda: world.store.version > before)
    await eventually(lambda: replica.clock.sleepers == 2)


async def test_the_first_candidate_makes_the_lease_and_leads(world: World) -> None:
    one = world.replica("one")
    assert not one.election.is_valid()
    async with one.running():
        await eventually(lambda: one.leading)
        assert one.election.is_valid()
        assert one.election.holder == one.election.identity
        spec = world.store.spec
        assert spec["holderIdentity"] == one.election.identity
        assert one.election.identity.startswith("one_")
        assert (spec["leaseDurationSeconds"], spec["leaseTransitions"]) == (15, 0)
        assert re.fullmatch(r"2026-01-01T12:00:00\.000000Z", spec["renewTime"])
        assert spec["acquireTime"] == spec["renewTime"]


async def test_a_leader_renews_by_one_write_without_a_read(world: World) -> None:
    one = world.replica("one")
    async with one.running():
        await eventually(lambda: one.leading)
        asked = len(world.server.asked)
        for _ in range(10):
            await renewed(world, one)
        assert one.leading
        assert one.election.is_valid()
        assert {found.method for found in world.server.asked[asked:]} == {"PUT"}
        assert world.store.spec["renewTime"] == "2026-01-01T12:00:20.000000Z"
        assert world.store.spec["acquireTime"] == "2026-01-01T12:00:00.000000Z"
    assert one.terms == 1


async def test_a_second_candidate_waits_while_the_lease_is_renewed(world: World) -> None:
    one, two = world.replica("one"), world.replica("two")
    async with one.running():
        await eventually(lambda: one.leading)
        async with two.running():
            for _ in range(6):
                await renewed(world, one, by=4)
                await two.tick(4)
                await eventually(lambda: two.clock.sleepers == 1)
            assert not two.leading
            assert two.election.holder == one.election.identity


async def test_a_lease_that_stands_still_is_taken_over_after_its_duration(world: World) -> None:
    """However wrong the wall clock of its holder is: the time stands written in the year 2050."""
    world.store.put(
        {
            "metadata": {"name": "controller", "namespace": "system", "labels": {"kept": "yes"}},
            "spec": {
                "holderIdentity": "dead",
                "leaseDurationSeconds": 15,
                "renewTime": "2050-01-01T00:00:00.000000Z",
                "acquireTime": "2050-01-01T00:00:00.000000Z",
                "leaseTransitions": 4,
                "strategy": "OldestEmulationVersion",
            },
        }
    )
    one = world.replica("one")
    async with one.running():
        await eventually(lambda: one.clock.sleepers == 1)
        one.clock.advance(14.9)
        await eventually(lambda: one.clock.sleepers == 1)
        assert not one.leading
        one.clock.advance(4.5)
        await eventually(lambda: one.leading)
        assert world.store.spec["leaseTransitions"] == 5
        assert world.store.spec["acquireTime"] == "2026-01-01T12:00:19.400000Z"
        assert world.store.spec["strategy"] == "OldestEmulationVersion"
        assert world.store.lease is not None
        assert world.store.lease["metadata"]["labels"] == {"kept": "yes"}


async def test_the_lease_is_handed_over_on_cancellation(world: World) -> None:
    one, two = world.replica("one"), world.replica("two")
    async with one.running():
        await eventually(lambda: one.leading)
    assert not one.leading
    assert not one.election.is_valid()
    assert world.store.spec["holderIdentity"] == ""
    assert world.store.spec["leaseDurationSeconds"] == 1
    async with two.running():
        await eventually(lambda: two.leading)
        assert two.clock.monotonic() == 0
        assert world.store.spec["leaseTransitions"] == 1
        assert world.store.spec["leaseDurationSeconds"] == 15


async def test_of_two_candidates_at_once_one_leads(world: World) -> None:
    one, two = world.replica("one"), world.replica("two")
    async with one.running(), two.running():
        await eventually(lambda: one.leading or two.leading)
        await eventually(lambda: (one if two.leading else two).clock.sleepers == 1)
        assert one.leading != two.leading


async def test_a_lead_that_returns_ends_run_and_releases(world: World) -> None:
    one = world.replica("one")
    async with one.running() as task:
        await eventually(lambda: one.leading)
        one.finish.set()
        await eventually(task.done)
    assert not task.cancelled()
    assert world.store.spec["holderIdentity"] == ""


async def test_a_lead_that_raises_comes_out_as_it_was_after_releasing(world: World) -> None:
    one = world.replica("one")
    one.crashes = True
    with pytest.raises(ZeroDivisionError):
        await one.election.run(one.lead)
    assert world.store.spec["holderIdentity"] == ""


@pytest.mark.parametrize("found", [pytest.param("thief", id="in other hands"), pytest.param(None, id="deleted")])
async def test_a_term_ends_at_once_when_a_watch_shows_the_lease(world: World, found: str | None) -> None:
    one = world.replica("one")
    async with one.running():
        await eventually(lambda: one.leading)
        held = world.store.lease
        assert held is not None
        one.election.hear(Change("modified", held, held))
        assert one.election.is_valid()
        stolen = None if found is None else world.store.put({**held, "spec": {**held["spec"], "holderIdentity": found}})
        one.election.hear(Change("modified", held, stolen))
        assert not one.election.is_valid()
        # Of one that was deleted the next term begins right away.
        await eventually(lambda: (one.leading, one.terms) != (True, 1))


async def test_a_stolen_lease_ends_the_term_at_once_and_the_lease_is_tried_for_again(world: World) -> None:
    one = world.replica("one")
    async with one.running():
        await eventually(lambda: one.leading)
        assert world.store.lease is not None
        thief = {**world.store.spec, "holderIdentity": "thief"}
        world.store.put({**world.store.lease, "spec": thief})
        await one.tick(2)  # the write conflicts
        await one.tick(2)  # the read tells why
        await eventually(lambda: not one.leading)
        assert not one.election.is_valid()
        assert one.election.holder == "thief"
        assert one.clock.monotonic() == 4
        await one.tick(16)
        await eventually(lambda: one.terms == 2)


async def test_a_touched_lease_that_is_still_ours_is_kept(world: World) -> None:
    one = world.replica("one")
    async with one.running():
        await eventually(lambda: one.leading)
        assert world.store.lease is not None
        world.store.put({**world.store.lease, "metadata": {**world.store.lease["metadata"], "labels": {"a": "b"}}})
        await one.tick(2)
        await renewed(world, one)
        assert one.leading
        assert one.election.is_valid()
    assert one.terms == 1


async def test_failed_renewals_end_the_term_at_the_deadline_and_not_before(world: World) -> None:
    one = world.replica("one")
    async with one.running():
        await eventually(lambda: one.leading)
        world.server.otherwise = refuses(503, "ServiceUnavailable")
        for _ in range(4):
            await one.tick(2)
        await eventually(lambda: one.clock.sleepers == 2)
        assert one.leading
        assert one.election.is_valid()
        one.clock.advance(2)
        assert not one.election.is_valid()
        await eventually(lambda: not one.leading)


async def test_a_renewal_that_hangs_does_not_hold_up_the_deadline(world: World) -> None:
    one = world.replica("one")
    async with one.running():
        await eventually(lambda: one.leading)
        before = len(world.server.asked)
        world.server.otherwise = hangs(world.server)
        await eventually(lambda: one.clock.sleepers == 2)
        one.clock.advance(2)
        await eventually(lambda: len(world.server.asked) > before)
        one.clock.advance(8)
        await eventually(lambda: not one.leading)
        world.server.stopping.set()


async def test_a_renewal_counts_from_when_it_was_asked_for(world: World) -> None:
    """The answer took six seconds: of the ten that the leader has, four are left."""
    one = world.replica("one")
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(request: web.BaseRequest) -> web.StreamResponse:
        arrived.set()
        await go_on.wait()
        return await world.store(request)

    async with one.running():
        await eventually(lambda: one.leading)
        await eventually(lambda: one.clock.sleepers == 2)
        world.server.then(slowly)
        one.clock.advance(2)
        await arrived.wait()
        one.clock.advance(6)
        go_on.set()
        await eventually(lambda: one.clock.sleepers == 2)
        one.clock.advance(3.9)
        assert one.election.is_valid()
        one.clock.advance(0.2)
        assert not one.election.is_valid()


async def test_a_paused_leader_that_resumes_is_not_valid(world: World) -> None:
    one = world.replica("one")
    async with one.running():
        await eventually(lambda: one.leading)
        one.clock.advance(60)
        assert one.leading  # it has not had a chance to notice
        assert not one.election.is_valid()


async def test_a_deleted_lease_ends_the_term(world: World) -> None:
    one = world.replica("one")
    async with one.running():
        await eventually(lambda: one.leading)
        world.store.lease = None
        await one.tick(2)
        await one.tick(2)
        await eventually(lambda: one.terms == 2)
        assert world.store.spec["holderIdentity"] == one.election.identity


async def test_the_cleanup_of_lead_is_not_interrupted_and_ends_before_the_next_term(world: World) -> None:
    one = world.replica("one")
    order: list[str] = []

    async def lead() -> None:
        order.append("begin")
        try:
            await asyncio.Event().wait()
        finally:
            await one.clock.sleep(60)
            order.append("clean")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(one.election.run(lead))
        await eventually(lambda: order == ["begin"])
        await eventually(lambda: one.clock.sleepers == 2)
        world.server.otherwise = refuses(503, "ServiceUnavailable")
        one.clock.advance(10)
        await eventually(lambda: one.clock.sleepers == 1)
        world.server.otherwise = world.store
        one.clock.advance(60)
        await eventually(lambda: order == ["begin", "clean", "begin"])
        task.cancel()
        await eventually(lambda: one.clock.sleepers == 1)
        one.clock.advance(60)


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await eventually(task.done)


async def test_an_acquisition_cancelled_after_its_write_landed_is_released(world: World) -> None:
    one = world.replica("one")
    landed = asyncio.Event()

    async def land_and_hang(request: web.BaseRequest) -> web.StreamResponse:
        await world.store(request)
        landed.set()
        return await hangs(world.server)(request)

    world.server.then(world.store, land_and_hang)  # the read, the create
    async with one.running() as task:
        await landed.wait()
        assert world.store.spec["holderIdentity"] == one.election.identity
        await cancelled(task)
        assert world.store.spec["holderIdentity"] == ""
        world.server.stopping.set()


async def test_a_release_that_fails_does_not_hold_up_or_hide_the_end(world: World) -> None:
    one = world.replica("one")
    async with one.running() as task:
        await eventually(lambda: one.leading)
        world.server.otherwise = refuses(503, "ServiceUnavailable")
        await cancelled(task)
    assert task.cancelled()


async def test_a_candidate_that_never_led_releases_nothing(world: World) -> None:
    one, two = world.replica("one"), world.replica("two")
    async with one.running():
        await eventually(lambda: one.leading)
        writes = world.writes()
        async with two.running():
            await eventually(lambda: two.clock.sleepers == 1)
        assert world.writes() == writes


async def test_two_replicas_of_one_name_are_told_apart(world: World) -> None:
    one, twin = world.replica("same"), world.replica("same")
    async with one.running():
        await eventually(lambda: one.leading)
        async with twin.running():
            await eventually(lambda: twin.clock.sleepers == 1)
            assert not twin.leading


@pytest.mark.parametrize("settings", [(10, 10, 2), (15, 2, 2), (15, 10, 0)])
async def test_periods_in_a_wrong_order_are_refused(world: World, settings: tuple[float, float, float]) -> None:
    duration, deadline, period = settings
    with pytest.raises(ValueError, match="retry period < renew deadline < lease duration"):
        world.replica("one", lease_duration_s=duration, renew_deadline_s=deadline, retry_period_s=period)
