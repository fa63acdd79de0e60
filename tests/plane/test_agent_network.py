"""The agent while the API server is slow or out of reach: deadlines, hung-up runtimes, and a graceful stop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from allocator.kube.resources import EVENTS, SPIDER_IP_ADDRESSES
from devcluster.waiting import until
from tests.plane.agents import Agent, args, make_node, make_pod, make_pool, running_agent
from tests.plane.network import Network, network
from tests.plane.test_agent import ONE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane


@pytest.fixture
async def wire(plane: Plane, tmp_path: Path) -> AsyncIterator[Network]:
    async with network(plane.kubeconfig, tmp_path) as made:
        yield made


@pytest.fixture
async def agent(wire: Network, kube: KubeClient, tmp_path: Path) -> AsyncIterator[Agent]:
    await make_node(kube, "n1")
    async with running_agent(wire.kubeconfig, "n1", tmp_path) as running:
        yield running


async def held(kube: KubeClient) -> list[Object]:
    records, _ = await kube.list_all(SPIDER_IP_ADDRESSES)
    return [record for record in records if record["spec"]["state"] == "Held"]


async def known_pod(kube: KubeClient, agent: Agent, namespace: str) -> Object:
    """A pod that the agent's informer has seen, so that its ADD begins with the claim."""
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    other = await make_pod(kube, namespace, "other", "n1", ONE)
    assert (await agent.add(other)).status == 200
    assert (await agent.call("GET", f"/v1/workloadendpoint?podNamespace={namespace}&podName=other")).status == 200
    return pod


async def test_an_add_that_meets_a_stalled_api_server_ends_at_its_own_deadline_and_is_told_as_an_event(
    agent: Agent, wire: Network, kube: KubeClient, namespace: str
) -> None:
    pod = await known_pod(kube, agent, namespace)
    wire.stall()
    began = asyncio.get_running_loop().time()
    answer = await agent.call("POST", "/v1/ipam/ip", args(pod), headers={"X-Spiderpool-Deadline-Seconds": "1.5"})
    assert asyncio.get_running_loop().time() - began < 10
    assert (answer.status, answer.headers["X-Spiderpool-Reason"], answer.headers["X-Spiderpool-CNI-Code"]) == (
        500,
        "DeadlineExceeded",
        "11",
    )
    wire.heal()

    async def event() -> list[Object]:
        events = (await kube.list(EVENTS, namespace=namespace))["items"]
        return [each for each in events if each["reason"] == "DeadlineExceeded"]

    assert await until(event, within_s=20, what="the event")


async def test_an_add_that_was_cut_off_leaves_one_address_whatever_became_of_its_write(
    agent: Agent, wire: Network, kube: KubeClient, namespace: str
) -> None:
    pod = await known_pod(kube, agent, namespace)
    before = len(await held(kube))
    wire.stall()
    async with asyncio.TaskGroup() as group:
        hung_up = group.create_task(agent.add(pod))
        await wire.holds.wait()
        hung_up.cancel()
    wire.heal()
    given = (await agent.add(pod)).addresses
    records = await held(kube)
    assert len(records) == before + 1
    mine = [each for each in records if each["spec"]["holder"]["podUID"] == pod["metadata"]["uid"]]
    assert [f"{each['spec']['address']}/16" for each in mine] == given


async def test_an_agent_that_is_told_to_stop_answers_what_it_has_begun(
    agent: Agent, wire: Network, kube: KubeClient, namespace: str
) -> None:
    pod = await known_pod(kube, agent, namespace)
    wire.stall()
    async with asyncio.TaskGroup() as group:
        add = group.create_task(agent.add(pod))
        await wire.holds.wait()
        agent.process.terminate()
        await until(lambda: _socket_is_gone(agent), within_s=5, what="the agent to take no more requests")
        wire.heal()
    assert add.result().status == 200
    assert await asyncio.wait_for(agent.process.wait(), 15) == 0


async def _socket_is_gone(agent: Agent) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(str(agent.socket))
    except OSError:
        return True
    writer.close()
    return False


async def test_the_agent_tells_that_the_api_server_is_out_of_reach_and_that_it_is_back(
    agent: Agent, wire: Network
) -> None:
    """The plugin of the original asks this before each ADD; CNI STATUS, kubelet and runtimes ask it all the time."""

    async def healthy() -> bool:
        answers = [
            await agent.call("GET", "/v1/ipam/healthy"),
            await agent.call("GET", "/v1/runtime/readiness"),
            await agent.call("POST", "/v1/ipam/status", {}),
        ]
        problems = {answer.json for answer in answers if answer.status != 200}
        assert all(problem.startswith("the API server has not answered for") for problem in problems)
        return not problems

    async def unhealthy() -> bool:
        return not await healthy()

    assert await healthy()
    wire.stall()
    await until(unhealthy, within_s=70, what="the agent to notice")
    assert (await agent.call("POST", "/v1/ipam/status", {})).headers["X-Spiderpool-CNI-Code"] == "50"
    assert (await agent.call("GET", "/v1/runtime/liveness")).status == 200
    wire.heal()
    await until(healthy, within_s=30, what="the agent to be ready again")
