"""What a leader's loops make of wrong clocks, mirror pods, and endpoints that could not be removed."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from allocator.domain import errors
from allocator.kube.codec import decode_time
from allocator.kube.resources import PODS, SPIDER_ENDPOINTS, SPIDER_IP_POOLS
from allocator.kube.stores import KubeEndpoints
from controller.reclaim import Reclaim
from controller.tidy import OrphanEndpoints
from devcluster.waiting import until
from tests.plane.agents import make_node, make_pod, set_ready
from tests.plane.controllers import (
    FINALIZER,
    NOBODY,
    find,
    make_endpoint,
    make_pool,
    make_record,
    make_stateful_set,
    slot_of,
    state_of,
)
from tests.plane.turns import CONFIG, GRACE_S, leading, reclaim, two_sightings
from tests.unit.fake_clock import FakeClock

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from controller.books import Books
    from controller.reclaim import Hands

TEN_YEARS_S = 10 * 365 * 86400.0


@pytest.fixture(autouse=True)
async def pool(kube: KubeClient) -> str:
    await make_node(kube, "node-1")
    await make_pool(kube, "looks", "10.30.0.1-10.30.0.250")
    return "looks"


async def static_endpoint(kube: KubeClient, namespace: str, name: str, uid: str, pool: str = "looks") -> None:
    pod = {"metadata": {"name": name, "namespace": namespace, "uid": uid}}
    await make_endpoint(kube, pod, pool, "10.30.0.9", static=True)


async def endpoints_in(kube: KubeClient, namespace: str) -> set[str]:
    return {each["metadata"]["name"] for each in (await kube.list(SPIDER_ENDPOINTS, namespace=namespace))["items"]}


async def test_a_clock_years_ahead_frees_no_pod_before_its_grace_was_watched(
    kube: KubeClient, namespace: str, pool: str
) -> None:
    await set_ready(kube, "node-1", "Unknown")
    pod = await make_pod(kube, namespace, "patient", "node-1")
    await make_record(kube, "10.30.0.1", pool, namespace, "patient", pod["metadata"]["uid"])
    await kube.delete(PODS, "patient", namespace=namespace, grace_period_s=60)
    clock = FakeClock()
    clock.advance(TEN_YEARS_S)
    async with leading(kube, clock, reclaim) as loop:
        await two_sightings(loop, clock)
        await two_sightings(loop, clock)
        assert await state_of(kube, "10.30.0.1") == "Held"
        clock.advance(60)
        await two_sightings(loop, clock)
    freed = await find(kube, "10.30.0.1")
    assert freed is not None
    assert freed["spec"]["state"] == "Cooling"
    since, until_ = decode_time(freed["spec"]["since"]), decode_time(freed["spec"]["until"])
    assert since is not None
    assert until_ is not None
    # The node is silent: the pod's containers may still run.
    assert until_ - since == timedelta(minutes=10)


async def test_the_address_of_a_mirror_pod_made_anew_stays_and_goes_with_the_mirror(
    kube: KubeClient, namespace: str, pool: str
) -> None:
    meta = {"name": "proxy-node-1", "namespace": namespace, "annotations": {"kubernetes.io/config.mirror": "hash"}}
    spec = {"nodeName": "node-1", "containers": [{"name": "main", "image": "none"}]}
    await kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    await make_record(kube, "10.30.0.1", pool, namespace, "proxy-node-1", NOBODY)
    clock = FakeClock()
    async with leading(kube, clock, reclaim) as loop:
        await two_sightings(loop, clock)
        assert await state_of(kube, "10.30.0.1") == "Held"
        await kube.delete(PODS, "proxy-node-1", namespace=namespace, grace_period_s=0)

        async def freed() -> bool:
            await two_sightings(loop, clock)
            return await state_of(kube, "10.30.0.1") == "Cooling"

        await until(freed, within_s=20, what="the address to be freed")


class Unwilling(KubeEndpoints):
    """None of them can be removed, and nothing else is wrong."""

    async def remove(self, namespace: str, name: str, pod_uid: str) -> None:
        raise errors.Unavailable(f"no endpoint can be removed: {namespace}/{name} of {pod_uid}")


async def test_an_endpoint_that_cannot_be_removed_does_not_make_a_release_void(
    kube: KubeClient, namespace: str, pool: str
) -> None:
    await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)
    clock = FakeClock()

    def hindered(books: Books, hands: Hands) -> Reclaim:
        unwilling = Unwilling(kube, clock=clock, rng=random.Random(1))  # noqa: S311 - jitter
        return Reclaim(books, replace(hands, endpoints=unwilling), CONFIG)

    async with leading(kube, clock, hindered) as loop:
        with capture_logs() as lines:
            await two_sightings(loop, clock)
    assert await state_of(kube, "10.30.0.1") == "Cooling"
    told = [line["event"] for line in lines]
    assert "endpoint_not_removed" in told
    assert "verdict_void" not in told


async def test_a_static_endpoint_goes_when_no_record_stands_for_it_and_not_before(
    kube: KubeClient, namespace: str, pool: str
) -> None:
    stateful_set = await make_stateful_set(kube, namespace, replicas=1)
    slot = slot_of(stateful_set, 0)
    await make_record(kube, "10.30.0.1", pool, namespace, "db-0", NOBODY, state="Retained", slot=slot)
    await static_endpoint(kube, namespace, "db-0", NOBODY)
    await static_endpoint(kube, namespace, "db-1", "11111111-0000-0000-0000-000000000000")
    # What the original wrote before its pools were taken over speaks of a pool that the ledger does not have.
    await make_pool(kube, "theirs", "10.31.0.1-10.31.0.9", subnet="10.31.0.0/16")
    theirs = {"status": {"allocatedIPs": '{"10.31.0.1":{}}', "allocatedIPCount": 1}}
    await kube.patch(SPIDER_IP_POOLS, "theirs", theirs, subresource="status")
    await static_endpoint(kube, namespace, "db-2", "22222222-0000-0000-0000-000000000000", pool="theirs")
    gone = {"metadata": {"name": "cart", "namespace": namespace, "uid": "33333333-0000-0000-0000-000000000000"}}
    await make_endpoint(kube, gone, "theirs", "10.31.0.1")
    clock = FakeClock()

    def orphans(books: Books, hands: Hands) -> OrphanEndpoints:
        return OrphanEndpoints(books, hands, grace_s=GRACE_S, sweep_interval_s=1)

    async with leading(kube, clock, orphans) as loop:
        await loop.turn()
        clock.advance(GRACE_S)
        await loop.turn()
    left = {
        each["metadata"]["name"]: each for each in (await kube.list(SPIDER_ENDPOINTS, namespace=namespace))["items"]
    }
    assert left.keys() - {"cart"} == {"db-0", "db-2"}
    # Where somebody collects garbage, the one without a pod is being deleted; the original's finalizer keeps it.
    assert left["cart"]["metadata"]["finalizers"] == [FINALIZER]
