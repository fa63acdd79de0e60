"""Pools that people made beside those of applications: accounted for, completed, and never deleted with the subnet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from allocator.kube.resources import SPIDER_IP_POOLS, SPIDER_SUBNETS
from devcluster.waiting import until
from tests.plane.agents import make_pool
from tests.plane.controllers import FINALIZER, until_gone
from tests.plane.subnets import (
    PREFIX,
    WITHIN_S,
    accounts,
    asks,
    make_deployment,
    make_subnet,
    pool_named,
    until_accounts,
    until_pool,
    until_unserved,
)

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object


pytestmark = pytest.mark.usefixtures("controller")


async def _until_adopted(kube: KubeClient, name: str, subnet: str) -> Object:
    async def look() -> Object | None:
        pool = await pool_named(kube, name)
        labels: dict[str, Any] = {} if pool is None else pool["metadata"].get("labels") or {}
        return pool if labels.get(PREFIX + "owner-spider-subnet") == subnet else None

    return await until(look, within_s=WITHIN_S, what=f"{name} to bear the label of {subnet}")


async def test_what_a_pool_made_by_hand_has_is_in_the_accounts_and_not_lent(kube: KubeClient, namespace: str) -> None:
    await make_pool(kube, "hand71", "10.71.2.2-10.71.2.3", "10.71.0.0/16")
    await make_subnet(kube, "shared", "10.71.2.1-10.71.2.5")
    hand = {"hand71": {"ips": ["10.71.2.2-10.71.2.3"]}}
    await until_accounts(kube, "shared", hand, 2, 5)
    cart = await make_deployment(kube, namespace, "cart", asks("shared", number="3"), replicas=1)
    pool = await until_pool(kube, cart, "10.71.2.1", "10.71.2.4-10.71.2.5")
    application = {"ips": ["10.71.2.1", "10.71.2.4-10.71.2.5"], "application": f"apps_v1_Deployment_{namespace}_cart"}
    await until_accounts(kube, "shared", hand | {pool["metadata"]["name"]: application}, 5, 5)
    late = await make_deployment(kube, namespace, "late", asks("shared", number="1"), replicas=1)
    await until_unserved(kube, "shared", late)
    # What it gives up, the subnet lends.
    await kube.patch(SPIDER_IP_POOLS, "hand71", {"spec": {"ips": ["10.71.2.3"]}})
    await until_pool(kube, late, "10.71.2.2")


async def test_a_pool_that_was_there_first_is_adopted_with_gateway_and_routes(kube: KubeClient, namespace: str) -> None:
    await make_pool(kube, "hand72", "10.72.2.2-10.72.2.3", "10.72.0.0/16")
    routes = [{"dst": "10.99.0.0/16", "gw": "10.72.0.9"}]
    await make_subnet(kube, "adopts", "10.72.2.1-10.72.2.9", gateway="10.72.0.1", routes=routes)
    pool = await _until_adopted(kube, "hand72", "adopts")
    assert (pool["spec"]["gateway"], pool["spec"]["routes"]) == ("10.72.0.1", routes)
    assert pool["spec"]["ips"] == ["10.72.2.2-10.72.2.3"]
    assert "ownerReferences" not in pool["metadata"]
    assert FINALIZER in pool["metadata"]["finalizers"]


async def test_an_adopted_pool_keeps_the_gateway_and_routes_that_it_has(kube: KubeClient, namespace: str) -> None:
    routes = [{"dst": "10.98.0.0/16", "gw": "10.73.0.8"}]
    await make_pool(kube, "hand73", "10.73.2.2-10.73.2.3", "10.73.0.0/16", gateway="10.73.0.2", routes=routes)
    of_subnet = [{"dst": "10.99.0.0/16", "gw": "10.73.0.9"}]
    await make_subnet(kube, "polite", "10.73.2.1-10.73.2.9", gateway="10.73.0.1", routes=of_subnet)
    pool = await _until_adopted(kube, "hand73", "polite")
    assert (pool["spec"]["gateway"], pool["spec"]["routes"]) == ("10.73.0.2", routes)


@pytest.mark.parametrize(
    ("is_forced", "net"), [pytest.param(False, "10.74", id="deleted"), pytest.param(True, "10.76", id="forced to go")]
)
async def test_a_subnet_leaves_the_pools_that_people_made_alone_when_it_is(
    kube: KubeClient,
    namespace: str,
    is_forced: bool,  # noqa: FBT001 - a row of the table
    net: str,
) -> None:
    name = f"leaves-{net}"
    await make_pool(kube, "hand74", f"{net}.2.2-{net}.2.3", f"{net}.0.0/16")
    await make_subnet(kube, name, f"{net}.2.1-{net}.2.9")
    hand = await _until_adopted(kube, "hand74", name)
    cart = await make_deployment(kube, namespace, "cart", asks(name, number="2"), replicas=1)
    pool = await until_pool(kube, cart, f"{net}.2.1", f"{net}.2.4")
    if is_forced:
        await kube.patch(SPIDER_SUBNETS, name, {"metadata": {"finalizers": None}})
    await kube.delete(SPIDER_SUBNETS, name, propagation="Foreground" if is_forced else None)
    await until_gone(kube, name, resource=SPIDER_SUBNETS, within_s=WITHIN_S)
    await until_gone(kube, pool["metadata"]["name"], within_s=WITHIN_S)
    left = await pool_named(kube, "hand74")
    assert left is not None
    assert left["metadata"]["uid"] == hand["metadata"]["uid"]
    assert "deletionTimestamp" not in left["metadata"]
    assert left["spec"] == hand["spec"]


async def test_the_accounts_forget_a_pool_made_by_hand_that_is_gone(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "forgets", "10.75.2.1-10.75.2.5")
    await make_pool(kube, "hand75", "10.75.2.2-10.75.2.9", "10.75.0.0/16")
    await until_accounts(kube, "forgets", {"hand75": {"ips": ["10.75.2.2-10.75.2.5"]}}, 4, 5)
    await kube.delete(SPIDER_IP_POOLS, "hand75")
    await until_accounts(kube, "forgets", {}, 0, 5)
    assert (await accounts(kube, "forgets"))[0] == {}
