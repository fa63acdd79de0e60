"""What an ADD gives and what it leaves behind: who may have addresses, of whom, and for several interfaces at once."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from allocator.domain.request import Owner, Pod
from allocator.kube.cluster import NodeView
from allocator.kube.errors import NotFound
from allocator.kube.resources import (
    CRON_JOBS,
    DEPLOYMENTS,
    JOBS,
    PODS,
    REPLICA_SETS,
    SPIDER_ENDPOINTS,
    SPIDER_IP_ADDRESSES,
    Resource,
)
from allocator.runtime.clock import SystemClock
from tests.plane.agents import Agent, make_node, make_pool, running_agent
from tests.plane.test_agent_choosing import make_pod

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane

ONE = {"ipv4": ["a"]}
TWO = [{"interface": "eth0", "ipv4": ["a"]}, {"interface": "net1", "ipv4": ["b"]}]


@pytest.fixture
async def agent(plane: Plane, kube: KubeClient, tmp_path: Path) -> AsyncIterator[Agent]:
    await make_node(kube, "n1")
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as running:
        yield running


async def interfaces_of(kube: KubeClient, pod: Object) -> dict[str, str]:
    """What the pod's endpoint says: the IPv4 address by interface."""
    meta = pod["metadata"]
    endpoint = await kube.get(SPIDER_ENDPOINTS, meta["name"], namespace=meta["namespace"])
    return {each["interface"]: each["ipv4"] for each in endpoint["status"]["current"]["ips"]}


async def leaves_nothing(kube: KubeClient, pod: Object, *others: str) -> None:
    """Neither the ledger nor an endpoint knows of the pod; `others` are the addresses that somebody else has."""
    records = (await kube.list(SPIDER_IP_ADDRESSES))["items"]
    assert sorted(record["metadata"]["name"] for record in records) == sorted(others)
    with pytest.raises(NotFound):
        await kube.get(SPIDER_ENDPOINTS, pod["metadata"]["name"], namespace=pod["metadata"]["namespace"])


async def test_only_a_pod_that_waits_or_runs_gets_an_address(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    states = {
        "waits": {"phase": "Pending"},
        "runs": {"phase": "Running"},
        "succeeded": {"phase": "Succeeded"},
        "failed": {"phase": "Failed"},
        "evicted": {"phase": "Failed", "reason": "Evicted"},
        "terminates": {"phase": "Running"},
    }
    pods = {name: await make_pod(kube, namespace, name, ippool=ONE) for name in states}
    for name, status in states.items():
        await kube.patch(PODS, name, {"status": status}, namespace=namespace, subresource="status")
    await kube.delete(PODS, "terminates", namespace=namespace, grace_period_s=30)
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as agent:
        answers = {name: await agent.add(pod) for name, pod in pods.items()}
    given = {name for name, answer in answers.items() if answer.status == 200}
    assert given == {"waits", "runs"}
    assert {answers[name].headers["X-Spiderpool-Reason"] for name in states.keys() - given} == {"PodNotAlive"}
    assert len((await kube.list(SPIDER_IP_ADDRESSES))["items"]) == 2


async def make_owner(kube: KubeClient, resource: Resource, namespace: str, name: str, owner: Object | None) -> Object:
    """A controller that makes no pods; its labels are those that its own controller looks for."""
    labels = {"app": owner["metadata"]["name"] if owner is not None else name}
    template: dict[str, Any] = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "m", "image": "none"}]},
    }
    spec: dict[str, Any] = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    if resource in (JOBS, CRON_JOBS):
        template["spec"]["restartPolicy"] = "Never"
        spec = {"suspend": True, "template": template}
    if resource is CRON_JOBS:
        spec = {"suspend": True, "schedule": "@yearly", "jobTemplate": {"spec": spec}}
    meta: Object = {"name": name, "namespace": namespace, "labels": labels}
    if owner is not None:
        kind = {key: owner[key] for key in ("apiVersion", "kind")}
        meta["ownerReferences"] = [{**kind, "name": labels["app"], "uid": owner["metadata"]["uid"], "controller": True}]
    body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, "spec": spec}
    return {**body, **await kube.create(resource, body)}


async def test_the_top_controller_of_a_pod_is_who_made_the_one_that_made_it(kube: KubeClient, namespace: str) -> None:
    deployment = await make_owner(kube, DEPLOYMENTS, namespace, "web", None)
    cron = await make_owner(kube, CRON_JOBS, namespace, "nightly", None)
    makers = {
        "ReplicaSet/lonely": await make_owner(kube, REPLICA_SETS, namespace, "lonely", None),
        "Deployment/web": await make_owner(kube, REPLICA_SETS, namespace, "web-1", deployment),
        "Job/once": await make_owner(kube, JOBS, namespace, "once", None),
        "CronJob/nightly": await make_owner(kube, JOBS, namespace, "nightly-1", cron),
        "CloneSet/clones": {"apiVersion": "apps.kruise.io/v1", "kind": "CloneSet", "metadata": {"name": "clones"}},
        "ReplicationController/old": {"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "old"}},
    }
    view = NodeView(kube, "n1", clock=SystemClock(), rng=random.Random(7))  # noqa: S311
    for expected, raw in makers.items():
        meta = raw["metadata"]
        maker = Owner(raw["apiVersion"], raw["kind"], meta["name"], meta.get("uid", "unknown"))
        top = await view.owner(Pod(namespace=namespace, name="cart", uid="u1", node="n1", controller=maker))
        assert f"{top.kind}/{top.name}" == expected
    alone = await view.owner(Pod(namespace=namespace, name="cart", uid="u1", node="n1"))
    assert (alone.kind, alone.name) == ("Pod", "cart")


async def test_one_add_takes_addresses_for_all_listed_interfaces_and_the_later_ones_find_theirs(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    await make_pool(kube, "b", "10.20.0.20")
    pod = await make_pod(kube, namespace, "cart", ippools=TWO)
    await agent.add(pod, interface="net1")
    assert await interfaces_of(kube, pod) == {"eth0": "10.20.0.10/16", "net1": "10.20.0.20/16"}
    late = await make_pod(kube, namespace, "late", ippool=ONE)
    assert (await agent.add(late)).headers["X-Spiderpool-Reason"] == "PoolExhausted"
    for interface, address in (("eth0", "10.20.0.10/16"), ("net1", "10.20.0.20/16")):
        told = (await agent.add(pod, interface=interface)).json["ips"]
        assert [each["address"] for each in told if each["nic"] == interface] == [address]


async def test_an_add_that_fails_for_one_interface_leaves_nothing_of_the_others(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    await make_pool(kube, "b", "10.20.1.10")
    await agent.add(await make_pod(kube, namespace, "first", ippool={"ipv4": ["b"]}))
    pod = await make_pod(kube, namespace, "cart", ippools=TWO)
    for interface in ("eth0", "net1"):
        refusal = await agent.add(pod, interface=interface)
        assert (refusal.status, "b: no free address" in refusal.json) == (500, True)
        await leaves_nothing(kube, pod, "10.20.1.10")


async def test_a_dual_stack_add_that_fails_leaves_neither_an_address_nor_an_endpoint(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    await make_pool(kube, "six", "fd00::10", "fd00::/64", excludeIPs=["fd00::10"])
    pod = await make_pod(kube, namespace, "cart", ippool={"ipv4": ["a"], "ipv6": ["six"]})
    assert (await agent.add(pod)).status == 500
    await leaves_nothing(kube, pod)


async def test_adds_of_two_interfaces_at_once_leave_both_in_the_endpoint(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.11")
    pod = await make_pod(kube, namespace, "cart", ippool=ONE)
    async with asyncio.TaskGroup() as group:
        for interface in ("eth0", "net1"):
            group.create_task(agent.add(pod, interface=interface))
    shown = await interfaces_of(kube, pod)
    assert sorted(shown) == ["eth0", "net1"]
    assert sorted(shown.values()) == ["10.20.0.10/16", "10.20.0.11/16"]


async def test_a_pod_whose_pools_are_of_a_family_that_is_switched_off_is_refused_in_words(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    await make_pool(kube, "six", "fd00::10", "fd00::/64")
    conf = tmp_path / "conf.yml"
    conf.write_text("enableIPv6: false\n")
    pod = await make_pod(kube, namespace, "cart", ippool={"ipv6": ["six"]})
    async with running_agent(plane.kubeconfig, "n1", tmp_path, "--config", str(conf)) as agent:
        refusal = await agent.add(pod)
    assert (refusal.status, refusal.headers["X-Spiderpool-Reason"]) == (500, "NoPoolAvailable")
    assert "IPv6" in refusal.json
    await leaves_nothing(kube, pod)


async def test_a_pod_made_again_under_its_name_gets_an_address_of_its_own_while_the_first_ones_is_still_recorded(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.11")
    first = await make_pod(kube, namespace, "cart", ippool=ONE)
    before = (await agent.add(first)).addresses
    await kube.delete(PODS, "cart", namespace=namespace, grace_period_s=0)
    second = await make_pod(kube, namespace, "cart", ippool=ONE)
    after = (await agent.add(second)).addresses
    assert sorted(before + after) == ["10.20.0.10/16", "10.20.0.11/16"]
    await agent.delete(first)
    assert await interfaces_of(kube, second) == {"eth0": after[0]}
    assert (await agent.add(first)).headers["X-Spiderpool-Reason"] == "PodNotAlive"
