"""Who keeps an address: members of StatefulSets do, pods that only look like them do not; and pools that are full."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from allocator.kube.errors import AlreadyExists, NotFound
from allocator.kube.resources import PODS, SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES, STATEFUL_SETS
from tests.plane.agents import Agent, make_node, make_pod, make_pool, running_agent
from tests.plane.controllers import make_record
from tests.plane.test_agent import ONE, kill_pod, make_stateful_set, state_of

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


@pytest.fixture
async def owner(kube: KubeClient, namespace: str) -> Object:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.12")
    return await make_stateful_set(kube, namespace, replicas=2)


async def member(kube: KubeClient, owner: Object, ordinal: int = 0, node: str = "n1", **annotations: str) -> Object:
    """The StatefulSet's pod on this node: made here, or bound here where a real controller-manager made it first.

    It asks for pool a, unless `annotations` (without their prefix) say otherwise.
    """
    namespace, name = owner["metadata"]["namespace"], f"web-{ordinal}"
    meta = {"name": name, "namespace": namespace}
    try:
        await make_pod(kube, namespace, name, node, ONE, owner)
    except AlreadyExists:
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": target}
        await kube.raw("POST", PODS.path(namespace, name, "binding"), body=binding)
    said: dict[str, str | None] = {f"ipam.spidernet.io/{key}": text for key, text in annotations.items()}
    if said and "ippool" not in annotations:
        said["ipam.spidernet.io/ippool"] = None
    await kube.patch(PODS, name, {"metadata": {"annotations": said}}, namespace=namespace)
    return await kube.get(PODS, name, namespace=namespace)


def interfaces(*pools: str, named: bool = True) -> str:
    """The annotation `ippools`: eth0 and net1, by name or by their places."""
    items = [{"interface": name, "ipv4": [pool]} for name, pool in zip(("eth0", "net1"), pools, strict=True)]
    return json.dumps(items if named else [{"ipv4": item["ipv4"]} for item in items])


async def ends(kube: KubeClient, agent: Agent, pod: Object, *names: str) -> None:
    await kill_pod(kube, pod)
    for name in names or ("eth0",):
        assert (await agent.delete(pod, interface=name)).status == 200


async def endpoint_of(kube: KubeClient, pod: Object) -> dict[str, str]:
    """What the pod's endpoint says, by interface; it must speak of this very pod."""
    meta = pod["metadata"]
    endpoint = await kube.get(SPIDER_ENDPOINTS, meta["name"], namespace=meta["namespace"])
    current = endpoint["status"]["current"]
    assert current["uid"] == meta["uid"]
    return {each["interface"]: each["ipv4"] for each in current["ips"]}


async def test_a_member_on_a_dead_node_that_is_deleted_by_force_gets_its_address_on_another(
    agent: Agent, kube: KubeClient, plane: Plane, owner: Object, tmp_path: Path
) -> None:
    first = await member(kube, owner)
    given = (await agent.add(first)).addresses
    await kill_pod(kube, first)
    await make_node(kube, "n2")
    async with running_agent(plane.kubeconfig, "n2", tmp_path) as other:
        second = await member(kube, owner, node="n2")
        assert (await other.add(second)).addresses == given
        # The node comes back, and its runtime cleans up.
        assert (await agent.delete(first)).status == 200
        assert await state_of(kube, given[0].removesuffix("/16")) == "Held"
        assert (await other.add(second)).addresses == given
    refusal = await agent.add(first)
    assert refusal.headers["X-Spiderpool-Reason"] == "PodNotAlive"


async def test_a_member_that_moves_to_another_pool_gives_its_old_address_back(
    agent: Agent, kube: KubeClient, owner: Object
) -> None:
    await make_pool(kube, "b", "10.20.0.20")
    first = await member(kube, owner)
    old = (await agent.add(first)).addresses[0].removesuffix("/16")
    await ends(kube, agent, first)
    second = await member(kube, owner, ippool='{"ipv4": ["b"]}')
    assert (await agent.add(second)).addresses == ["10.20.0.20/16"]
    assert await state_of(kube, old) == "Cooling"
    assert await endpoint_of(kube, second) == {"eth0": "10.20.0.20/16"}


@pytest.mark.parametrize("named", [True, False], ids=["by name", "by place"])
@pytest.mark.parametrize(
    ("pools", "addresses", "freed"),
    [
        pytest.param(("b", "c"), ["10.20.0.20/16", "10.20.0.30/16"], [], id="nothing changes"),
        pytest.param(("d", "c"), ["10.20.0.40/16", "10.20.0.30/16"], ["10.20.0.20"], id="eth0 moves"),
        pytest.param(("b", "d"), ["10.20.0.20/16", "10.20.0.40/16"], ["10.20.0.30"], id="net1 moves"),
    ],
)
async def test_of_two_interfaces_only_the_one_whose_pool_changes_gets_another_address(
    agent: Agent,
    kube: KubeClient,
    owner: Object,
    pools: tuple[str, str],
    addresses: list[str],
    freed: list[str],
    *,
    named: bool,
) -> None:
    for name, items in (("b", "10.20.0.20"), ("c", "10.20.0.30"), ("d", "10.20.0.40")):
        await make_pool(kube, name, items)
    first = await member(kube, owner, ippools=interfaces("b", "c", named=named))
    for name in ("eth0", "net1"):
        assert (await agent.add(first, interface=name)).status == 200
    await ends(kube, agent, first, "eth0", "net1")
    second = await member(kube, owner, ippools=interfaces(*pools, named=named))
    for name in ("eth0", "net1", "eth0"):
        assert (await agent.add(second, interface=name)).status == 200
    assert await endpoint_of(kube, second) == dict(zip(("eth0", "net1"), addresses, strict=True))
    for text in ("10.20.0.20", "10.20.0.30"):
        assert await state_of(kube, text) == ("Cooling" if text in freed else "Held")


async def test_an_ordinal_that_is_scaled_away_gives_its_address_back_and_another_comes_when_it_returns(
    agent: Agent, kube: KubeClient, namespace: str, owner: Object
) -> None:
    pod = await member(kube, owner, 1)
    given = (await agent.add(pod)).addresses[0].removesuffix("/16")
    await kube.patch(STATEFUL_SETS, "web", {"spec": {"replicas": 1}}, namespace=namespace)
    await ends(kube, agent, pod)
    assert await state_of(kube, given) == "Cooling"
    with pytest.raises(NotFound):
        await kube.get(SPIDER_ENDPOINTS, "web-1", namespace=namespace)
    await kube.patch(STATEFUL_SETS, "web", {"spec": {"replicas": 2}}, namespace=namespace)
    again = await member(kube, owner, 1)
    assert (await agent.add(again)).addresses != [f"{given}/16"]
    assert await state_of(kube, given) == "Cooling"


async def test_a_record_deleted_by_hand_is_made_again_for_the_member(
    agent: Agent, kube: KubeClient, owner: Object
) -> None:
    first = await member(kube, owner)
    given = (await agent.add(first)).addresses
    text = given[0].removesuffix("/16")
    await kube.delete(SPIDER_IP_ADDRESSES, text)
    assert (await agent.add(first, container="c2")).addresses == given
    await kill_pod(kube, first)
    await kube.delete(SPIDER_IP_ADDRESSES, text)
    second = await member(kube, owner)
    assert (await agent.add(second)).addresses == given
    assert await endpoint_of(kube, second) == {"eth0": given[0]}


async def test_a_member_whose_record_was_deleted_by_hand_gets_another_address_when_its_own_is_taken(
    agent: Agent, kube: KubeClient, namespace: str, owner: Object
) -> None:
    first = await member(kube, owner)
    text = (await agent.add(first)).addresses[0].removesuffix("/16")
    await kill_pod(kube, first)
    await kube.delete(SPIDER_IP_ADDRESSES, text)
    other = await make_pod(kube, namespace, "other", "n2")
    await make_record(kube, text, "a", namespace, "other", other["metadata"]["uid"])
    second = await member(kube, owner)
    (given,) = (await agent.add(second)).addresses
    assert given != f"{text}/16"
    assert await endpoint_of(kube, second) == {"eth0": given}


@pytest.mark.parametrize("api_version", ["", "apps.kruise.io/v1beta1"], ids=["no owner", "owner of another group"])
async def test_a_pod_that_only_has_the_name_of_a_member_keeps_nothing(
    agent: Agent, kube: KubeClient, namespace: str, api_version: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    stateful_set = await make_stateful_set(kube, namespace, replicas=0)
    meta: Object = {"name": "web-3", "namespace": namespace, "annotations": {"ipam.spidernet.io/ippool": ONE}}
    if api_version:
        # With the UID of something that lives, or the garbage collector takes the pod.
        owner = {"kind": "StatefulSet", "name": "web", "uid": stateful_set["metadata"]["uid"], "controller": True}
        meta["ownerReferences"] = [{"apiVersion": api_version, **owner}]
    spec = {"nodeName": "n1", "containers": [{"name": "main", "image": "none"}]}
    pod = await kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    assert (await agent.add(pod)).addresses == ["10.20.0.10/16"]
    endpoint = await kube.get(SPIDER_ENDPOINTS, "web-3", namespace=namespace)
    assert [each["uid"] for each in endpoint["metadata"]["ownerReferences"]] == [pod["metadata"]["uid"]]
    await kube.patch(STATEFUL_SETS, "web", {"spec": {"replicas": 5}}, namespace=namespace)
    await ends(kube, agent, pod)
    assert await state_of(kube, "10.20.0.10") == "Cooling"


async def test_a_rolling_restart_on_a_pool_without_a_spare_address_goes_through(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.12")
    pods = [await make_pod(kube, namespace, f"cart-old-{index}", "n1", ONE) for index in range(3)]
    given = {pod["metadata"]["name"]: (await agent.add(pod)).addresses for pod in pods}
    everything = sorted(address for addresses in given.values() for address in addresses)
    assert everything == ["10.20.0.10/16", "10.20.0.11/16", "10.20.0.12/16"]
    for pod in pods:
        # A sandbox made anew on the full pool.
        assert (await agent.add(pod, container="c2")).addresses == given[pod["metadata"]["name"]]
    renewed = []
    for index, pod in enumerate(pods):
        await kill_pod(kube, pod)
        assert (await agent.delete(pod, container="c2")).status == 200
        renewed += (await agent.add(await make_pod(kube, namespace, f"cart-new-{index}", "n1", ONE))).addresses
    assert sorted(renewed) == everything
