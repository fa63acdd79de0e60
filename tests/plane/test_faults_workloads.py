"""Pods that come back under their names faster than anybody cleans up (FAULTS.md, F39 and F40)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from allocator.kube.errors import NotFound
from allocator.kube.resources import SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES, STATEFUL_SETS
from devcluster.waiting import until
from tests.plane.agents import Agent, make_node, make_pod, make_pool, running_agent
from tests.plane.controllers import running_controller
from tests.plane.test_agent import ONE, kill_pod, make_stateful_set, member

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane


@pytest.fixture
async def agent(plane: Plane, kube: KubeClient, tmp_path: Path) -> AsyncIterator[Agent]:
    await make_node(kube, "n1")
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as running:
        yield running


async def records(kube: KubeClient) -> dict[str, Object]:
    return {each["spec"]["address"]: each["spec"] for each in (await kube.list_all(SPIDER_IP_ADDRESSES))[0]}


async def test_a_pod_that_is_made_again_a_hundred_times_has_its_address_each_time_and_leaves_one_record(
    agent: Agent, plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    """The DELs of those before come in any order, late, or never; reclaim runs all the while."""
    await make_pool(kube, "a", "10.20.0.10-10.20.0.250")
    chance = random.Random(39)  # noqa: S311 - the same delays in each run
    late: list[Object] = []
    pod: Object = {}
    given = ""
    with running_controller(plane.kubeconfig, namespace, tmp_path) as controller:
        await controller.logged("leading")
        for turn in range(100):
            pod = await make_pod(kube, namespace, "cart", "n1", ONE)
            (given,) = (await agent.add(pod, container=f"c{turn}")).addresses
            for number in range(chance.randrange(3)):
                if number < len(late):
                    before = late.pop(chance.randrange(len(late)))
                    await agent.delete(before, container=before["container"])
            holder = (await records(kube))[given.removesuffix("/16")]
            assert (holder["state"], holder["holder"]["podUID"]) == ("Held", pod["metadata"]["uid"])
            if turn < 99:
                await kill_pod(kube, pod)
                late.append({**pod, "container": f"c{turn}"})
        assert late

        async def alone() -> bool:
            held = [spec for spec in (await records(kube)).values() if spec["state"] == "Held"]
            return [spec["holder"]["podUID"] for spec in held] == [pod["metadata"]["uid"]]

        await until(alone, within_s=30, what="the records of the 99 before to be freed")
    endpoint = await kube.get(SPIDER_ENDPOINTS, "cart", namespace=namespace)
    shown = endpoint["status"]["current"]
    assert (shown["uid"], shown["ips"][0]["ipv4"]) == (pod["metadata"]["uid"], given)


async def test_a_stateful_set_keeps_its_addresses_while_it_counts_its_members_and_none_at_zero(
    agent: Agent, plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    """Ordinals that begin at 2, all at once, on a pool without a spare address, with reclaim running."""
    await make_pool(kube, "a", "10.20.0.10-10.20.0.12")
    owner = await make_stateful_set(kube, namespace, replicas=0)
    scaled = {"spec": {"replicas": 3, "ordinals": {"start": 2}}}
    ordinals = (2, 3, 4)

    async def start() -> list[tuple[Object, str]]:
        await kube.patch(STATEFUL_SETS, "web", scaled, namespace=namespace)
        pods = [await member(kube, owner, ordinal, "n1") for ordinal in ordinals]
        async with asyncio.TaskGroup() as group:
            adds = [group.create_task(agent.add(pod, container=pod["metadata"]["uid"])) for pod in pods]
        return [(pod, add.result().addresses[0]) for pod, add in zip(pods, adds, strict=True)]

    async def end(members: list[tuple[Object, str]]) -> None:
        for pod, _ in members:
            with suppress(NotFound):  # a real controller was faster
                await kill_pod(kube, pod)
            await agent.delete(pod, container=pod["metadata"]["uid"])

    async def counted(**wanted: int) -> None:
        async def look() -> bool:
            return Counter(spec["state"] for spec in (await records(kube)).values()) == wanted

        await until(look, within_s=20, what=f"records: {wanted}")

    with running_controller(plane.kubeconfig, namespace, tmp_path) as controller:
        await controller.logged("leading")
        first = await start()
        await end(first)
        await counted(Retained=3)
        second = await start()
        assert [address for _, address in second] == [address for _, address in first]
        await kube.patch(STATEFUL_SETS, "web", {"spec": {"replicas": 0}}, namespace=namespace)
        await end(second)
        await counted(Cooling=3)
        third = await start()
        assert len({address for _, address in third}) == 3
        await counted(Held=3)
