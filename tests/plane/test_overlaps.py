"""Pools and subnets that overlap, with no webhook there to refuse them: a real controller, and real agents."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from allocator.kube.resources import PODS, SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS, SPIDER_SUBNETS
from devcluster.waiting import until
from tests.plane.agents import Agent, make_node, make_pod, running_agent
from tests.plane.controllers import API, condition, make_pool, running_controller, until_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.plane.controllers import Controller

SLOWLY = ("--reclaim-grace", "20", "--sweep-interval", "20")
CONDITION_S = 10.0
ONE_SECOND = timedelta(seconds=1)
PODS_AT_ONCE = 6


@pytest.fixture(scope="module")
def controller(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    with running_controller(plane.kubeconfig, "default", tmp_path_factory.mktemp("controller"), *SLOWLY) as running:
        yield running


@pytest.fixture
async def agents(plane: Plane, kube: KubeClient, tmp_path: Path) -> AsyncIterator[tuple[Agent, Agent]]:
    for node in ("n1", "n2"):
        await make_node(kube, node)
    async with (
        running_agent(plane.kubeconfig, "n1", tmp_path) as one,
        running_agent(plane.kubeconfig, "n2", tmp_path) as two,
    ):
        yield one, two


async def a_second_after(made: Object) -> None:
    """creationTimestamps count in seconds: what is made after this is younger by them."""

    async def over() -> bool:
        return datetime.now(UTC) >= datetime.fromisoformat(made["metadata"]["creationTimestamp"]) + ONE_SECOND

    await until(over, within_s=10, what="the next second")


@dataclass
class Filled:
    """What pods got of a pool, and what the first one without an address was told."""

    addresses: list[str] = field(default_factory=list)
    refusal: str = ""


async def fill(kube: KubeClient, namespace: str, agents: tuple[Agent, Agent], pool: str) -> Filled:
    """Pods on both nodes ask at once, until the pool is exhausted on each."""
    filled = Filled()

    async def ask(agent: Agent, lane: int) -> None:
        for number in range(40):
            pod = await make_pod(kube, namespace, f"{pool}-{agent.node}-{lane}-{number}", agent.node, pool)
            answer = await agent.add(pod)
            if answer.status != 200:
                filled.refusal = answer.json
                return
            filled.addresses += answer.addresses
        raise AssertionError(f"{pool} has no end")

    async with asyncio.TaskGroup() as group:
        for lane in range(PODS_AT_ONCE):
            group.create_task(ask(agents[lane % 2], lane))
    return filled


async def until_overlapping(kube: KubeClient, name: str, *words: str) -> dict[str, Any]:
    """The pool's status, once its condition says these."""

    def holds(status: dict[str, Any]) -> bool:
        found = condition(status, "Overlapping")
        return found["status"] == "True" and all(word in found["message"] for word in words)

    return await until_status(kube, name, holds, within_s=CONDITION_S)


async def pools_by_address(kube: KubeClient) -> dict[str, str]:
    records = (await kube.list(SPIDER_IP_ADDRESSES))["items"]
    return {each["spec"]["address"]: each["spec"]["pool"] for each in records}


def numbered(prefix: str, first: int, last: int) -> list[str]:
    return [f"{prefix}.{number}" for number in range(first, last + 1)]


async def test_pools_that_share_addresses_are_told_apart_by_their_age_and_can_both_be_filled(
    kube: KubeClient, namespace: str, controller: Controller, agents: tuple[Agent, Agent]
) -> None:
    await a_second_after(await make_pool(kube, "left", "10.30.0.1-10.30.0.10"))
    await make_pool(kube, "right", "10.30.0.6-10.30.0.15")
    later = await until_overlapping(kube, "right", "SpiderIPPool left, made earlier, has 10.30.0.6-10.30.0.10")
    earlier = await until_overlapping(kube, "left", "SpiderIPPool right, made later, hands out only")
    assert (earlier["freeIPCount"], later["freeIPCount"]) == (10, 5)
    async with asyncio.TaskGroup() as group:
        filling = {name: group.create_task(fill(kube, namespace, agents, name)) for name in ("left", "right")}
    left, right = filling["left"].result(), filling["right"].result()
    assert sorted(left.addresses) == sorted(f"{each}/16" for each in numbered("10.30.0", 1, 10))
    assert sorted(right.addresses) == sorted(f"{each}/16" for each in numbered("10.30.0", 11, 15))
    assert await pools_by_address(kube) == {
        **dict.fromkeys(numbered("10.30.0", 1, 10), "left"),
        **dict.fromkeys(numbered("10.30.0", 11, 15), "right"),
    }
    assert "right: no free address, 5 usable (5 Held) (SpiderIPPool left, made earlier, has 5 more)" in right.refusal
    assert "left: no free address, 10 usable (10 Held). " in left.refusal
    for name in ("left", "right"):
        await until_status(kube, name, lambda status: status["freeIPCount"] == 0)


async def test_a_later_network_around_an_earlier_one_serves_only_what_lies_outside_of_it(
    kube: KubeClient, namespace: str, controller: Controller, agents: tuple[Agent, Agent]
) -> None:
    await a_second_after(await make_pool(kube, "narrow", "10.31.0.1-10.31.0.3", subnet="10.31.0.0/24"))
    items = ["10.31.0.2-10.31.0.9", "10.31.1.1-10.31.1.4"]
    await make_pool(kube, "wide", "", subnet="10.31.0.0/16", ips=items)
    status = await until_overlapping(kube, "wide", "SpiderIPPool narrow, made earlier, has 10.31.0.2-10.31.0.9")
    assert status["freeIPCount"] == 4
    wide = await fill(kube, namespace, agents, "wide")
    assert sorted(wide.addresses) == [f"{each}/16" for each in numbered("10.31.1", 1, 4)]
    narrow = await fill(kube, namespace, agents, "narrow")
    assert sorted(narrow.addresses) == [f"{each}/24" for each in numbered("10.31.0", 1, 3)]


async def test_a_later_network_within_an_earlier_one_serves_nobody_and_pods_are_told_why(
    kube: KubeClient, namespace: str, controller: Controller, agents: tuple[Agent, Agent]
) -> None:
    await a_second_after(await make_pool(kube, "wide", "fd00::1-fd00::3", subnet="fd00::/64", ipVersion=6))
    await make_pool(kube, "narrow", "fd00::8-fd00::9", subnet="fd00::/112", ipVersion=6)
    status = await until_overlapping(kube, "narrow", "SpiderIPPool wide, made earlier, has fd00::8-fd00::9")
    assert status["freeIPCount"] == 0
    ready = condition(status, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "NoUsableAddress")
    filled = await fill(kube, namespace, agents, "narrow")
    assert filled.addresses == []
    assert "narrow: nothing of spec.ips is left: SpiderIPPool wide, made earlier, has fd00::8-fd00::9" in filled.refusal


async def test_an_older_pool_that_is_given_addresses_in_use_gets_each_when_its_holder_goes(
    kube: KubeClient, namespace: str, controller: Controller, agents: tuple[Agent, Agent]
) -> None:
    agent, _ = agents
    await a_second_after(await make_pool(kube, "old", "10.30.0.1"))
    await make_pool(kube, "young", "10.30.0.5")
    pod = await make_pod(kube, namespace, "holder", "n1", "young")
    assert (await agent.add(pod)).addresses == ["10.30.0.5/16"]
    await kube.patch(SPIDER_IP_POOLS, "old", {"spec": {"ips": ["10.30.0.5"]}})
    status = await until_overlapping(kube, "young", f"10.30.0.5 ({namespace}/holder)", "until their pods go")
    assert condition(status, "InUseOutsideSpec")["status"] == "False"
    await until_status(kube, "old", lambda status: status["freeIPCount"] == 0)
    assert (await agent.add(pod, container="c2")).addresses == ["10.30.0.5/16"]
    heir = await make_pod(kube, namespace, "heir", "n1", "old")
    assert "1 through pool young" in (await agent.add(heir)).json
    await kube.delete(PODS, "holder", namespace=namespace, grace_period_s=0)
    await agent.delete(pod, container="c2")

    async def inherited() -> bool:
        return (await agent.add(heir)).status == 200

    await until(inherited, within_s=20, what="the address to go to the older pool")
    assert await pools_by_address(kube) == {"10.30.0.5": "old"}


async def test_what_is_held_through_a_pool_that_offers_it_no_longer_is_not_free_in_the_one_that_does(
    kube: KubeClient, namespace: str, controller: Controller, agents: tuple[Agent, Agent]
) -> None:
    agent, _ = agents
    await make_pool(kube, "before", "10.30.0.1")
    pod = await make_pod(kube, namespace, "holder", "n1", "before")
    assert (await agent.add(pod)).addresses == ["10.30.0.1/16"]
    await kube.patch(SPIDER_IP_POOLS, "before", {"spec": {"ips": ["10.30.0.9"]}})
    await until_status(kube, "before", lambda status: condition(status, "InUseOutsideSpec")["status"] == "True")
    await make_pool(kube, "after", "10.30.0.1-10.30.0.3")
    status = await until_status(kube, "after", lambda status: status["observedGeneration"] == 1)
    assert (status["freeIPCount"], condition(status, "Overlapping")["status"]) == (2, "False")
    await kube.delete(PODS, "holder", namespace=namespace, grace_period_s=0)
    await agent.delete(pod)
    await until_status(kube, "after", lambda status: status["freeIPCount"] == 3)


async def test_the_conditions_end_with_the_overlap(kube: KubeClient, controller: Controller) -> None:
    await make_pool(kube, "left", "10.30.0.1-10.30.0.10")
    await make_pool(kube, "right", "10.30.0.10-10.30.0.20")
    for name in ("left", "right"):
        await until_overlapping(kube, name)
    await kube.patch(SPIDER_IP_POOLS, "right", {"spec": {"excludeIPs": ["10.30.0.10"]}})
    for name in ("left", "right"):
        await until_status(kube, name, lambda status: condition(status, "Overlapping")["status"] == "False")


async def make_subnet(kube: KubeClient, name: str, network: str) -> Object:
    spec = {"subnet": network, "ips": [], "ipVersion": 4}
    return await kube.create(
        SPIDER_SUBNETS, {"apiVersion": API, "kind": "SpiderSubnet", "metadata": {"name": name}, "spec": spec}
    )


async def until_subnet(kube: KubeClient, name: str, status: str, *words: str) -> Object:
    async def look() -> Object | None:
        found = await kube.get(SPIDER_SUBNETS, name)
        for each in (found.get("status") or {}).get("conditions") or ():
            if (each["type"], each["status"]) == ("Overlapping", status) and all(w in each["message"] for w in words):
                return found
        return None

    return await until(look, within_s=CONDITION_S, what=f"Overlapping={status} of SpiderSubnet {name}")


async def test_subnets_that_overlap_each_other_or_cross_a_pool_say_so_until_that_ends(
    kube: KubeClient, controller: Controller
) -> None:
    await a_second_after(await make_subnet(kube, "first", "10.32.0.0/16"))
    await make_subnet(kube, "second", "10.32.0.0/16")
    await make_subnet(kube, "within", "10.32.8.0/24")
    await make_subnet(kube, "apart", "10.33.0.0/16")
    await make_pool(kube, "crossing", "10.32.9.1", subnet="10.32.9.0/24")
    await make_pool(kube, "own", "10.33.0.1", subnet="10.33.0.0/16")
    await until_subnet(kube, "first", "True", "second, within, made later", "SpiderIPPool crossing has a network")
    await until_subnet(kube, "second", "True", "SpiderSubnet first", "SpiderIPPool crossing has a network")
    await until_subnet(kube, "within", "True", "SpiderSubnet first", "made earlier, goes before this one")
    assert (await until_subnet(kube, "apart", "False"))["status"]["observedGeneration"] == 1
    for name in ("second", "within"):
        await kube.delete(SPIDER_SUBNETS, name)
    await kube.patch(SPIDER_IP_POOLS, "crossing", {"metadata": {"finalizers": None}})
    await kube.delete(SPIDER_IP_POOLS, "crossing")
    await until_subnet(kube, "first", "False")
