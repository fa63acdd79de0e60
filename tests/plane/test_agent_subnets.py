"""Pods that take their addresses from SpiderSubnets: real agents on an API server, the tests make the pools."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from agent.server import DEADLINE_HEADER
from allocator.domain.applications import Application
from allocator.domain.auto_pools import Purpose, empty_pool, labels_of, pool_name
from allocator.kube.resources import (
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    SPIDER_IP_ADDRESSES,
    SPIDER_IP_POOLS,
    SPIDER_SUBNETS,
)
from devcluster.waiting import until_true
from tests.plane.agents import Agent, args, make_node, make_pool, running_agent
from tests.plane.test_allocation import make_owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.plane.agents import Answer

PREFIX = "ipam.spidernet.io/"
CONF = "clusterDefaultIPv4Subnet: [cluster]\n"


@dataclass(frozen=True)
class Shop:
    """A namespace with workloads, and what the controller makes for them."""

    kube: KubeClient
    namespace: str
    plane: Plane

    async def deployment(self, name: str) -> tuple[Application, Object]:
        """And its ReplicaSet."""
        if self.plane.real and self.plane.controllers:
            pytest.skip(
                "kube-controller-manager ends pods that it has not made itself: test_subnets_whole.py runs there"
            )
        top = await make_owner(self.kube, DEPLOYMENTS, self.namespace, name, None)
        maker = await make_owner(self.kube, REPLICA_SETS, self.namespace, f"{name}-1", top)
        return self.application(top), maker

    def application(self, raw: Object) -> Application:
        meta = raw["metadata"]
        return Application(raw["apiVersion"], raw["kind"], self.namespace, meta["name"], meta["uid"])

    async def pod(self, name: str, owner: Object | None = None, **annotations: Any) -> Object:
        notes = {
            PREFIX + key: value if isinstance(value, str) else json.dumps(value) for key, value in annotations.items()
        }
        meta: Object = {"name": name, "namespace": self.namespace, "annotations": notes}
        if owner is not None:
            reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "controller": True}
            meta["ownerReferences"] = [
                {**reference, "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
            ]
            meta["labels"] = owner["spec"]["selector"]["matchLabels"]
        spec = {"nodeName": "n1", "containers": [{"name": "main", "image": "none"}]}
        return await self.kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

    async def subnet(self, name: str, network: str) -> Object:
        meta, kind = {"name": name}, {"apiVersion": SPIDER_SUBNETS.api_version, "kind": SPIDER_SUBNETS.kind}
        spec: Object = {"subnet": network, "ipVersion": 6 if ":" in network else 4, "ips": []}
        return {**kind, **await self.kube.create(SPIDER_SUBNETS, {**kind, "metadata": meta, "spec": spec})}

    async def pool(self, application: Application, subnet: Object, *ips: str, interface: str = "eth0") -> str:
        """Born empty, and then given its addresses, if any."""
        version = subnet["spec"]["ipVersion"]
        purpose = Purpose(application, interface, version, subnet["metadata"]["name"], is_reclaimed=True)
        name = pool_name(application, interface, version)
        await self.kube.create(SPIDER_IP_POOLS, empty_pool(name, purpose, subnet, "+1"))
        if ips:
            await self.give(name, *ips)
        return name

    async def give(self, pool: str, *ips: str) -> None:
        await self.kube.patch(SPIDER_IP_POOLS, pool, {"spec": {"ips": ips}})


@pytest.fixture
def shop(kube: KubeClient, namespace: str, plane: Plane) -> Shop:
    return Shop(kube, namespace, plane)


@pytest.fixture
async def agent(plane: Plane, kube: KubeClient, tmp_path: Path) -> AsyncIterator[Agent]:
    await make_node(kube, "n1")
    conf = tmp_path / "conf.yml"
    conf.write_text(CONF)
    async with running_agent(plane.kubeconfig, "n1", tmp_path, "--config", str(conf)) as running:
        yield running


@asynccontextmanager
async def waiting(agent: Agent, *pods: Object) -> AsyncIterator[list[asyncio.Task[Answer]]]:
    """ADDs of the pods; the block begins when all of them wait."""
    log = agent.socket.with_suffix(".log")
    before = log.read_text().count("pool_awaited")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(agent.add(pod, container=pod["metadata"]["name"])) for pod in pods]
        await until_true(
            lambda: log.read_text().count("pool_awaited") == before + len(pods), within_s=15, what="ADDs that wait"
        )
        yield tasks


def told(answer: Answer) -> tuple[str, str]:
    assert answer.status == 500, answer.json
    return answer.headers["X-Spiderpool-Reason"], answer.json


async def test_an_add_waits_for_its_pool_which_is_born_empty_and_then_filled(agent: Agent, shop: Shop) -> None:
    application, maker = await shop.deployment("cart")
    subnet = await shop.subnet("s4", "10.20.0.0/16")
    async with waiting(agent, await shop.pod("cart-1", maker, subnet={"ipv4": ["s4"]})) as (add,):
        pool = await shop.pool(application, subnet)
        await shop.give(pool, "10.20.0.10")
        answer = await add
    assert [(each["address"], each["ipPool"]) for each in answer.json["ips"]] == [("10.20.0.10/16", pool)]


async def test_pods_of_one_deployment_that_wait_are_served_together_in_both_families(agent: Agent, shop: Shop) -> None:
    application, maker = await shop.deployment("cart")
    subnets = await shop.subnet("s4", "10.20.0.0/16"), await shop.subnet("s6", "fd00::/64")
    asked = {"ipv4": ["s4"], "ipv6": ["s6"]}
    pods = [await shop.pod(f"cart-{index}", maker, subnet=asked) for index in range(2)]
    async with waiting(agent, *pods) as adds:
        await shop.pool(application, subnets[0], "10.20.0.10-10.20.0.11")
        await shop.pool(application, subnets[1], "fd00::10-fd00::11")
        given = [address for add in adds for address in (await add).addresses]
    assert sorted(given) == ["10.20.0.10/16", "10.20.0.11/16", "fd00::10/64", "fd00::11/64"]


async def test_a_full_pool_that_grows_serves_who_waits_and_one_that_does_not_is_told(agent: Agent, shop: Shop) -> None:
    application, maker = await shop.deployment("cart")
    pool = await shop.pool(application, await shop.subnet("s4", "10.20.0.0/16"), "10.20.0.10")
    first, second, third = [await shop.pod(f"cart-{index}", maker, subnet={"ipv4": ["s4"]}) for index in range(3)]
    assert (await agent.add(first)).addresses == ["10.20.0.10/16"]
    async with waiting(agent, second) as (add,):
        await shop.give(pool, "10.20.0.10-10.20.0.11")
        assert (await add).addresses == ["10.20.0.11/16"]
    reason, text = told(await agent.add(third))
    assert reason == "PoolExhausted"
    assert f"The controller sizes what it makes for Deployment {shop.namespace}/cart" in text


async def test_a_pool_that_does_not_come_in_time_is_told_with_where_to_look(agent: Agent, shop: Shop) -> None:
    _, maker = await shop.deployment("cart")
    await shop.subnet("s4", "10.20.0.0/16")
    pod = await shop.pod("cart-1", maker, subnet={"ipv4": ["s4"]})
    answer = await agent.call("POST", "/v1/ipam/ip", args(pod), headers={DEADLINE_HEADER: "2"})
    reason, text = told(answer)
    assert reason == "AutoPoolPending"
    assert f"waited 1 s: eth0 of Deployment {shop.namespace}/cart has no IPv4 pool" in text
    assert text.endswith("kubectl describe ss s4")
    assert (await shop.kube.list(SPIDER_IP_ADDRESSES))["items"] == []


async def test_a_pod_whose_subnets_are_all_unknown_is_refused_at_once(agent: Agent, shop: Shop) -> None:
    pod = await shop.pod("lonely", subnet={"ipv4": ["nowhere", "gone"]})
    reason, text = told(await agent.add(pod))
    assert reason == "NoPoolAvailable"
    assert f"there is no SpiderSubnet nowhere, gone, from which Pod {shop.namespace}/lonely" in text


async def test_an_interface_without_an_item_takes_its_addresses_elsewhere(agent: Agent, shop: Shop) -> None:
    application, maker = await shop.deployment("cart")
    await shop.pool(application, await shop.subnet("s4", "10.20.0.0/16"), "10.20.0.10")
    await make_pool(shop.kube, "hand", "10.21.0.10", "10.21.0.0/16", default=True)
    pod = await shop.pod("cart-1", maker, subnet={"ipv4": ["s4"]})
    assert (await agent.add(pod)).addresses == ["10.20.0.10/16"]
    told_of_both = (await agent.add(pod, interface="net1")).json["ips"]
    assert {each["nic"]: each["address"] for each in told_of_both}["net1"] == "10.21.0.10/16"


async def test_defaults_of_the_namespace_go_before_the_networks_and_those_before_the_clusters(
    agent: Agent, shop: Shop
) -> None:
    application, maker = await shop.deployment("cart")
    await make_pool(shop.kube, "network", "10.22.0.10", "10.22.0.0/16")
    await shop.pool(application, await shop.subnet("cluster", "10.20.0.0/16"), "10.20.0.10")
    assert (await agent.add(await shop.pod("cart-1", maker))).addresses == ["10.20.0.10/16"]
    of_network = await agent.add(await shop.pod("cart-2", maker), defaultIPv4IPPool=["network"])
    assert of_network.addresses == ["10.22.0.10/16"]
    note = {"metadata": {"annotations": {f"{PREFIX}default-ipv4-subnet": '["namespace"]'}}}
    await shop.kube.patch(NAMESPACES, shop.namespace, note)
    other, its = await shop.deployment("pay")
    await shop.pool(other, await shop.subnet("namespace", "10.21.0.0/16"), "10.21.0.10")
    of_namespace = await agent.add(await shop.pod("pay-1", its), defaultIPv4IPPool=["network"])
    assert of_namespace.addresses == ["10.21.0.10/16"]


async def test_a_pool_of_another_application_is_not_to_be_had_by_its_name(agent: Agent, shop: Shop) -> None:
    application, maker = await shop.deployment("cart")
    pool = await shop.pool(application, await shop.subnet("s4", "10.20.0.0/16"), "10.20.0.10")
    reason, text = told(await agent.add(await shop.pod("thief", ippool={"ipv4": [pool]})))
    assert reason == "NoPoolAvailable"
    assert f"the pool is made for eth0 of Deployment {shop.namespace}/cart" in text
    assert (await agent.add(await shop.pod("cart-1", maker, ippool={"ipv4": [pool]}))).addresses == ["10.20.0.10/16"]


async def test_a_bare_pod_has_a_pool_of_its_own(agent: Agent, shop: Shop) -> None:
    subnet = await shop.subnet("s4", "10.20.0.0/16")
    pod = await shop.pod("lonely", subnet={"ipv4": ["s4"]})
    async with waiting(agent, pod) as (add,):
        await shop.pool(
            Application("v1", "Pod", shop.namespace, "lonely", pod["metadata"]["uid"]), subnet, "10.20.0.10"
        )
        assert (await add).addresses == ["10.20.0.10/16"]


async def test_the_pool_of_an_earlier_deployment_of_the_name_is_used_once_its_labels_say_so(
    agent: Agent, shop: Shop
) -> None:
    application, maker = await shop.deployment("cart")
    earlier = Application("apps/v1", "Deployment", shop.namespace, "cart", "0f0f0f0f-0000-0000-0000-00000000aaaa")
    pool = await shop.pool(earlier, await shop.subnet("s4", "10.20.0.0/16"), "10.20.0.10")
    async with waiting(agent, await shop.pod("cart-1", maker, subnet={"ipv4": ["s4"]})) as (add,):
        labels = labels_of(Purpose(application, "eth0", 4, "s4", is_reclaimed=False))
        await shop.kube.patch(SPIDER_IP_POOLS, pool, {"metadata": {"labels": labels}})
        assert (await add).addresses == ["10.20.0.10/16"]


@pytest.mark.parametrize(
    ("switch", "outcome"), [("enableSpiderSubnet", "10.21.0.10/16"), ("enableAutoPoolForApplication", "InvalidRequest")]
)
async def test_without_subnets_the_annotation_is_ignored_and_without_pools_of_them_it_is_refused(
    plane: Plane, shop: Shop, tmp_path: Path, switch: str, outcome: str
) -> None:
    await make_node(shop.kube, "n1")
    conf = tmp_path / "conf.yml"
    conf.write_text(f"{switch}: false\n")
    await make_pool(shop.kube, "hand", "10.21.0.10", "10.21.0.0/16", default=True)
    async with running_agent(plane.kubeconfig, "n1", tmp_path, "--config", str(conf)) as agent:
        answer = await agent.add(await shop.pod("cart-1", subnet={"ipv4": ["s4"]}))
    assert outcome in (answer.headers.get("X-Spiderpool-Reason"), *(answer.addresses if answer.status == 200 else []))
