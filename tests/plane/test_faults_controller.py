"""A leader among errors, empty lists, nodes that go and clocks that jump (FAULTS.md, F21, F26, F32, F36 to F38)."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from allocator.kube.client import KubeClient
from allocator.kube.resources import NODES, PODS
from devcluster.waiting import until
from tests.plane.agents import make_node, make_pod
from tests.plane.between import between, controller_behind
from tests.plane.controllers import NOBODY, find, make_pool, make_record, running_controller, state_of, until_state
from tests.plane.turns import GRACE_S, leading, reclaim, two_sightings
from tests.unit.fake_clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web

    from devcluster.plane import Plane
    from tests.plane.between import Call

HOUR_S = 3600.0
SINCE_1970_S = 56 * 365.25 * 24 * HOUR_S


@pytest.fixture(autouse=True)
async def pool(kube: KubeClient) -> str:
    await make_node(kube, "node-1")
    await make_pool(kube, "faults", "10.30.0.1-10.30.0.250")
    return "faults"


class SteppedClock(FakeClock):
    """One whose wall clock is `off_s` from that of the API server. Monotonic time knows nothing of that."""

    def __init__(self) -> None:
        super().__init__()
        self.off_s = 0.0
        self._began = datetime.now(UTC)

    def now(self) -> datetime:
        return self._began + timedelta(seconds=self.monotonic() + self.off_s)


@pytest.mark.parametrize(
    "off_s",
    [
        pytest.param(HOUR_S, id="an hour ahead"),
        pytest.param(-HOUR_S, id="an hour back"),
        pytest.param(-SINCE_1970_S, id="back to 1970"),
    ],
)
async def test_a_step_of_the_clock_frees_nobody_who_lives_and_keeps_nobody_who_is_gone(
    kube: KubeClient, namespace: str, pool: str, off_s: float
) -> None:
    pods = [await make_pod(kube, namespace, name, "node-1") for name in ("runs", "ends")]
    for index, pod in enumerate(pods, start=1):
        meta = pod["metadata"]
        await make_record(kube, f"10.30.0.{index}", pool, namespace, meta["name"], meta["uid"])
    await kube.delete(PODS, "ends", namespace=namespace, grace_period_s=1800)
    await make_record(kube, "10.30.0.3", pool, namespace, "ghost", NOBODY)
    clock = SteppedClock()
    async with leading(kube, clock, reclaim) as loop:
        await loop.turn()
        clock.off_s = off_s  # between the two sightings, which are a grace apart whatever the clock says
        clock.advance(GRACE_S - 0.1)
        await loop.turn()
        assert await state_of(kube, "10.30.0.3") == "Held"
        clock.advance(0.1)
        await loop.turn()
        await two_sightings(loop, clock)
    states = [await state_of(kube, f"10.30.0.{index}") for index in (1, 2, 3)]
    assert states == ["Held", "Held", "Cooling"]


async def test_of_two_that_both_believe_to_lead_one_writes(kube: KubeClient, namespace: str, pool: str) -> None:
    await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)
    # Of different minds about the time too: a second write would be seen.
    one, other = FakeClock(), FakeClock()
    other.advance(5)
    async with leading(kube, one, reclaim) as first, leading(kube, other, reclaim) as second:
        await first.turn()
        await second.turn()
        one.advance(GRACE_S)
        other.advance(GRACE_S)
        async with asyncio.TaskGroup() as group:
            group.create_task(first.turn())
            group.create_task(second.turn())
    record = await find(kube, "10.30.0.1")
    assert record is not None
    assert (record["spec"]["state"], record["metadata"]["generation"]) == ("Cooling", 2)


async def test_an_empty_list_of_pods_frees_no_address_of_a_pod_that_a_live_read_shows(
    plane: Plane, kube: KubeClient, namespace: str, pool: str, tmp_path: Path
) -> None:
    """A label or a right that somebody got wrong: the list says nothing and is no error."""
    for index in range(1, 61):
        pod = await make_pod(kube, namespace, f"p{index}", "node-1")
        await make_record(kube, f"10.30.0.{index}", pool, namespace, f"p{index}", pod["metadata"]["uid"])

    async def hides_the_list(call: Call) -> web.StreamResponse:
        return await (call.hidden() if call.of == "pods" and call.is_list else call.passes())

    clock = FakeClock()
    async with between(plane.kubeconfig, tmp_path) as api:
        api.meddle = hides_the_list
        async with (
            KubeClient.connect(kubeconfig=api.kubeconfig, user_agent="tests") as client,
            leading(client, clock, reclaim) as loop,
        ):
            await two_sightings(loop, clock)
            assert not [call for call in api.calls if call.of == "pods" and call.name]  # braked: nobody is asked for
            clock.advance(10)
            await loop.turn()  # the brake's half minute is over, and each pod is read
            assert len([call for call in api.calls if call.of == "pods" and call.name]) == 60
    assert {await state_of(kube, f"10.30.0.{index}") for index in range(1, 61)} == {"Held"}


async def test_pods_that_vanish_all_at_once_from_lists_and_reads_are_not_believed_to_be_gone(
    plane: Plane, kube: KubeClient, namespace: str, pool: str, tmp_path: Path
) -> None:
    for index in range(1, 61):
        pod = await make_pod(kube, namespace, f"p{index}", "node-1")
        await make_record(kube, f"10.30.0.{index}", pool, namespace, f"p{index}", pod["metadata"]["uid"])

    async def hides_pods(call: Call) -> web.StreamResponse:
        return await (call.hidden() if call.of == "pods" and not call.is_watch else call.passes())

    async with between(plane.kubeconfig, tmp_path) as api:
        api.meddle = hides_pods
        async with controller_behind(api, namespace, tmp_path) as controller:
            line = await controller.logged("reclaim_braked")
            assert (line["would_free"], line["in_use"]) == (60, 60)
            await make_record(
                kube, "10.30.0.99", pool, namespace, "none", NOBODY, state="Cooling", until="2020-01-01T00:00:00Z"
            )
            await until_state(kube, "10.30.0.99", "")
    assert {await state_of(kube, f"10.30.0.{index}") for index in range(1, 61)} == {"Held"}


async def test_a_leader_whose_calls_fail_a_third_of_the_time_frees_who_is_gone_and_nobody_else(
    plane: Plane, kube: KubeClient, namespace: str, pool: str, tmp_path: Path
) -> None:
    chance = random.Random(26)  # noqa: S311 - the same errors in each run
    for index in range(1, 11):
        pod = await make_pod(kube, namespace, f"p{index}", "node-1")
        await make_record(kube, f"10.30.0.{index}", pool, namespace, f"p{index}", pod["metadata"]["uid"])
        await make_record(kube, f"10.30.1.{index}", pool, namespace, "ghost", NOBODY)

    async def fails(call: Call) -> web.StreamResponse:
        # Not those of the lease, or nobody would lead.
        if call.of == "leases" or chance.random() > 0.3:
            return await call.passes()
        return await call.refused(chance.choice([429, 500, 503, 504]), "", retry_after=0)

    async with between(plane.kubeconfig, tmp_path) as api:
        api.meddle = fails
        async with controller_behind(api, namespace, tmp_path):
            for index in range(1, 11):
                await until_state(kube, f"10.30.1.{index}", "Cooling", "", within_s=40)
    assert {await state_of(kube, f"10.30.0.{index}") for index in range(1, 11)} == {"Held"}


async def test_a_right_that_is_taken_from_the_leader_voids_verdicts_at_the_pace_of_sweeps_and_ends_nothing(
    plane: Plane, kube: KubeClient, namespace: str, pool: str, tmp_path: Path
) -> None:
    await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)

    async def may_not_write(call: Call) -> web.StreamResponse:
        refused = call.is_write and call.of == "spideripaddresses"
        return await (call.refused(403, "Forbidden") if refused else call.passes())

    async def passes(call: Call) -> web.StreamResponse:
        return await call.passes()

    async with between(plane.kubeconfig, tmp_path) as api:
        api.meddle = may_not_write
        async with controller_behind(api, namespace, tmp_path) as controller:

            async def voided() -> bool:
                return len(controller.lines("verdict_void", address="10.30.0.1")) >= 3

            await until(voided, within_s=30, what="verdicts that come to nothing")
            # Each try takes two new sightings, which are a grace apart.
            sightings = controller.lines("holder_suspected", address="10.30.0.1")
            assert len(api.writes("spideripaddresses")) <= len(sightings)
            assert "403 Forbidden" in controller.lines("verdict_void")[0]["why"]
            api.meddle = passes
            await until_state(kube, "10.30.0.1", "Cooling", "")


async def test_a_node_that_is_deleted_and_comes_back_under_its_name_costs_its_pods_nothing(
    plane: Plane, kube: KubeClient, namespace: str, pool: str, tmp_path: Path
) -> None:
    pod = await make_pod(kube, namespace, "runs", "node-1")
    await make_record(kube, "10.30.0.1", pool, namespace, "runs", pod["metadata"]["uid"])
    with running_controller(plane.kubeconfig, namespace, tmp_path) as controller:
        await controller.logged("leading")
        await kube.delete(NODES, "node-1")
        await make_record(kube, "10.30.0.2", pool, namespace, "ghost", NOBODY)
        await until_state(kube, "10.30.0.2", "Cooling", "")
        await make_node(kube, "node-1")
        await make_record(kube, "10.30.0.3", pool, namespace, "ghost", NOBODY)
        await until_state(kube, "10.30.0.3", "Cooling", "")
    assert await state_of(kube, "10.30.0.1") == "Held"
