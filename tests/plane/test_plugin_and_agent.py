"""The plugin's executable and the agent's process together: what a runtime gets, and what the API server keeps."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from allocator.kube.resources import PODS, SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS
from cni import install
from devcluster.waiting import until
from tests.plane.agents import make_node, make_pod, running_agent
from tests.unit.cni.harness import Plugin, pod_network

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.unit.cni.harness import Outcome

ANNOTATION = '{"ipv4": ["a"]}'


@pytest.fixture
async def pool(kube: KubeClient) -> None:
    """One address, so that a second pod finds the pool full."""
    body = {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderIPPool",
        "metadata": {"name": "a"},
        "spec": {"ipVersion": 4, "subnet": "10.20.0.0/16", "ips": ["10.20.0.10"], "gateway": "10.20.0.1"},
    }
    await kube.create(SPIDER_IP_POOLS, body)
    await make_node(kube, "n1")


@pytest.fixture(scope="session")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install.install(tmp_path_factory.mktemp("bin"))


@pytest.fixture
def plugin(executable: Path, tmp_path: Path) -> Plugin:
    return Plugin(executable, tmp_path)


async def call(
    plugin: Plugin, command: str, pod: Object, config: dict[str, Any] | None = None, **variables: str
) -> Outcome:
    """The plugin, as the runtime of node n1 calls it for eth0 of the pod."""
    meta, socket = pod["metadata"], str(plugin.home / "n1.sock")
    whole = plugin.config("1.1.0", ipam_unix_socket_path=socket, state_dir=str(plugin.home / "n1")) | (config or {})
    args = (
        f"IgnoreUnknown=1;K8S_POD_NAMESPACE={meta['namespace']};K8S_POD_NAME={meta['name']};K8S_POD_UID={meta['uid']}"
    )
    container = f"c-{meta['uid']}"
    variables = {"CNI_ARGS": args, "CNI_CONTAINERID": container} | variables
    return await asyncio.to_thread(plugin.run, command, whole, **variables)


async def kill(kube: KubeClient, pod: Object) -> None:
    await kube.delete(PODS, pod["metadata"]["name"], namespace=pod["metadata"]["namespace"], grace_period_s=0)


async def state(kube: KubeClient) -> str:
    return str((await kube.get(SPIDER_IP_ADDRESSES, "10.20.0.10"))["spec"]["state"])


async def test_an_attachment_lives_through_status_add_check_and_del(
    plane: Plane, kube: KubeClient, namespace: str, pool: None, plugin: Plugin, tmp_path: Path
) -> None:
    pod = await make_pod(kube, namespace, "cart", "n1", ANNOTATION)
    async with running_agent(plane.kubeconfig, "n1", tmp_path):
        assert (await call(plugin, "STATUS", pod)).status == 0
        added = await call(plugin, "ADD", pod)
        assert added.json() == {
            "cniVersion": "1.1.0",
            "ips": [{"address": "10.20.0.10/16", "gateway": "10.20.0.1"}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.20.0.1"}],
            "dns": {},
        }
        other = added.json() | {"ips": [{"address": "10.20.0.11/16"}]}
        assert "10.20.0.11/16" in (await call(plugin, "CHECK", pod, {"prevResult": other})).json()["msg"]
        await kill(kube, pod)
        assert (await call(plugin, "DEL", pod)).status == 0
        assert await state(kube) == "Cooling"
        assert (await call(plugin, "CHECK", pod, {"prevResult": added.json()})).code == 999
        assert (await call(plugin, "DEL", pod)).status == 0


@pytest.mark.root
async def test_a_check_finds_record_and_interface_as_add_left_them(
    plane: Plane, kube: KubeClient, namespace: str, pool: None, plugin: Plugin, tmp_path: Path
) -> None:
    pod = await make_pod(kube, namespace, "cart", "n1", ANNOTATION)
    with pod_network(tmp_path) as netns:
        async with running_agent(plane.kubeconfig, "n1", tmp_path):
            added = await call(plugin, "ADD", pod, CNI_NETNS=str(netns))
            checked = await call(plugin, "CHECK", pod, {"prevResult": added.json()}, CNI_NETNS=str(netns))
    assert (checked.status, checked.stdout) == (0, b"")


async def test_a_full_pool_means_try_again_later_with_the_agents_reason(
    plane: Plane, kube: KubeClient, namespace: str, pool: None, plugin: Plugin, tmp_path: Path
) -> None:
    first, second = [await make_pod(kube, namespace, name, "n1", ANNOTATION) for name in ("cart", "till")]
    async with running_agent(plane.kubeconfig, "n1", tmp_path):
        assert (await call(plugin, "ADD", first)).status == 0
        refused = await call(plugin, "ADD", second)
        assert refused.code == 11
        assert "Exhausted" in refused.json()["details"]


async def test_gc_frees_what_died_without_del_in_this_network_only(
    plane: Plane, kube: KubeClient, namespace: str, pool: None, plugin: Plugin, tmp_path: Path
) -> None:
    pod = await make_pod(kube, namespace, "cart", "n1", ANNOTATION)
    nothing: dict[str, Any] = {"cni.dev/valid-attachments": []}
    async with running_agent(plane.kubeconfig, "n1", tmp_path):
        assert (await call(plugin, "ADD", pod)).status == 0
        assert (await call(plugin, "GC", pod, nothing)).status == 0
        assert await state(kube) == "Held"  # not listed, but it runs
        await kill(kube, pod)
        assert (await call(plugin, "GC", pod, nothing | {"name": "another"})).status == 0
        assert await state(kube) == "Held"
        assert (await call(plugin, "GC", pod, {})).code == 7
        assert (await call(plugin, "GC", pod, nothing)).status == 0
        assert await state(kube) == "Cooling"


async def test_a_release_without_agent_is_carried_out_when_it_is_back(
    plane: Plane, kube: KubeClient, namespace: str, pool: None, plugin: Plugin, tmp_path: Path
) -> None:
    pod = await make_pod(kube, namespace, "cart", "n1", ANNOTATION)
    async with running_agent(plane.kubeconfig, "n1", tmp_path):
        assert (await call(plugin, "ADD", pod)).status == 0
    await kill(kube, pod)
    assert (await call(plugin, "STATUS", pod)).code == 50
    assert (await call(plugin, "DEL", pod)).status == 0
    intents = tmp_path / "n1" / "intents"
    assert len(list(intents.iterdir())) == 1
    assert await state(kube) == "Held"
    async with running_agent(plane.kubeconfig, "n1", tmp_path):

        async def is_done() -> bool:
            return not list(intents.iterdir()) and await state(kube) == "Cooling"

        await until(is_done, within_s=15, what="the kept release")
