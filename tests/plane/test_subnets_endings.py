"""How pools of applications end: with their subnet, with their application, and when that goes elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from allocator.kube.errors import NotFound
from allocator.kube.resources import DEPLOYMENTS, PODS, SPIDER_IP_POOLS, SPIDER_SUBNETS
from devcluster.waiting import until
from tests.plane.agents import make_node, make_pod
from tests.plane.controllers import make_record, until_gone
from tests.plane.subnets import (
    PREFIX,
    WITHIN_S,
    accounts,
    annotate,
    asks,
    make_deployment,
    make_subnet,
    pool_named,
    pools_of,
    until_accounts,
    until_condition,
    until_pool,
    until_several,
    until_unserved,
)

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from tests.plane.controllers import Controller


pytestmark = pytest.mark.usefixtures("controller")


async def _use(kube: KubeClient, namespace: str, pool: str, address: str) -> None:
    """A pod named `user` that has this address of the pool."""
    await make_node(kube, "node-1")
    pod = await make_pod(kube, namespace, "user", "node-1")
    await make_record(kube, address, pool, namespace, "user", pod["metadata"]["uid"])


async def _is_going(kube: KubeClient, pool: str) -> bool:
    found = await pool_named(kube, pool)
    return found is not None and bool(found["metadata"].get("deletionTimestamp"))


async def test_a_deleted_subnet_goes_after_the_last_pod_of_its_pools(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "ends", "10.81.2.1-10.81.2.9")
    idle = await make_deployment(kube, namespace, "idle", asks("ends", number="2"), replicas=1)
    await until_pool(kube, idle, "10.81.2.1-10.81.2.2")
    busy = await make_deployment(kube, namespace, "busy", asks("ends", number="2"), replicas=1)
    used = (await until_pool(kube, busy, "10.81.2.3-10.81.2.4"))["metadata"]["name"]
    await _use(kube, namespace, used, "10.81.2.3")
    await kube.delete(SPIDER_SUBNETS, "ends")
    loan = {"ips": ["10.81.2.3-10.81.2.4"], "application": f"apps_v1_Deployment_{namespace}_busy"}
    await until_accounts(kube, "ends", {used: loan}, 2, 9)
    assert await _is_going(kube, used)
    await until_condition(kube, "ends", "Ready", lambda each: bool(each["reason"] == "Terminating"))
    # It lends nothing any more.
    late = await make_deployment(kube, namespace, "late", asks("ends", number="1"), replicas=1)
    await until_unserved(kube, "ends", busy, idle, late)
    await kube.delete(PODS, "user", namespace=namespace, grace_period_s=0)
    await until_gone(kube, used, within_s=WITHIN_S)
    await until_gone(kube, "ends", resource=SPIDER_SUBNETS, within_s=WITHIN_S)
    # Made again, it serves them all.
    await make_subnet(kube, "ends", "10.81.2.1-10.81.2.9")
    await until_unserved(kube, "ends")
    assert (await accounts(kube, "ends"))[1] == 5


async def test_an_empty_subnet_goes_at_once(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "empty", "10.82.2.1-10.82.2.9")
    await until_accounts(kube, "empty", {}, 0, 9)
    await kube.delete(SPIDER_SUBNETS, "empty")
    await until_gone(kube, "empty", resource=SPIDER_SUBNETS, within_s=WITHIN_S)


async def test_the_next_application_of_the_name_has_a_pool_while_the_last_ones_is_on_its_way_out(
    kube: KubeClient, namespace: str
) -> None:
    await make_subnet(kube, "again", "10.83.2.1-10.83.2.9")
    annotations = asks("again", number="2")
    first = await make_deployment(kube, namespace, "cart", annotations, replicas=1)
    old = (await until_pool(kube, first, "10.83.2.1-10.83.2.2"))["metadata"]["name"]
    await _use(kube, namespace, old, "10.83.2.1")
    await kube.delete(DEPLOYMENTS, "cart", namespace=namespace)
    await until(lambda: _is_going(kube, old), within_s=WITHIN_S, what="the pool to be deleted")
    second = await make_deployment(kube, namespace, "cart", annotations, replicas=1)
    new = await until_pool(kube, second, "10.83.2.3-10.83.2.4")
    assert new["metadata"]["name"] != old
    assert await _is_going(kube, old)
    await kube.delete(PODS, "user", namespace=namespace, grace_period_s=0)
    await until_gone(kube, old, within_s=WITHIN_S)
    loan = {"ips": ["10.83.2.3-10.83.2.4"], "application": f"apps_v1_Deployment_{namespace}_cart"}
    await until_accounts(kube, "again", {new["metadata"]["name"]: loan}, 2, 9)


async def test_an_application_that_was_made_anew_before_anybody_looked_does_not_inherit(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    await make_subnet(kube, "heirs", "10.89.2.1-10.89.2.9")
    annotations = asks("heirs", number="2")
    first = await make_deployment(kube, namespace, "cart", annotations, replicas=1)
    old = (await until_pool(kube, first, "10.89.2.1-10.89.2.2"))["metadata"]["name"]
    controller.pause()
    await kube.delete(DEPLOYMENTS, "cart", namespace=namespace, propagation="Background")
    second = await make_deployment(kube, namespace, "cart", annotations, replicas=1)
    controller.resume()
    await until_gone(kube, old, within_s=WITHIN_S)
    new = await until(lambda: pools_of(kube, second), within_s=WITHIN_S, what="a pool of the second one")
    assert [pool["metadata"]["name"] != old for pool in new] == [True]


async def test_a_pool_that_somebody_deletes_is_followed_by_another_while_pods_use_it(
    kube: KubeClient, namespace: str
) -> None:
    await make_subnet(kube, "taken", "10.88.2.1-10.88.2.9")
    cart = await make_deployment(kube, namespace, "cart", asks("taken", number="2"), replicas=1)
    old = (await until_pool(kube, cart, "10.88.2.1-10.88.2.2"))["metadata"]["name"]
    await _use(kube, namespace, old, "10.88.2.1")
    await until(lambda: _counts_one(kube, old), within_s=WITHIN_S, what="the pool to have an address in use")
    await kube.delete(SPIDER_IP_POOLS, old)
    _, new = await until_several(kube, cart, ("10.88.2.1-10.88.2.2",), ("10.88.2.3-10.88.2.4",))
    assert await _is_going(kube, old)
    await kube.delete(PODS, "user", namespace=namespace, grace_period_s=0)
    await until_gone(kube, old, within_s=WITHIN_S)
    await until_pool(kube, cart, "10.88.2.3-10.88.2.4")
    loan = {"ips": ["10.88.2.3-10.88.2.4"], "application": f"apps_v1_Deployment_{namespace}_cart"}
    await until_accounts(kube, "taken", {new["metadata"]["name"]: loan}, 2, 9)


async def test_an_application_that_changes_its_subnet_has_both_pools_until_nobody_uses_the_old_one(
    kube: KubeClient, namespace: str
) -> None:
    await make_subnet(kube, "old", "10.84.2.1-10.84.2.9")
    await make_subnet(kube, "new", "10.85.2.1-10.85.2.9")
    cart = await make_deployment(kube, namespace, "cart", asks("old", number="2"), replicas=1)
    old = (await until_pool(kube, cart, "10.84.2.1-10.84.2.2"))["metadata"]["name"]
    await _use(kube, namespace, old, "10.84.2.1")
    await until(lambda: _counts_one(kube, old), within_s=WITHIN_S, what="the pool to have an address in use")
    await annotate(kube, cart, asks("new"))
    both = await until_several(kube, cart, ("10.84.2.1-10.84.2.2",), ("10.85.2.1-10.85.2.2",))
    assert [pool["metadata"].get("deletionTimestamp") for pool in both] == [None, None]
    await kube.delete(PODS, "user", namespace=namespace, grace_period_s=0)
    await until_gone(kube, old, within_s=WITHIN_S)
    await until_accounts(kube, "old", {}, 0, 9)
    await until_pool(kube, cart, "10.85.2.1-10.85.2.2")


async def test_an_application_that_asks_for_no_subnet_any_more_loses_its_pool(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "left", "10.86.2.1-10.86.2.9")
    cart = await make_deployment(kube, namespace, "cart", asks("left", number="2"), replicas=1)
    pool = await until_pool(kube, cart, "10.86.2.1-10.86.2.2")
    await annotate(kube, cart, {PREFIX + "subnet": None, PREFIX + "ippool-ip-number": None})
    await until_gone(kube, pool["metadata"]["name"], within_s=WITHIN_S)
    await until_accounts(kube, "left", {}, 0, 9)


async def test_an_unserved_application_that_is_deleted_is_named_no_longer(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "hopes", "10.87.2.1-10.87.2.2")
    cart = await make_deployment(kube, namespace, "cart", asks("hopes", number="3"), replicas=1)
    await until_unserved(kube, "hopes", cart)
    await kube.delete(DEPLOYMENTS, "cart", namespace=namespace)
    await until_unserved(kube, "hopes")


async def _counts_one(kube: KubeClient, pool: str) -> bool:
    found = await pool_named(kube, pool)
    if found is None:
        raise NotFound(404, "NotFound", pool)
    return bool((found.get("status") or {}).get("allocatedIPCount") == 1)
