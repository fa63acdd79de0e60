"""Only the leader acts, and only while it is sure to lead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest

from allocator.kube.resources import LEASES
from devcluster.waiting import until
from tests.plane.agents import make_node
from tests.plane.controllers import (
    NOBODY,
    leader_of,
    make_pool,
    make_record,
    running_controller,
    state_of,
    until_state,
)

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane

SLOW_LEASE = {
    "SPIDERPOOL_LEADER_DURATION": "300",
    "SPIDERPOOL_LEADER_RENEW_DEADLINE": "200",
    "SPIDERPOOL_LEADER_RETRY_PERIOD": "100",
}


@pytest.fixture
async def pool(kube: KubeClient) -> str:
    await make_node(kube, "node-1")
    await make_pool(kube, "leading", "10.30.0.1-10.30.0.250")
    return "leading"


async def test_of_two_replicas_one_leads_and_the_other_takes_over_when_it_ends(
    kube: KubeClient, plane: Plane, namespace: str, pool: str, tmp_path: Path
) -> None:
    with running_controller(plane.kubeconfig, namespace, tmp_path, identity="two") as two:
        with running_controller(plane.kubeconfig, namespace, tmp_path, identity="one") as one:

            async def leader() -> str:
                return await leader_of(kube, namespace)

            first = await until(leader, within_s=20, what="a leader")
            await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)
            await until_state(kube, "10.30.0.1", "Cooling", "")
            acted, stood_by = (one, two) if first == "one" else (two, one)
            assert len(acted.lines("address_released")) == 1
            assert not stood_by.lines("leading")
        await two.logged("leading")
        await make_record(kube, "10.30.0.2", pool, namespace, "ghost", NOBODY)
        await until_state(kube, "10.30.0.2", "Cooling", "")


async def test_a_leader_that_was_paused_finds_its_verdict_void_when_it_resumes(
    kube: KubeClient, plane: Plane, namespace: str, pool: str, tmp_path: Path
) -> None:
    await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)
    slowly = ("--reclaim-grace", "2")
    with running_controller(plane.kubeconfig, namespace, tmp_path, *slowly, identity="one") as one:
        await one.logged("holder_suspected")
        one.pause()
        # The second one leads but frees nothing, so that the record stays as the first one saw it.
        with running_controller(
            plane.kubeconfig, namespace, tmp_path, identity="two", SPIDERPOOL_GC_IP_ENABLED="false"
        ) as two:
            await two.logged("leading")
            one.resume()
            await one.logged("leader_overdue")
            await make_record(
                kube, "10.30.0.2", pool, namespace, "ghost", NOBODY, state="Cooling", until="2020-01-01T00:00:00Z"
            )
            await until_state(kube, "10.30.0.2", "")
            assert await leader_of(kube, namespace) == "two"
            assert await state_of(kube, "10.30.0.1") == "Held"
        assert not one.lines("address_released")


async def test_a_lease_in_other_hands_stops_every_loop_long_before_the_next_renewal(
    kube: KubeClient, plane: Plane, namespace: str, pool: str, tmp_path: Path
) -> None:
    with running_controller(plane.kubeconfig, namespace, tmp_path, **SLOW_LEASE) as running:
        await running.logged("leading")
        spec = {"holderIdentity": "thief"}
        await kube.patch(LEASES, "spiderpool-controller-leases", {"spec": spec}, namespace=namespace)
        line = await running.logged("leader_lost")
        assert line["holder"] == "thief"
        await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)
        # Time for many a sweep and grace, by the clock of another leader.
        await make_record(kube, "10.30.0.2", pool, namespace, "ghost", NOBODY)
        with running_controller(plane.kubeconfig, "default", tmp_path, identity="elsewhere") as other:
            await until_state(kube, "10.30.0.2", "Cooling", "")
            await other.logged("address_released", address="10.30.0.1")
        assert not running.lines("address_released")
        assert not running.lines("holder_suspected", address="10.30.0.1")


async def test_the_probes_answer_on_the_originals_paths(
    kube: KubeClient, plane: Plane, namespace: str, pool: str, tmp_path: Path
) -> None:
    listen = ("--health-listen", "127.0.0.1:0")
    with running_controller(plane.kubeconfig, namespace, tmp_path, *listen) as running:
        host, port = (await running.logged("health_listening"))["addresses"][0]
        await running.logged("leading")
        async with aiohttp.ClientSession() as session:
            for probe in ("startup", "readiness", "liveness"):
                async with session.get(f"http://{host}:{port}/v1/runtime/{probe}") as answer:
                    assert answer.status == 200, await answer.text()
