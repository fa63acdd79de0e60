"""Agents that are stopped under load, meet a second one, or run out of files (FAULTS.md, F18 to F20)."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from allocator.kube.resources import SPIDER_IP_ADDRESSES
from devcluster.waiting import until_true
from tests.plane.agents import Agent, args, make_node, make_pod, make_pool, running_agent
from tests.plane.between import between
from tests.plane.test_agent import ONE, kill_pod, state_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.plane.agents import Answer
    from tests.plane.between import Call


async def make_pods(kube: KubeClient, namespace: str, count: int) -> list[Object]:
    return [await make_pod(kube, namespace, f"p{index}", "n1", ONE) for index in range(count)]


async def holders(kube: KubeClient) -> dict[str, str]:
    """Who holds each address, by UID."""
    records, _ = await kube.list_all(SPIDER_IP_ADDRESSES)
    held = [each["spec"] for each in records if each["spec"]["state"] == "Held"]
    return {f"{each['address']}/16": each["holder"]["podUID"] for each in held}


@asynccontextmanager
async def second_agent(kubeconfig: Path, directory: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    """Another agent for n1, in the place of the one that runs there; and its log."""
    log = directory / "second.log"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent", "--kubeconfig", str(kubeconfig), "--node", "n1",
            "--socket", str(directory / "n1.sock"), "--state-dir", str(directory / "n1"), "--health-listen", "0",
            stderr=stderr,
        )  # fmt: skip
    try:
        yield process, log
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 15)


async def test_an_agent_that_is_stopped_under_load_loses_nothing_and_the_next_one_goes_on(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.20.0.10-10.20.0.79")
    pods = await make_pods(kube, namespace, 60)
    tens, told = asyncio.Event(), 0

    async def counts(call: Call) -> web.StreamResponse:
        nonlocal told
        answer = await call.passes()
        if call.method == "POST" and call.of == "spideripaddresses":
            told += 1
            if told == 10:
                tens.set()
        return answer

    async def add(agent: Agent, pod: Object) -> Answer | None:
        try:
            return await agent.add(pod)
        except aiohttp.ClientError:
            return None  # it had gone before it was asked

    async with between(plane.kubeconfig, tmp_path) as api:
        api.meddle = counts
        async with running_agent(api.kubeconfig, "n1", tmp_path) as agent, asyncio.TaskGroup() as group:
            adds = [group.create_task(add(agent, pod)) for pod in pods]
            await tens.wait()
            agent.process.terminate()
            assert await asyncio.wait_for(agent.process.wait(), 15) == 0
        answered = {pod["metadata"]["name"]: task.result() for pod, task in zip(pods, adds, strict=True)}
        done = {name: answer.addresses for name, answer in answered.items() if answer and answer.status == 200}
        assert done
        # Whoever has an address was told so, and nobody else has one.
        assert set(await holders(kube)) == {address for (address,) in done.values()}
        assert not agent.socket.exists()
        async with running_agent(api.kubeconfig, "n1", tmp_path) as successor:
            for pod in pods:
                answer = await successor.add(pod)
                assert answer.addresses == done.get(pod["metadata"]["name"], answer.addresses)
    assert sorted((await holders(kube)).values()) == sorted(pod["metadata"]["uid"] for pod in pods)


async def test_of_two_agents_on_a_node_one_serves_and_the_other_waits_for_its_end(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    first_pod, second_pod = await make_pods(kube, namespace, 2)
    async with (
        running_agent(plane.kubeconfig, "n1", tmp_path) as first,
        second_agent(plane.kubeconfig, tmp_path) as (second, log),
    ):
        await until_true(
            lambda: str(tmp_path / "n1" / "agent.lock") in open_files(second.pid),
            within_s=20,
            what="the second one to want the lock",
        )
        before = first.socket.stat().st_ino
        given = (await first.add(first_pod)).addresses
        assert (first.socket.stat().st_ino, "agent_serves" in log.read_text()) == (before, False)
        first.process.terminate()
        await first.process.wait()
        await until_true(lambda: "agent_serves" in log.read_text(), within_s=20, what="the second one to serve")
        assert (await first.add(first_pod)).addresses == given
        assert (await first.add(second_pod)).status == 200


def open_files(pid: int) -> list[str]:
    """What the descriptors of the process lead to."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed while we looked
            found.append(str(link.readlink()))
    return found


async def test_an_agent_without_file_descriptors_refuses_for_later_and_serves_when_it_has_some_again(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.20.0.10-10.20.0.39")
    pods = await make_pods(kube, namespace, 20)
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as agent:
        pid = agent.process.pid
        async with asyncio.TaskGroup() as group:  # connections of ours that are accepted already
            for _ in pods:
                group.create_task(agent.call("GET", "/v1/runtime/liveness"))
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(open_files(pid)), limits[1]))
        short = {"X-Spiderpool-Deadline-Seconds": "1"}
        async with asyncio.TaskGroup() as group:
            adds = [group.create_task(agent.call("POST", "/v1/ipam/ip", args(pod), headers=short)) for pod in pods]
        for task in adds:
            refused = task.result()
            assert refused.status == 200 or refused.headers["X-Spiderpool-CNI-Code"] == "11", refused.json
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        for pod in pods:
            assert (await agent.add(pod)).status == 200
        assert sorted((await holders(kube)).values()) == sorted(pod["metadata"]["uid"] for pod in pods)


async def test_an_agent_whose_log_has_no_room_on_its_disk_serves_on(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    (pod,) = await make_pods(kube, namespace, 1)
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as agent:
        # No file may grow any more, and the log is one.
        resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        (given,) = (await agent.add(pod)).addresses
        await kill_pod(kube, pod)
        assert (await agent.delete(pod)).status == 200
    assert await state_of(kube, given.removesuffix("/16")) == "Cooling"


async def test_a_state_folder_that_cannot_be_made_ends_the_start_with_its_name(plane: Plane, tmp_path: Path) -> None:
    (tmp_path / "n1").write_text("no folder")
    async with second_agent(plane.kubeconfig, tmp_path) as (process, log):
        assert await asyncio.wait_for(process.wait(), 20) == 1
    assert f"'{tmp_path / 'n1'}'" in log.read_text()
