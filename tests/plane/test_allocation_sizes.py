"""Pools and reservations of any size: one address is one write, whatever it is chosen from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from allocator.kube.resources import PODS, SPIDER_IP_POOLS, SPIDER_RESERVED_IPS
from tests.plane.agents import Agent, make_node, make_pool, running_agent
from tests.plane.test_agent_choosing import API, make_pod

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane

ONE = {"ipv4": ["a"]}
SIX = {"ipv6": ["six"]}


@pytest.fixture
async def agent(plane: Plane, kube: KubeClient, tmp_path: Path) -> AsyncIterator[Agent]:
    await make_node(kube, "n1")
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as running:
        yield running


async def reserve(kube: KubeClient, name: str, *items: str) -> None:
    version = 6 if ":" in items[0] else 4
    body = {"apiVersion": API, "kind": "SpiderReservedIP", "metadata": {"name": name}}
    await kube.create(SPIDER_RESERVED_IPS, {**body, "spec": {"ipVersion": version, "ips": list(items)}})


@pytest.mark.parametrize(
    ("pool", "ips", "subnet"),
    [
        pytest.param("a", "10.0.0.0-10.255.255.255", "10.0.0.0/8", id="a /8"),
        pytest.param("a", "0.0.0.0-255.255.255.255", "0.0.0.0/0", id="all of IPv4"),
        pytest.param("six", "fd00:7::-fd00:7::ffff:ffff:ffff:ffff", "fd00:7::/64", id="a /64"),
        pytest.param("six", "fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fd00::/8", id="an IPv6 /8"),
    ],
)
async def test_a_huge_pool_gives_addresses_like_a_small_one(
    agent: Agent, kube: KubeClient, namespace: str, pool: str, ips: str, subnet: str
) -> None:
    await make_pool(kube, pool, ips, subnet)
    given = set()
    for index in range(3):
        pod = await make_pod(kube, namespace, f"cart-{index}", ippool=ONE if pool == "a" else SIX)
        given.update((await agent.add(pod)).addresses)
    assert len(given) == 3
    assert {address.partition("/")[2] for address in given} == {subnet.partition("/")[2]}


@pytest.mark.parametrize(
    "reserved",
    [
        pytest.param("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", id="all of IPv6"),
        pytest.param("fd00:7::-fd00:7::ffff:ffff:ffff:ffff", id="a /64"),
    ],
)
async def test_a_huge_reservation_closes_what_it_covers_and_nothing_else(
    agent: Agent, kube: KubeClient, namespace: str, reserved: str
) -> None:
    await reserve(kube, "huge", reserved)
    await make_pool(kube, "a", "10.20.0.10")
    await make_pool(kube, "six", "fd00:7::10-fd00:7::ffff:ffff", "fd00:7::/64")
    assert (await agent.add(await make_pod(kube, namespace, "four", ippool=ONE))).addresses == ["10.20.0.10/16"]
    refusal = await agent.add(await make_pod(kube, namespace, "six", ippool=SIX))
    assert refusal.status == 500
    assert "SpiderReservedIPs" in refusal.json


async def test_a_huge_reservation_beside_the_pool_changes_nothing(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await reserve(kube, "huge", "fd00:7::1:0-fd00:7::ffff:ffff:ffff:ffff")
    await make_pool(
        kube, "six", "fd00:7::-fd00:7::ffff:ffff:ffff:ffff", "fd00:7::/64", excludeIPs=["fd00:7::1-fd00:7::ffff"]
    )
    assert (await agent.add(await make_pod(kube, namespace, "six", ippool=SIX))).addresses == ["fd00:7::/64"]


async def test_addresses_that_look_like_networks_and_broadcasts_are_ordinary(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.255-10.20.1.0")
    pods = [await make_pod(kube, namespace, f"cart-{index}", ippool=ONE) for index in range(2)]
    given = [address for pod in pods for address in (await agent.add(pod)).addresses]
    assert sorted(given) == ["10.20.0.255/16", "10.20.1.0/16"]


async def test_what_is_excluded_or_recorded_is_skipped_until_the_pool_is_used_up(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.12", excludeIPs=["10.20.0.10"])
    answers = [await agent.add(await make_pod(kube, namespace, f"cart-{index}", ippool=ONE)) for index in range(3)]
    given = [address for answer in answers if answer.status == 200 for address in answer.addresses]
    assert sorted(given) == ["10.20.0.11/16", "10.20.0.12/16"]
    assert answers[2].headers["X-Spiderpool-Reason"] == "PoolExhausted"


async def test_a_pool_without_addresses_has_none_to_give(agent: Agent, kube: KubeClient, namespace: str) -> None:
    body = {"subnet": "10.20.0.0/16", "ips": [], "ipVersion": 4}
    meta = {"name": "a"}
    await kube.create(SPIDER_IP_POOLS, {"apiVersion": API, "kind": "SpiderIPPool", "metadata": meta, "spec": body})
    assert (await agent.add(await make_pod(kube, namespace, "cart", ippool=ONE))).status == 500


@pytest.mark.parametrize(("limit", "given"), [("", 4), ("5000", 4), ("2", 2)], ids=["absent", "the original's", "two"])
async def test_the_limit_of_addresses_in_a_pool_is_obeyed_unless_it_is_the_originals_default(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path, limit: str, given: int
) -> None:
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.20.0.10-10.20.0.13")
    environ = {"SPIDERPOOL_IPPOOL_MAX_ALLOCATED_IPS": limit} if limit else {}
    async with running_agent(plane.kubeconfig, "n1", tmp_path, **environ) as agent:
        answers = [await agent.add(await make_pod(kube, namespace, f"cart-{index}", ippool=ONE)) for index in range(5)]
    assert [answer.status for answer in answers] == [200] * given + [500] * (5 - given)
    assert answers[-1].headers["X-Spiderpool-Reason"] == "PoolExhausted"


async def test_the_address_of_an_ended_pod_cools_before_another_pod_gets_it(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    """Whatever stands beside it is given first, in whatever order the pods come."""
    await make_pool(kube, "a", "10.20.0.10-10.20.0.14")
    used = set()
    for index in range(5):
        pod = await make_pod(kube, namespace, f"cart-{index}", ippool=ONE)
        used.update((await agent.add(pod)).addresses)
        await kube.delete(PODS, f"cart-{index}", namespace=namespace, grace_period_s=0)
        await agent.delete(pod)
    assert len(used) == 5
