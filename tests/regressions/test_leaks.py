"""Addresses that nobody has and nobody gets: how they leaked elsewhere (pains P7 to P12 of tests/FAULTS.md).

Each test names the thread that it comes from and tells what went wrong there.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
import pytest

from allocator.kube.errors import NotFound
from allocator.kube.resources import NODES, PODS, SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES
from cni import install
from devcluster.waiting import until
from tests.plane.agents import make_node, make_pod, make_pool, running_agent
from tests.plane.between import between
from tests.plane.controllers import NOBODY, make_record, running_controller, state_of, until_state
from tests.plane.test_agent import ONE, kill_pod
from tests.plane.test_faults_plugin import run
from tests.unit.cni.harness import Plugin

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.plane.between import Call


async def records(kube: KubeClient) -> dict[str, str]:
    """The state of each address that there is."""
    found, _ = await kube.list_all(SPIDER_IP_ADDRESSES)
    return {each["spec"]["address"]: each["spec"]["state"] for each in found}


async def none_is_held(kube: KubeClient) -> None:
    async def look() -> bool:
        return "Held" not in (await records(kube)).values()

    await until(look, within_s=30, what="the addresses to come back")


@pytest.fixture
async def node(kube: KubeClient) -> str:
    await make_node(kube, "n1")
    return "n1"


@pytest.fixture(scope="module")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install.install(tmp_path_factory.mktemp("bin"))


async def test_p7_a_del_that_the_agent_cannot_do_is_kept_and_done_later(
    plane: Plane, kube: KubeClient, namespace: str, node: str, executable: Path, tmp_path: Path
) -> None:
    """spiderpool#412, multus-cni#1239: the agent's error was logged and the DEL succeeded, and nobody came again."""
    plugin = Plugin(executable, tmp_path)
    await make_pool(kube, "a", "10.20.0.10")
    pod = await make_pod(kube, namespace, "cart", node, ONE)

    async def may_not_write(call: Call) -> web.StreamResponse:
        refused = call.is_write and call.of == "spideripaddresses" and call.method == "PATCH"
        return await (call.refused(403, "Forbidden") if refused else call.passes())

    async with between(plane.kubeconfig, tmp_path) as api:
        async with running_agent(api.kubeconfig, node, tmp_path):
            assert (await run(plugin, "ADD", pod, "c1"))[0] == 0
            await kill_pod(kube, pod)
            api.meddle = may_not_write
            assert await run(plugin, "DEL", pod, "c1") == (0, None)
            assert await state_of(kube, "10.20.0.10") == "Held"
        assert [path.name for path in (tmp_path / "n1" / "intents").iterdir()] == ["c1@eth0.json"]
    async with running_agent(plane.kubeconfig, node, tmp_path):
        await until_state(kube, "10.20.0.10", "Cooling")


def test_p7_a_bug_in_del_is_no_success(executable: Path, tmp_path: Path) -> None:
    """Spiderpool 1.2: a panic was caught without setting the error, and the process exited with 0."""
    plugin = Plugin(executable, tmp_path).altered(
        "import cni.commands; cni.commands.COMMANDS['DEL'] = lambda call: 1 / 0"
    )
    outcome = plugin.run("DEL")
    assert (outcome.status, outcome.json()["code"]) == (1, 999)


async def test_p7_a_del_frees_the_address_though_the_endpoint_of_its_pod_is_gone(
    plane: Plane, kube: KubeClient, namespace: str, node: str, tmp_path: Path
) -> None:
    """Spiderpool 1.2: without an endpoint a release was skipped, whatever stood in the pool."""
    await make_pool(kube, "a", "10.20.0.10")
    pod = await make_pod(kube, namespace, "cart", node, ONE)
    async with running_agent(plane.kubeconfig, node, tmp_path) as agent:
        await agent.add(pod)
        await kube.delete(SPIDER_ENDPOINTS, "cart", namespace=namespace)
        await kill_pod(kube, pod)
        assert (await agent.delete(pod)).status == 200
    assert await state_of(kube, "10.20.0.10") == "Cooling"


async def test_p8_retries_of_an_add_that_fails_for_one_interface_take_nothing_from_the_others_pool(
    plane: Plane, kube: KubeClient, namespace: str, node: str, tmp_path: Path
) -> None:
    """spiderpool#4295, #2901: each retry took one more address for the interfaces that had no trouble; what was known
    of earlier tries was in the agent's memory, and gone with a restart (#2517).
    """
    await make_pool(kube, "a", "10.20.0.10-10.20.0.12")
    await make_pool(kube, "b", "10.21.0.10", subnet="10.21.0.0/16")
    await make_record(kube, "10.21.0.10", "b", namespace, "other", NOBODY)
    both = '[{"interface": "eth0", "ipv4": ["a"]}, {"interface": "net1", "ipv4": ["b"]}]'
    pod = await make_pod(kube, namespace, "cart", node)
    said = {"metadata": {"annotations": {"ipam.spidernet.io/ippools": both}}}
    await kube.patch(PODS, "cart", said, namespace=namespace)
    for restart in range(2):
        async with running_agent(plane.kubeconfig, node, tmp_path) as agent:
            for number in range(5):
                refused = await agent.add(pod, container=f"c{restart}{number}")
                assert refused.headers["X-Spiderpool-Reason"] == "PoolExhausted"
                assert await records(kube) == {"10.21.0.10": "Held"}
    await kube.delete(SPIDER_IP_ADDRESSES, "10.21.0.10")
    async with running_agent(plane.kubeconfig, node, tmp_path) as agent:
        for interface in ("eth0", "net1"):
            assert (await agent.add(pod, interface=interface)).status == 200
    assert sorted((await records(kube)).values()) == ["Held", "Held"]


@pytest.mark.parametrize("pod_lives", [True, False], ids=["and the pod tries again", "and the pod ends"])
async def test_p9_an_agent_that_dies_between_record_and_endpoint_leaves_no_address_behind(
    plane: Plane, kube: KubeClient, namespace: str, node: str, tmp_path: Path, *, pod_lives: bool
) -> None:
    """spiderpool#2517: the pool had the address, no endpoint told of it, and the sweep passed it over for ever."""
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    pod = await make_pod(kube, namespace, "cart", node, ONE)
    reached, never = asyncio.Event(), asyncio.Event()

    async def holds_the_endpoint(call: Call) -> web.StreamResponse:
        if call.is_write and call.of == "spiderendpoints":
            reached.set()
            await never.wait()
            return call.cut()
        return await call.passes()

    async with between(plane.kubeconfig, tmp_path) as api:
        api.meddle = holds_the_endpoint
        async with running_agent(api.kubeconfig, node, tmp_path) as agent, asyncio.TaskGroup() as group:
            add = group.create_task(_answer(agent.add(pod)))
            await reached.wait()
            agent.process.kill()
            await agent.process.wait()
        assert add.result() is None
        never.set()
    (address,) = await records(kube)
    with pytest.raises(NotFound):
        await kube.get(SPIDER_ENDPOINTS, "cart", namespace=namespace)
    if pod_lives:
        again = tmp_path / "again"  # where no socket of the dead one is
        await asyncio.to_thread(again.mkdir)
        async with running_agent(plane.kubeconfig, node, again) as agent:
            assert (await agent.add(pod, container="c2")).addresses == [f"{address}/16"]
        assert await records(kube) == {address: "Held"}
    else:
        await kill_pod(kube, pod)
        with running_controller(plane.kubeconfig, namespace, tmp_path):
            await until_state(kube, address, "Cooling", "")


async def _answer(add: object) -> object:
    with suppress(aiohttp.ClientError):
        return await add  # type: ignore[misc]  # what agent.add gives
    return None


async def test_p10_a_runtime_that_gave_up_and_never_calls_del_costs_no_address(
    plane: Plane, kube: KubeClient, namespace: str, node: str, tmp_path: Path
) -> None:
    """containerd#5438, #9947: RunPodSandbox timed out, its context was dead, and DEL was never called."""
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    pods = [await make_pod(kube, namespace, f"p{index}", node, ONE) for index in range(5)]
    committed, go_on = 0, asyncio.Event()
    all_are = asyncio.Event()

    async def holds_the_answer(call: Call) -> web.StreamResponse:
        nonlocal committed
        answer = await call.passes()
        if call.is_write and call.of == "spiderendpoints":
            committed += 1
            if committed == 4:  # as many as an agent claims of one pool at a time
                all_are.set()
            await go_on.wait()
        return answer

    async with between(plane.kubeconfig, tmp_path) as api:
        api.meddle = holds_the_answer
        async with running_agent(api.kubeconfig, node, tmp_path) as agent:
            async with asyncio.TaskGroup() as group:
                adds = [group.create_task(agent.add(pod)) for pod in pods]
                await all_are.wait()
                for add in adds:
                    add.cancel()
            go_on.set()
            for pod in pods:
                await kill_pod(kube, pod)
            with running_controller(plane.kubeconfig, namespace, tmp_path):
                await none_is_held(kube)


async def test_p11_pods_that_are_gone_leave_no_object_of_ours_and_those_that_live_have_two(
    plane: Plane, kube: KubeClient, namespace: str, node: str, tmp_path: Path
) -> None:
    """calico#10759, #2713: tens of thousands of handles and blocks stood for nothing; spiderpool#2901: endpoints."""
    await make_pool(kube, "a", "10.20.0.10-10.20.0.60")
    pods = [await make_pod(kube, namespace, f"p{index}", node, ONE) for index in range(20)]

    async def ours() -> tuple[int, int]:
        endpoints = (await kube.list(SPIDER_ENDPOINTS, namespace=namespace))["items"]
        return len(endpoints), len(await records(kube))

    async with running_agent(plane.kubeconfig, node, tmp_path) as agent:
        for pod in pods:
            for container in ("c1", "c2", "c3"):
                assert (await agent.add(pod, container=container)).status == 200
    assert await ours() == (20, 20)
    for pod in pods[1:]:  # without a DEL
        await kill_pod(kube, pod)
    with running_controller(plane.kubeconfig, namespace, tmp_path):

        async def two_are_left() -> bool:
            return await ours() == (1, 1)

        await until(two_are_left, within_s=30, what="everything of the 19 to go")
    assert await kube.get(SPIDER_ENDPOINTS, "p0", namespace=namespace)


@pytest.mark.parametrize("ready", [True, False], ids=["ready node", "node that is not"])
async def test_p12_the_switches_of_terminating_pods_do_what_they_say(
    plane: Plane, kube: KubeClient, namespace: str, node: str, tmp_path: Path, *, ready: bool
) -> None:
    """spiderpool#4764, #4864: with the switch off addresses of terminating pods were reclaimed all the same."""
    await make_pool(kube, "a", "10.20.0.10-10.20.0.60")
    await make_node(kube, "n2")
    pods = {name: await make_pod(kube, namespace, f"on-{name}", name, ONE) for name in (node, "n2")}
    for name, text, status in ((node, "10.20.0.10", "True"), ("n2", "10.20.0.11", "Unknown")):
        conditions = [{"type": "Ready", "status": status, "reason": "Test", "message": ""}]
        await kube.patch(NODES, name, {"status": {"conditions": conditions}}, subresource="status")
        holder = pods[name]["metadata"]
        await make_record(kube, text, "a", namespace, holder["name"], holder["uid"], holder=_holder(pods[name], name))
        await kube.delete(PODS, holder["name"], namespace=namespace, grace_period_s=1)
    which = "READY" if ready else "NOT_READY"
    off = {f"SPIDERPOOL_GC_STATELESS_TERMINATING_POD_ON_{which}_NODE_ENABLED": "false"}
    kept, freed = ("10.20.0.10", "10.20.0.11") if ready else ("10.20.0.11", "10.20.0.10")
    with running_controller(plane.kubeconfig, namespace, tmp_path, **off):
        await until_state(kube, freed, "Cooling", "")
        # A look later at everything:
        await make_record(kube, "10.20.0.12", "a", namespace, "ghost", NOBODY)
        await until_state(kube, "10.20.0.12", "Cooling", "")
        assert await state_of(kube, kept) == "Held"


def _holder(pod: Object, node: str) -> dict[str, str]:
    meta = pod["metadata"]
    whose = {"namespace": meta["namespace"], "pod": meta["name"], "podUID": meta["uid"]}
    return {**whose, "interface": "eth0", "node": node, "containerID": "c1"}
