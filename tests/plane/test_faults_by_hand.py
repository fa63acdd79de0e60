"""People who delete and edit what is ours (FAULTS.md, F34). Endpoints and records: test_controller_mending.py."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from allocator.kube.resources import PODS, SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS
from devcluster.waiting import until
from tests.plane.agents import make_node, make_pod, running_agent
from tests.plane.controllers import (
    find,
    make_pool,
    make_record,
    running_controller,
    state_of,
    until_gone,
    until_status,
)
from tests.plane.test_agent import ONE, kill_pod
from tests.plane.turns import leading, reclaim, two_sightings
from tests.unit.fake_clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane

MANY = 200


async def hold_all(kube: KubeClient, namespace: str, network: str, count: int) -> None:
    """As many pods, each with a record."""
    places = asyncio.Semaphore(8)

    async def one(number: int) -> None:
        async with places:
            pod = await make_pod(kube, namespace, f"p{network}{number}", "node-1")
            meta = pod["metadata"]
            await make_record(kube, f"10.30.{network}.{number}", "a", namespace, meta["name"], meta["uid"])

    async with asyncio.TaskGroup() as group:
        for number in range(1, count + 1):
            group.create_task(one(number))


async def states(kube: KubeClient, network: str) -> Counter[str]:
    records, _ = await kube.list_all(SPIDER_IP_ADDRESSES)
    specs = [each["spec"] for each in records if each["spec"]["address"].startswith(f"10.30.{network}.")]
    return Counter(spec["state"] for spec in specs)


async def test_two_hundred_pods_deleted_by_force_at_once_give_all_back_and_nobody_else_anything(
    kube: KubeClient, namespace: str
) -> None:
    """As when a namespace is emptied. So many at once wait for a second look, half a minute later."""
    await make_node(kube, "node-1")
    await make_pool(kube, "a", "10.30.1.1-10.30.2.250")
    await hold_all(kube, namespace, "1", MANY)
    await hold_all(kube, namespace, "2", 20)
    clock = FakeClock()
    async with leading(kube, clock, reclaim) as loop:
        places = asyncio.Semaphore(8)

        async def kill(number: int) -> None:
            async with places:
                await kube.delete(PODS, f"p1{number}", namespace=namespace, grace_period_s=0)

        async with asyncio.TaskGroup() as group:
            for number in range(1, MANY + 1):
                group.create_task(kill(number))
        await two_sightings(loop, clock)
        assert await states(kube, "1") == {"Held": MANY}
        for _ in range(3):  # the informer may have been behind at the first
            await two_sightings(loop, clock)
    assert (await states(kube, "1"), await states(kube, "2")) == ({"Cooling": MANY}, {"Held": 20})


async def test_a_pool_whose_finalizer_was_taken_off_leaves_its_pods_their_addresses(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.30.0.10")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as agent:
        with running_controller(plane.kubeconfig, namespace, tmp_path) as controller:
            await controller.logged("leading")
            given = (await agent.add(pod)).addresses
            await kube.delete(SPIDER_IP_POOLS, "a")
            await kube.patch(SPIDER_IP_POOLS, "a", {"metadata": {"finalizers": None}})
            await until_gone(kube, "a")
            refused = await agent.add(pod, container="c2")
            assert "holds 10.30.0.10 from SpiderIPPool a, which is gone or unreadable" in refused.json
            record = await find(kube, "10.30.0.10")
            assert record is not None
            assert (record["spec"]["state"], record["spec"]["holder"]["podUID"]) == ("Held", pod["metadata"]["uid"])
            await make_pool(kube, "a", "10.30.0.10")

            async def is_there_again() -> bool:
                answer = await agent.add(pod, container="c2")
                return answer.status == 200 and answer.addresses == given

            await until(is_there_again, within_s=20, what="the agent to know the new pool")
        await kill_pod(kube, pod)
        assert (await agent.delete(pod, container="c2")).status == 200
    assert await state_of(kube, "10.30.0.10") == "Cooling"


GARBAGE = {
    "allocatedIPs": '{"10.30.0.11": {"pod": "no/body"',
    "totalIPCount": 0,
    "allocatedIPCount": 7,
    "freeIPCount": 7,
    "conditions": [],
}


async def test_what_somebody_writes_into_a_pools_status_is_replaced_and_nothing_is_taken_from_it(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.30.0.10-10.30.0.11")
    pods = [await make_pod(kube, namespace, name, "n1", ONE) for name in ("cart", "till")]
    meta = pods[0]["metadata"]
    await make_record(kube, "10.30.0.10", "a", namespace, "cart", meta["uid"])

    def is_true(status: Object) -> bool:
        counts = (status.get("totalIPCount"), status.get("allocatedIPCount"), status.get("freeIPCount"))
        return counts == (2, 1, 1) and meta["uid"] in status.get("allocatedIPs", "") and bool(status.get("conditions"))

    with running_controller(plane.kubeconfig, namespace, tmp_path):
        await until_status(kube, "a", is_true)
        await kube.patch(SPIDER_IP_POOLS, "a", {"status": GARBAGE}, subresource="status")
        await until_status(kube, "a", is_true)
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as agent:
        await kube.patch(SPIDER_IP_POOLS, "a", {"status": GARBAGE}, subresource="status")
        assert (await agent.add(pods[1])).addresses == ["10.30.0.11/16"]


async def test_a_status_whose_mark_was_taken_off_closes_the_pool_and_nobody_guesses(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    """Then the text may be the original's, whose holders the ledger does not know."""
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.30.0.10-10.30.0.11")
    garbage = {"allocatedIPs": "no JSON at all", "allocationSource": None}
    await kube.patch(SPIDER_IP_POOLS, "a", {"status": garbage}, subresource="status")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as agent:
        refused = await agent.add(pod)
    assert refused.headers["X-Spiderpool-Reason"] == "NoPoolAvailable"
    assert (await kube.list_all(SPIDER_IP_ADDRESSES))[0] == []
