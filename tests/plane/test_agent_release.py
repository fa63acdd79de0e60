"""Every way in which an agent frees addresses, and above all when it does not."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from allocator.kube.codec import decode_time
from allocator.kube.errors import NotFound
from allocator.kube.resources import PODS, SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES
from devcluster.waiting import until
from tests.plane.agents import Agent, Answer, args, make_node, make_pod, make_pool, running_agent
from tests.plane.test_agent import ONE, kill_pod, make_stateful_set, member, state_of

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


async def hand_back(agent: Agent, pod: Object, container: str = "c1", **more: object) -> Answer:
    """DELETE /v1/ipam/ips as the original's plugin sends it after its detection failed."""
    body = {key: value for key, value in args(pod, container=container).items() if key != "ifName"}
    return await agent.call("DELETE", "/v1/ipam/ips", {**body, **more})


async def ended(agent: Agent, kube: KubeClient, pod: Object) -> None:
    """The pod is gone, and the agent's informer shows it no more: while it does, a collection keeps the address."""
    await kill_pod(kube, pod)
    meta = pod["metadata"]
    query = f"podNamespace={meta['namespace']}&podName={meta['name']}"

    async def is_seen_gone() -> bool:
        return (await agent.call("GET", f"/v1/workloadendpoint?{query}")).status == 404

    await until(is_seen_gone, within_s=10, what="the informer to see the end of the pod")


async def collect(agent: Agent, network: str, *valid: tuple[str, str]) -> Answer:
    attachments = [{"containerID": container, "ifName": interface} for container, interface in valid]
    return await agent.call("POST", "/v1/ipam/gc", {"networkName": network, "validAttachments": attachments})


def bare(answer: Answer) -> str:
    """The address of an answer that has one."""
    (address,) = answer.addresses
    return address.partition("/")[0]


async def interfaces_of(kube: KubeClient, namespace: str, name: str) -> list[str]:
    try:
        endpoint = await kube.get(SPIDER_ENDPOINTS, name, namespace=namespace)
    except NotFound:
        return []
    return [each["interface"] for each in endpoint["status"]["current"]["ips"]]


async def test_what_the_last_add_got_is_handed_back_and_the_next_try_gets_another_address(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    first = bare(await agent.add(pod, container="c1"))
    for flag in (None, True):
        assert (await hand_back(agent, pod, "c1", isReleaseConflictIPs=flag)).status == 200
    record = await kube.get(SPIDER_IP_ADDRESSES, first)
    until_when = decode_time(record["spec"]["until"])
    assert record["spec"]["state"] == "Cooling"
    assert until_when is not None
    assert until_when > datetime.now(UTC) + timedelta(minutes=5)
    assert await interfaces_of(kube, namespace, "cart") == []
    assert (await agent.delete(pod, container="c1")).status == 200
    second = bare(await agent.add(pod, container="c2"))
    assert second != first
    assert await state_of(kube, second) == "Held"


async def test_other_interfaces_of_the_sandbox_keep_their_addresses_when_one_hands_back(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    """The sandbox may run for long: interfaces are plugged into running pods too."""
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    running = bare(await agent.add(pod))
    failing = bare(await agent.add(pod, interface="net1"))
    assert (await hand_back(agent, pod)).status == 200
    assert (await state_of(kube, running), await state_of(kube, failing)) == ("Held", "Cooling")
    assert await interfaces_of(kube, namespace, "cart") == ["eth0"]


async def test_a_living_pod_keeps_what_no_add_has_just_been_answered_for(
    kube: KubeClient, namespace: str, plane: Plane, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.20.0.10")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as agent:
        await agent.add(pod)
        other = await hand_back(agent, pod, "c2")
        assert other.status == 200
        assert await state_of(kube, "10.20.0.10") == "Held"
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as restarted:
        refused = await hand_back(restarted, pod)
        assert (refused.status, "no ADD of this sandbox has just been answered" in refused.json) == (500, True)
        assert await state_of(kube, "10.20.0.10") == "Held"


async def test_a_static_pod_keeps_its_address_with_522(agent: Agent, kube: KubeClient, namespace: str) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    owner = await make_stateful_set(kube, namespace, replicas=1)
    pod = await member(kube, owner, 0, "n1")
    address = bare(await agent.add(pod))
    for flag in (None, True):
        refused = await hand_back(agent, pod, isReleaseConflictIPs=flag)
        assert (refused.status, f"keeps {address}" in refused.json) == (522, True)
    assert await state_of(kube, address) == "Held"


async def test_the_operators_switch_keeps_every_address_with_521(
    kube: KubeClient, namespace: str, plane: Plane, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.20.0.10")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    switch = {"SPIDERPOOL_ENABLED_RELEASE_CONFLICT_IPS": "false"}
    async with running_agent(plane.kubeconfig, "n1", tmp_path, **switch) as agent:
        await agent.add(pod)
        refused = await hand_back(agent, pod, isReleaseConflictIPs=True)
        assert (refused.status, "SPIDERPOOL_ENABLED_RELEASE_CONFLICT_IPS" in refused.json) == (521, True)
    assert await state_of(kube, "10.20.0.10") == "Held"


async def test_a_sandbox_whose_pod_is_gone_hands_everything_back_as_after_del(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    held = [bare(await agent.add(pod, interface=interface)) for interface in ("eth0", "net1")]
    await kill_pod(kube, pod)
    for _ in range(2):
        assert (await hand_back(agent, pod)).status == 200
    assert [await state_of(kube, address) for address in held] == ["Cooling", "Cooling"]
    nameless = {"metadata": {**pod["metadata"], "uid": ""}}
    assert (await hand_back(agent, nameless)).status == 200
    successor = await make_pod(kube, namespace, "cart", "n1", ONE)
    stranger = {"metadata": {**pod["metadata"], "uid": "another"}}
    for wrong, told in ((stranger, "is now another one"), (successor, "holds no address")):
        refused = await hand_back(agent, wrong)
        assert (refused.status, told in refused.json) == (500, True)


async def test_garbage_collection_frees_what_is_not_listed_and_gone_and_nothing_else(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    held: dict[str, str] = {}
    pods: dict[str, Object] = {}
    networks = {"gone": "blue", "listed": "blue", "alive": "blue", "ending": "blue", "elsewhere": "red", "unnamed": ""}
    for name, network in networks.items():
        pods[name] = await make_pod(kube, namespace, name, "n1", ONE)
        held[name] = bare(await agent.add(pods[name], container=f"c-{name}", networkName=network))
    for name in ("gone", "listed", "elsewhere", "unnamed"):
        await ended(agent, kube, pods[name])
    # Until its kubelet says that it has ended, which none does here.
    await kube.delete(PODS, "ending", namespace=namespace, grace_period_s=600)
    for network in ("", "green"):
        assert (await collect(agent, network)).status == 200
    assert {await state_of(kube, address) for address in held.values()} == {"Held"}
    assert (await collect(agent, "blue", ("c-listed", "eth0"), ("c-unknown", "eth0"))).status == 200
    states = {name: await state_of(kube, address) for name, address in held.items()}
    assert states == {**dict.fromkeys(networks, "Held"), "gone": "Cooling"}
    assert await interfaces_of(kube, namespace, "gone") == []


async def test_garbage_collection_keeps_a_slots_address_for_its_successor(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    owner = await make_stateful_set(kube, namespace, replicas=1)
    pod = await member(kube, owner, 0, "n1")
    await agent.add(pod, networkName="blue")
    await ended(agent, kube, pod)
    assert (await collect(agent, "blue")).status == 200
    assert await state_of(kube, "10.20.0.10") == "Retained"


async def test_garbage_collection_with_an_empty_list_takes_nothing_from_running_pods_and_is_braked_when_all_seem_gone(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    pods = [await make_pod(kube, namespace, f"p{index}", "n1", ONE) for index in range(7)]
    for pod in pods:
        assert (await agent.add(pod, container=pod["metadata"]["name"], networkName="blue")).status == 200

    async def states() -> list[str]:
        records, _ = await kube.list_all(SPIDER_IP_ADDRESSES)
        return sorted(each["spec"]["state"] for each in records)

    assert (await collect(agent, "blue")).status == 200
    assert await states() == ["Held"] * 7
    for pod in pods[:6]:
        await ended(agent, kube, pod)
    braked = await collect(agent, "blue")
    assert (braked.status, braked.headers["X-Spiderpool-Reason"]) == (500, "MassReleaseBraked")
    assert braked.json.startswith("6 of the 7 attachments of network blue on this node seem to be gone at once")
    assert await states() == ["Held"] * 7
    assert (await collect(agent, "blue", ("p0", "eth0"))).status == 200
    assert await states() == ["Cooling"] * 5 + ["Held"] * 2


async def test_garbage_collection_beside_adds_loses_no_new_attachment(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.29")
    pods = [await make_pod(kube, namespace, f"p{index}", "n1", ONE) for index in range(8)]
    async with asyncio.TaskGroup() as group:
        adds = [group.create_task(agent.add(pod, container="c", networkName="blue")) for pod in pods]
        collections = [group.create_task(collect(agent, "blue")) for _ in range(8)]
    assert {task.result().status for task in collections} == {200}
    assert {await state_of(kube, bare(task.result())) for task in adds} == {"Held"}


async def test_a_late_del_of_a_predecessor_leaves_its_successor_in_the_slot_alone(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    owner = await make_stateful_set(kube, namespace, replicas=1)
    first = await member(kube, owner, 0, "n1")
    await agent.add(first, container="c1", networkName="blue")
    await kill_pod(kube, first)
    second = await member(kube, owner, 0, "n1")
    assert (await agent.add(second, container="c2", networkName="blue")).addresses == ["10.20.0.10/16"]
    assert (await agent.delete(first, container="c1")).status == 200
    assert (await hand_back(agent, first, "c1")).status == 500
    assert (await collect(agent, "blue", ("c1", "eth0"))).status == 200
    record = await kube.get(SPIDER_IP_ADDRESSES, "10.20.0.10")
    assert (record["spec"]["state"], record["spec"]["holder"]["podUID"]) == ("Held", second["metadata"]["uid"])


async def test_a_kept_del_is_done_when_its_pod_lives_and_when_a_newer_add_has_taken_its_place(
    kube: KubeClient, namespace: str, plane: Plane, tmp_path: Path
) -> None:
    """DELs of an agent that was away come late: the runtime has gone on meanwhile."""
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    pods: dict[str, Object] = {}
    held: dict[str, str] = {}
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as agent:
        for name in ("alive", "gone", "renewed"):
            pods[name] = await make_pod(kube, namespace, name, "n1", ONE)
            held[name] = bare(await agent.add(pods[name], container=f"c-{name}"))
        held["renewed"] = bare(await agent.add(pods["renewed"], container="c-newer"))
    for name in ("gone", "renewed"):
        await kill_pod(kube, pods[name])
    intents = tmp_path / "n1" / "intents"
    intents.mkdir(parents=True, exist_ok=True)
    for name, pod in pods.items():
        (intents / f"{name}.json").write_text(json.dumps(args(pod, container=f"c-{name}")))
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as agent:

        async def are_done() -> bool:
            return not list(intents.iterdir())

        await until(are_done, within_s=20, what="the kept releases")
        states: dict[str, Any] = {name: await state_of(kube, address) for name, address in held.items()}
        assert states == {"alive": "Held", "gone": "Cooling", "renewed": "Held"}
        assert bare(await agent.add(pods["alive"], container="c-alive")) == held["alive"]
