"""One address at two pods: how it came about elsewhere (pains P1 to P6 of tests/FAULTS.md), and that it cannot here.

Each test names the thread that it comes from and tells what went wrong there.
"""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from contextlib import AsyncExitStack
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from allocator.domain.addresses import object_name
from allocator.domain.reclaim import Act, NodeState, Rules, Sighting, Why, judge
from allocator.kube.client import KubeClient
from allocator.kube.codec import decode_record, encode_record
from allocator.kube.resources import NAMESPACES, PODS, SPIDER_IP_ADDRESSES
from tests.plane.agents import make_node, make_pod, make_pool, running_agent
from tests.plane.between import between
from tests.plane.controllers import NOBODY, make_record, make_stateful_set, slot_of, state_of
from tests.plane.test_agent import ONE, kill_pod
from tests.plane.turns import leading, reclaim, two_sightings
from tests.unit.fake_clock import FakeClock
from tests.unit.records import NOON, a_record

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web

    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.plane.agents import Agent
    from tests.plane.between import Call

API = "spiderpool.spidernet.io/v2beta1"
TWO = '{"ipv4": ["b"]}'


async def held(kube: KubeClient) -> dict[str, str]:
    """Who holds each address, by UID."""
    records, _ = await kube.list_all(SPIDER_IP_ADDRESSES)
    return {
        each["spec"]["address"]: each["spec"]["holder"]["podUID"] for each in records if each["spec"]["state"] == "Held"
    }


def bare(addresses: list[str]) -> str:
    (address,) = addresses
    return address.partition("/")[0]


async def test_p1a_garbage_collection_reads_the_record_first_and_the_pod_after_it(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    """whereabouts#207: the pods were listed before the reservations, so that one made in between had no pod."""
    await make_pool(kube, "a", "10.20.0.10")
    stateful_set = await make_stateful_set(kube, namespace, replicas=0)
    await make_record(kube, "10.20.0.10", "a", namespace, "db-0", NOBODY, slot=slot_of(stateful_set, 0))
    clock = FakeClock()
    async with (
        between(plane.kubeconfig, tmp_path) as api,
        KubeClient.connect(kubeconfig=api.kubeconfig, user_agent="tests") as client,
        leading(client, clock, reclaim) as loop,
    ):
        await two_sightings(loop, clock)
    told = ("spideripaddresses", "pods", "statefulsets")
    live = [f"{call.method} {call.of}" for call in api.calls if call.name and call.of in told]
    assert live == ["GET spideripaddresses", "GET pods", "GET statefulsets", "PATCH spideripaddresses"]


async def test_p1b_a_pod_is_known_by_its_uid_and_not_by_its_name(kube: KubeClient, namespace: str) -> None:
    """whereabouts#176: pods were compared by name, and the pods of a StatefulSet keep theirs."""
    pod = await make_pod(kube, namespace, "db-0", "n1")
    await make_record(kube, "10.20.0.10", "a", namespace, "db-0", NOBODY)
    await make_record(kube, "10.20.0.11", "a", namespace, "db-0", pod["metadata"]["uid"])
    clock = FakeClock()
    async with leading(kube, clock, reclaim) as loop:
        await two_sightings(loop, clock)
    assert [await state_of(kube, text) for text in ("10.20.0.10", "10.20.0.11")] == ["Cooling", "Held"]


async def test_p1c_no_text_of_an_ipv6_address_decides_whether_its_pod_lives(kube: KubeClient, namespace: str) -> None:
    """OCPBUGS-4417: the object's name, with dashes for colons, never equalled what the pod reported."""
    pod = await make_pod(kube, namespace, "six", "n1")
    # As pods report it, as people write it, and as the object is named: all three differ.
    status = {"podIPs": [{"ip": "FD00:0:0:0::0A"}], "podIP": "FD00:0:0:0::0A", "phase": "Running"}
    await kube.patch(PODS, "six", {"status": status}, namespace=namespace, subresource="status")
    await make_record(kube, "fd00::a", "six", namespace, "six", pod["metadata"]["uid"])
    await make_record(kube, "fd00::b", "six", namespace, "ghost", NOBODY)
    assert object_name(ip_address("fd00::a")) == "fd00-0-0-0-0-0-0-a"
    clock = FakeClock()
    async with leading(kube, clock, reclaim) as loop:
        await two_sightings(loop, clock)
    assert [await state_of(kube, text) for text in ("fd00::a", "fd00::b")] == ["Held", "Cooling"]


@pytest.mark.parametrize("lost", ["holder", "podUID", "pod", "namespace", "state", "containerID"])
def test_p1d_a_record_that_lost_a_field_is_nobodys_to_free(lost: str) -> None:
    """cluster-network-operator#1677: the schema lacked the field with the pod, and pruning made every pod look dead.

    tests/plane/test_faults_schema.py has the other half: an agent does not serve on such a schema.
    """
    raw = copy.deepcopy(encode_record(a_record()))
    raw["metadata"] |= {"uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-01-01T12:00:00Z"}
    place: dict[str, Any] = raw["spec"] if lost in raw["spec"] else raw["spec"]["holder"]
    del place[lost]
    seen = Sighting(record=decode_record(raw), pod=None, node=NodeState.GONE)
    verdict = judge(seen, Rules(), NOON)
    assert (verdict.act, verdict.why) == (Act.KEEP, Why.NOT_OURS_TO_FREE)


@pytest.mark.parametrize("behind", ["pods", "addresses", "endpoints", "nodes", "statefulsets"])
async def test_p1e_whichever_cache_is_behind_nobody_who_lives_loses_an_address(
    kube: KubeClient, namespace: str, behind: str
) -> None:
    """spiderpool#2526, calico#5044: the pool's cache was newer than the pod's, and the sweep went by what both said."""
    await make_record(kube, "10.20.0.10", "a", namespace, "before", NOBODY)
    clock = FakeClock()
    async with leading(kube, clock, reclaim, deaf_to=behind) as loop:
        pod = await make_pod(kube, namespace, "cart", "n1")
        # Another pod's address goes to this one, and it gets a second: which of it the leader has heard depends.
        await kube.delete(SPIDER_IP_ADDRESSES, "10.20.0.10")
        for text in ("10.20.0.10", "10.20.0.11"):
            await make_record(kube, text, "a", namespace, "cart", pod["metadata"]["uid"])
        for _ in range(3):
            await two_sightings(loop, clock)
            await asyncio.sleep(0)
    assert await held(kube) == dict.fromkeys(("10.20.0.10", "10.20.0.11"), pod["metadata"]["uid"])


async def test_p2_the_clean_up_of_a_pod_never_meets_its_namesake_on_another_node(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    """spiderpool#1187, OCPBUGS-59640: a pod was made again fast, and what was still to be done for the first one was
    done to the second, which had its name and, in a StatefulSet, its address.
    """
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    async with AsyncExitStack() as stack:
        old, new = [await a_node(stack, plane, kube, node, tmp_path) for node in ("n1", "n2")]
        first = await make_pod(kube, namespace, "cart", "n1", ONE)
        await old.add(first)
        await kill_pod(kube, first)
        second = await make_pod(kube, namespace, "cart", "n2", ONE)
        given = bare((await new.add(second)).addresses)
        nameless = {"metadata": {**first["metadata"], "uid": ""}}  # of a runtime that passes no UID
        for late in (first, nameless, first):
            assert (await old.delete(late)).status == 200
    assert await held(kube) == {given: second["metadata"]["uid"]}


async def a_node(stack: AsyncExitStack, plane: Plane, kube: KubeClient, node: str, directory: Path) -> Agent:
    await make_node(kube, node)
    return await stack.enter_async_context(running_agent(plane.kubeconfig, node, directory))


async def test_p3_two_pools_made_at_once_that_overlap_never_give_one_address_twice(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    """antrea#7306, calico#3589: an overlap was found by listing and then admitting, which two creations both pass; what
    both pools offered was given by both.
    """
    async with asyncio.TaskGroup() as group:  # no webhook is registered: nobody stands in the way
        group.create_task(make_pool(kube, "a", "10.20.0.10-10.20.0.17"))
        group.create_task(make_pool(kube, "b", "10.20.0.14-10.20.0.21"))
    async with AsyncExitStack() as stack:
        agents = [await a_node(stack, plane, kube, node, tmp_path) for node in ("n1", "n2")]
        pods = [
            (agents[index % 2], await make_pod(kube, namespace, f"p{index}", f"n{index % 2 + 1}", pools))
            for index, pools in enumerate([ONE, ONE, TWO, TWO] * 4)
        ]
        async with asyncio.TaskGroup() as group:
            adds = [group.create_task(agent.add(pod)) for agent, pod in pods]
    answers = [(pod["metadata"]["uid"], add.result()) for (_, pod), add in zip(pods, adds, strict=True)]
    given = {bare(answer.addresses): uid for uid, answer in answers if answer.status == 200}
    # Eight of the pool that was stored first, and the four of the other that it does not offer.
    assert set(given) == {f"10.20.0.{number}" for number in range(10, 22)}
    assert await held(kube) == given
    assert Counter(answer.headers.get("X-Spiderpool-Reason") for _, answer in answers) == {None: 12, "PoolExhausted": 4}


async def test_p4_an_agent_that_lost_all_it_knew_gives_no_address_that_is_in_use(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    """kube-ovn#4304, amazon-vpc-cni-k8s#711: after a restart the allocator was filled from what pods said of
    themselves, which was not all, and served before that was done.
    """
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.20.0.10-10.20.0.14")
    pods = [await make_pod(kube, namespace, f"p{index}", "n1", ONE) for index in range(6)]
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as agent:
        before = [bare((await agent.add(pod)).addresses) for pod in pods[:4]]
        agent.process.kill()
    # Nobody's status tells an address, and the state folder is a new one.
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    async with running_agent(plane.kubeconfig, "n1", fresh) as agent:
        async with asyncio.TaskGroup() as group:
            adds = [group.create_task(agent.add(pod)) for pod in pods]
        answers = [add.result() for add in adds]
    assert [bare(answer.addresses) for answer in answers[:4]] == before
    assert sorted(answer.status for answer in answers[4:]) == [200, 500]
    assert len(await held(kube)) == 5


@pytest.mark.parametrize("source", ["annotation", "namespace", "cluster"])
async def test_p5_two_interfaces_of_a_pod_on_one_pool_have_two_addresses(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path, source: str
) -> None:
    """Spiderpool 1.2: a record had no interface, and whatever of a pod asked next was answered with the pod's address.

    spiderpool#2035 says only that two interfaces in one subnet make no sense.
    """
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19", default=source == "cluster")
    if source == "namespace":
        said = {"metadata": {"annotations": {"ipam.spidernet.io/default-ipv4-ippool": '["a"]'}}}
        await kube.patch(NAMESPACES, namespace, said)
    pod = await make_pod(kube, namespace, "cart", "n1", ONE if source == "annotation" else "")
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as agent, asyncio.TaskGroup() as group:
        adds = [group.create_task(agent.add(pod, interface=interface)) for interface in ("eth0", "net1") * 2]
    eth0, net1, eth0_again, net1_again = (bare(add.result().addresses) for add in adds)
    assert (eth0, net1) == (eth0_again, net1_again)
    assert sorted(await held(kube)) == sorted({eth0, net1})
    assert eth0 != net1


async def test_p6_two_nodes_that_go_for_one_address_at_the_same_moment_do_not_both_get_it(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    """libcalico-go#778: a claim was two objects and had no state in between, so that two hosts believed to have it."""
    await make_pool(kube, "a", "10.20.0.10")
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(between(plane.kubeconfig, tmp_path))
        waiting, both = 0, asyncio.Event()

        async def meet(call: Call) -> web.StreamResponse:
            nonlocal waiting
            if call.is_write and call.of == "spideripaddresses" and call.method == "POST":
                waiting += 1
                if waiting == 2:
                    both.set()
                await both.wait()
            return await call.passes()

        api.meddle = meet
        pods: list[Object] = []
        agents: list[Agent] = []
        for node in ("n1", "n2"):
            await make_node(kube, node)
            agents.append(await stack.enter_async_context(running_agent(api.kubeconfig, node, tmp_path)))
            pods.append(await make_pod(kube, namespace, f"on-{node}", node, ONE))
        async with asyncio.TaskGroup() as group:
            adds = [group.create_task(agent.add(pod)) for agent, pod in zip(agents, pods, strict=True)]
    answers = {pod["metadata"]["uid"]: add.result() for pod, add in zip(pods, adds, strict=True)}
    assert sorted(answer.status for answer in answers.values()) == [200, 500]
    (winner,) = (await held(kube)).values()
    assert answers[winner].status == 200
