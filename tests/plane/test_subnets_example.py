"""A subnet, an application and the pool between them, from the first replica to the last word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.kube.resources import DEPLOYMENTS, PODS, SPIDER_IP_POOLS
from devcluster.waiting import until
from tests.plane.agents import make_node, make_pod
from tests.plane.controllers import make_record, until_state
from tests.plane.subnets import (
    PREFIX,
    WITHIN_S,
    accounts,
    asks,
    make_deployment,
    make_subnet,
    pool_named,
    scale,
    until_accounts,
    until_pool,
)

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from tests.plane.controllers import Controller


async def test_a_pool_follows_its_application_from_the_first_replica_to_the_last(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    await make_subnet(kube, "dc1", "10.20.2.1-10.20.2.20", gateway="10.20.0.1", routes=[])
    await make_node(kube, "node-1")
    cart = await make_deployment(kube, namespace, "cart", asks("dc1", number="+1"), replicas=2)
    pool = await until_pool(kube, cart, "10.20.2.1-10.20.2.3")
    name = f"auto4-cart-eth0-{cart['metadata']['uid'].rpartition('-')[2][:5]}"
    application = f"apps_v1_Deployment_{namespace}_cart"
    assert pool["metadata"]["name"] == name
    assert pool["metadata"]["annotations"][PREFIX + "ippool-ip-number"] == "+1"
    assert (pool["spec"]["subnet"], pool["spec"]["gateway"]) == ("10.20.0.0/16", "10.20.0.1")
    await until_accounts(kube, "dc1", {name: {"ips": ["10.20.2.1-10.20.2.3"], "application": application}}, 3, 20)

    # It grows before the pods come.
    await scale(kube, cart, 4)
    await until_pool(kube, cart, "10.20.2.1-10.20.2.5")
    await until_accounts(kube, "dc1", {name: {"ips": ["10.20.2.1-10.20.2.5"], "application": application}}, 5, 20)

    # What pods use is not taken back.
    pods = {}
    for last in (1, 2, 3, 4, 5):
        pods[last] = await make_pod(kube, namespace, f"pod-{last}", "node-1")
        await make_record(kube, f"10.20.2.{last}", name, namespace, f"pod-{last}", pods[last]["metadata"]["uid"])
    await until(lambda: _counts(kube, name, 5), within_s=WITHIN_S, what="the controller to see five addresses in use")
    await scale(kube, cart, 2)
    await controller.logged("pool_must_wait", pool=name)
    assert await accounts(kube, "dc1") == (
        {name: {"ips": ["10.20.2.1-10.20.2.5"], "application": application}}, 5, 20
    )  # fmt: skip
    for last in (1, 2):
        await kube.delete(PODS, f"pod-{last}", namespace=namespace, grace_period_s=0)
        await until_state(kube, f"10.20.2.{last}", "Cooling", "")
    await until_pool(kube, cart, "10.20.2.3-10.20.2.5")
    await until_accounts(kube, "dc1", {name: {"ips": ["10.20.2.3-10.20.2.5"], "application": application}}, 3, 20)

    # It goes with its application, and that with its last pod.
    await kube.delete(DEPLOYMENTS, "cart", namespace=namespace)
    await until(lambda: _is_going(kube, name), within_s=WITHIN_S, what="the pool to be deleted")
    assert (await accounts(kube, "dc1"))[1] == 3
    for last in (3, 4, 5):
        await kube.delete(PODS, f"pod-{last}", namespace=namespace, grace_period_s=0)
    await until_accounts(kube, "dc1", {}, 0, 20)
    assert await pool_named(kube, name) is None


async def test_a_pool_that_is_not_reclaimed_waits_for_the_next_application_of_its_name(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    await make_subnet(kube, "dc1", "10.20.2.1-10.20.2.20")
    annotations = asks("dc1", number="+1", ippool_reclaim="false")
    first = await make_deployment(kube, namespace, "cart", annotations, replicas=2)
    pool = await until_pool(kube, first, "10.20.2.1-10.20.2.3")
    name = pool["metadata"]["name"]
    await kube.delete(DEPLOYMENTS, "cart", namespace=namespace)
    await until(lambda: _has_no_deployment(kube, namespace), within_s=WITHIN_S, what="the Deployment to be gone")
    second = await make_deployment(kube, namespace, "cart", annotations, replicas=2)
    adopted = await until_pool(kube, second, "10.20.2.1-10.20.2.3")
    assert adopted["metadata"]["uid"] == pool["metadata"]["uid"]
    assert set((await accounts(kube, "dc1"))[0]) == {name}


async def _counts(kube: KubeClient, pool: str, allocated: int) -> bool:
    return bool((await kube.get(SPIDER_IP_POOLS, pool)).get("status", {}).get("allocatedIPCount") == allocated)


async def _is_going(kube: KubeClient, pool: str) -> bool:
    found = await pool_named(kube, pool)
    return found is not None and bool(found["metadata"].get("deletionTimestamp"))


async def _has_no_deployment(kube: KubeClient, namespace: str) -> bool:
    return (await kube.list_all(DEPLOYMENTS, namespace=namespace))[0] == []
