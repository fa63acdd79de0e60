"""Plugins that are killed at any moment: nothing is given twice, and nothing stays (FAULTS.md, F1, F2, F16)."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from allocator.kube.errors import NotFound
from allocator.kube.resources import PODS, SPIDER_IP_ADDRESSES
from cni import install
from devcluster.waiting import until
from tests.plane.agents import Agent, make_node, make_pod, make_pool, running_agent
from tests.plane.between import Between, between
from tests.plane.controllers import running_controller
from tests.plane.test_agent import ONE, kill_pod
from tests.unit.cni.harness import Plugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiohttp import web

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.plane.between import Call

# A kubelet starts a burst of sandboxes; each plugin lives for some 60 ms.
AT_ONCE = 8
LIVES_S = 0.06


@pytest.fixture(scope="module")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install.install(tmp_path_factory.mktemp("bin"))


@pytest.fixture
def plugin(executable: Path, tmp_path: Path) -> Plugin:
    return Plugin(executable, tmp_path)


@pytest.fixture
async def api(plane: Plane, tmp_path: Path) -> AsyncIterator[Between]:
    async with between(plane.kubeconfig, tmp_path) as made:
        yield made


@pytest.fixture
async def agent(api: Between, kube: KubeClient, tmp_path: Path) -> AsyncIterator[Agent]:
    await make_node(kube, "n1")
    async with running_agent(api.kubeconfig, "n1", tmp_path) as running:
        yield running


async def start(plugin: Plugin, command: str, pod: Object, container: str) -> asyncio.subprocess.Process:
    """The plugin as the runtime of n1 starts it, before its configuration has come."""
    meta = pod["metadata"]
    args = f"K8S_POD_NAMESPACE={meta['namespace']};K8S_POD_NAME={meta['name']};K8S_POD_UID={meta['uid']}"
    return await asyncio.create_subprocess_exec(
        plugin.executable,
        env=plugin.environment(command, CNI_ARGS=args, CNI_CONTAINERID=container),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def finish(plugin: Plugin, process: asyncio.subprocess.Process) -> tuple[int, Any]:
    """Exit status and the document on stdout."""
    paths = {"ipam_unix_socket_path": str(plugin.home / "n1.sock"), "state_dir": str(plugin.home / "n1")}
    out, _ = await process.communicate(json.dumps(plugin.config("1.1.0", **paths)).encode())
    assert process.returncode is not None
    return process.returncode, json.loads(out) if out else None


async def run(plugin: Plugin, command: str, pod: Object, container: str) -> tuple[int, Any]:
    return await finish(plugin, await start(plugin, command, pod, container))


async def holders(kube: KubeClient) -> dict[str, str]:
    """Who holds each address, by UID."""
    records, _ = await kube.list_all(SPIDER_IP_ADDRESSES)
    held = [each["spec"] for each in records if each["spec"]["state"] == "Held"]
    return {f"{each['address']}/16": each["holder"]["podUID"] for each in held}


async def test_a_plugin_that_is_killed_before_it_asks_leaves_nothing_and_the_next_try_gets_an_address(
    agent: Agent, plugin: Plugin, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    process = await start(plugin, "ADD", pod, "c1")
    process.kill()
    await process.wait()
    assert await holders(kube) == {}
    status, result = await run(plugin, "ADD", pod, "c2")
    assert (status, result["ips"][0]["address"]) == (0, "10.20.0.10/16")


async def test_a_plugin_that_is_killed_after_the_commit_costs_no_second_address(
    agent: Agent, api: Between, plugin: Plugin, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    committed, go_on = asyncio.Event(), asyncio.Event()

    async def holds_the_answer(call: Call) -> web.StreamResponse:
        answer = await call.passes()
        if call.method == "POST" and call.of == "spideripaddresses":
            committed.set()
            await go_on.wait()
        return answer

    api.meddle = holds_the_answer
    async with asyncio.TaskGroup() as group:
        process = await start(plugin, "ADD", pod, "c1")
        group.create_task(finish(plugin, process))
        await committed.wait()
        process.kill()
    assert len(await holders(kube)) == 1
    go_on.set()
    status, result = await run(plugin, "ADD", pod, "c2")
    assert status == 0
    # The one that nobody was told of has gone back.
    assert await holders(kube) == {result["ips"][0]["address"]: pod["metadata"]["uid"]}


@pytest.mark.timeout(180)
async def test_a_hundred_pods_come_and_half_of_them_go_while_plugins_are_killed_at_random(
    agent: Agent, plugin: Plugin, plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.250")
    pods = [await make_pod(kube, namespace, f"p{index}", "n1", ONE) for index in range(100)]
    chance = random.Random(16)  # noqa: S311 - the same victims in each run
    # Some have their DEL killed too, and no runtime that comes again: reclaim is what is left.
    dies_in_del = {index for index in range(50) if chance.random() < 0.3}
    places = asyncio.Semaphore(AT_ONCE)
    given: dict[str, str] = {}

    async def attach(index: int, victim_s: float | None) -> None:
        pod = pods[index]
        async with places:
            process = await start(plugin, "ADD", pod, f"c{index}-0")
            if victim_s is not None:
                await killed(process, victim_s)
                process = await start(plugin, "ADD", pod, f"c{index}-1")
            status, result = await finish(plugin, process)
            assert status == 0, result
            given[result["ips"][0]["address"]] = pod["metadata"]["uid"]
            if index < 50:
                await kill_pod(kube, pod)
                process = await start(plugin, "DEL", pod, f"c{index}-{int(victim_s is not None)}")
                if index in dies_in_del:
                    process.kill()
                assert (await finish(plugin, process))[0] == (-9 if index in dies_in_del else 0)

    async def killed(process: asyncio.subprocess.Process, after_s: float) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(finish(plugin, process))
            await asyncio.sleep(after_s)  # what is tested is that any moment will do
            if process.returncode is None:
                process.kill()

    with running_controller(plane.kubeconfig, namespace, tmp_path) as controller:
        await controller.logged("leading")
        async with asyncio.TaskGroup() as group:
            for index in range(100):
                victim_s = chance.uniform(0, LIVES_S) if chance.random() < 0.3 else None
                group.create_task(attach(index, victim_s))
        assert dies_in_del

        async def only_the_living_hold() -> bool:
            living = {pod["metadata"]["uid"] for pod in pods[50:]}
            return set((await holders(kube)).values()) == living

        await until(only_the_living_hold, within_s=30, what="the addresses of the dead to come back")
    held = await holders(kube)
    assert len(held) == 50
    assert held == {address: uid for address, uid in given.items() if uid in held.values()}
    for pod in pods[:50]:
        with pytest.raises(NotFound):
            await kube.get(PODS, pod["metadata"]["name"], namespace=namespace)
