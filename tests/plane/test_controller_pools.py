"""Pool status and the pool's finalizer, by a real controller process on an API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from allocator.kube.resources import SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS, SPIDER_RESERVED_IPS
from devcluster.waiting import until
from tests.plane.agents import make_node, make_pod
from tests.plane.controllers import (
    API,
    FINALIZER,
    NOBODY,
    condition,
    find,
    in_seconds,
    make_pool,
    make_record,
    running_controller,
    status_of,
    until_gone,
    until_state,
    until_status,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane
    from tests.plane.controllers import Controller

SLOWLY = ("--reclaim-grace", "20", "--sweep-interval", "20")


@pytest.fixture(scope="module")
def controller(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """One for all tests of this file. Its reclaim is as slow as by default: these tests are about pools."""
    with running_controller(plane.kubeconfig, "default", tmp_path_factory.mktemp("controller"), *SLOWLY) as running:
        yield running


async def test_a_new_pool_gets_its_counts_and_conditions(kube: KubeClient, controller: Controller) -> None:
    await make_pool(kube, "a", "10.30.0.1-10.30.0.10", excludeIPs=["10.30.0.1"], gateway="10.30.0.1")
    status = await until_status(kube, "a", bool)
    assert (status["totalIPCount"], status["allocatedIPCount"], status["freeIPCount"]) == (9, 0, 9)
    assert (status["observedGeneration"], status["allocationSource"]) == (1, "Ledger")
    assert "allocatedIPs" not in status
    assert {each["type"]: each["status"] for each in status["conditions"]} == {
        "Ready": "True",
        "Exhausted": "False",
        "NearlyExhausted": "False",
        "InUseOutsideSpec": "False",
        "Overlapping": "False",
    }


async def test_claims_and_releases_show_in_counts_and_text(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    await make_pool(kube, "a", "10.30.0.1-10.30.0.10")
    await until_status(kube, "a", bool)
    await make_node(kube, "node-1")
    pod = await make_pod(kube, namespace, "cart", "node-1")
    await make_record(kube, "10.30.0.5", "a", namespace, "cart", pod["metadata"]["uid"])
    status = await until_status(kube, "a", lambda status: "allocatedIPs" in status)
    assert (status["allocatedIPCount"], status["freeIPCount"]) == (1, 9)
    assert json.loads(status["allocatedIPs"]) == {
        "10.30.0.5": {"pod": f"{namespace}/cart", "podUid": pod["metadata"]["uid"]}
    }
    await kube.delete(SPIDER_IP_ADDRESSES, "10.30.0.5")
    status = await until_status(kube, "a", lambda status: "allocatedIPs" not in status)
    assert (status["allocatedIPCount"], status["freeIPCount"]) == (0, 10)


async def test_a_status_that_says_it_all_is_not_written_again(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    for name, items in (("a", "10.30.0.1-10.30.0.10"), ("b", "10.30.1.1-10.30.1.10")):
        await make_pool(kube, name, items)
    await until_status(kube, "a", bool)
    # Metadata that changes nothing, and another pool's later change as the sign that this one had its turn.
    patched = await kube.patch(SPIDER_IP_POOLS, "a", {"metadata": {"labels": {"seen": "yes"}}})
    await make_record(kube, "10.30.1.5", "b", namespace, "ghost", NOBODY)
    await until_status(kube, "b", lambda status: status["allocatedIPCount"] == 1)
    after = await kube.get(SPIDER_IP_POOLS, "a")
    assert after["metadata"]["resourceVersion"] == patched["metadata"]["resourceVersion"]


async def test_holders_outside_a_changed_spec_are_reported_before_the_generation_counts_as_observed(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    await make_pool(kube, "a", "10.30.0.1-10.30.0.10")
    await make_record(kube, "10.30.0.9", "a", namespace, "ghost", NOBODY)
    await until_status(kube, "a", lambda status: status["allocatedIPCount"] == 1)
    await kube.patch(SPIDER_IP_POOLS, "a", {"spec": {"ips": ["10.30.0.1-10.30.0.5"]}})
    status = await until_status(kube, "a", lambda status: status["observedGeneration"] == 2)
    found = condition(status, "InUseOutsideSpec")
    assert (found["status"], found["observedGeneration"]) == ("True", 2)
    assert f"10.30.0.9 ({namespace}/ghost)" in found["message"]


async def test_a_reservation_takes_from_what_is_free(kube: KubeClient, controller: Controller) -> None:
    await make_pool(kube, "a", "10.30.0.1-10.30.0.10")
    await until_status(kube, "a", lambda status: status["freeIPCount"] == 10)
    body = {"ips": ["10.30.0.1-10.30.0.3"], "ipVersion": 4}
    await kube.create(
        SPIDER_RESERVED_IPS, {"apiVersion": API, "kind": "SpiderReservedIP", "metadata": {"name": "r"}, "spec": body}
    )
    await until_status(kube, "a", lambda status: status["freeIPCount"] == 7)


async def test_a_deleted_pool_that_is_empty_goes_at_once(kube: KubeClient, controller: Controller) -> None:
    await make_pool(kube, "a", "10.30.0.1-10.30.0.10")
    await until_status(kube, "a", bool)
    await kube.delete(SPIDER_IP_POOLS, "a")
    await until_gone(kube, "a", within_s=3)


async def test_a_deleted_pool_stays_while_an_address_is_held_or_cooling(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    await make_pool(kube, "a", "10.30.0.1-10.30.0.10")
    await make_record(kube, "10.30.0.1", "a", namespace, "ghost", NOBODY)
    await until_status(kube, "a", lambda status: status["allocatedIPCount"] == 1)
    await kube.delete(SPIDER_IP_POOLS, "a")
    status = await until_status(kube, "a", lambda status: condition(status, "Ready")["reason"] == "Terminating")
    assert status["allocatedIPCount"] == 1
    held = await find(kube, "10.30.0.1")
    assert held is not None
    cools = {"spec": {"state": "Cooling", "until": in_seconds(2)}}
    await kube.patch(SPIDER_IP_ADDRESSES, "10.30.0.1", cools)
    assert FINALIZER in (await kube.get(SPIDER_IP_POOLS, "a"))["metadata"]["finalizers"]
    await until_state(kube, "10.30.0.1", "")
    await until_gone(kube, "a")


async def test_a_finalizer_of_somebody_else_is_left_to_them(kube: KubeClient, controller: Controller) -> None:
    await make_pool(kube, "a", "10.30.0.1-10.30.0.10")
    await kube.patch(SPIDER_IP_POOLS, "a", {"metadata": {"finalizers": [FINALIZER, "example.com/theirs"]}})
    await kube.delete(SPIDER_IP_POOLS, "a")

    async def ours_is_gone() -> bool:
        found = await kube.get(SPIDER_IP_POOLS, "a")
        return bool(found["metadata"]["finalizers"] == ["example.com/theirs"])

    await until(ours_is_gone, within_s=20, what="our finalizer to go")


async def test_a_pool_with_the_originals_records_is_left_alone(kube: KubeClient, controller: Controller) -> None:
    theirs = '{"10.30.0.1":{"pod":"shop/cart","podUid":"uid-1"}}'
    status = {"allocatedIPs": theirs, "allocatedIPCount": 1, "totalIPCount": 10}
    await make_pool(kube, "a", "10.30.0.1-10.30.0.10")
    await until_status(kube, "a", bool)
    # As the original leaves it: a whole status that knows nothing of ours.
    await kube.patch(
        SPIDER_IP_POOLS, "a", [{"op": "replace", "path": "/status", "value": status}], form="json", subresource="status"
    )
    line = await controller.logged("pool_left_alone")
    assert line["pool"] == "a"
    await make_pool(kube, "b", "10.30.1.1-10.30.1.10")
    await until_status(kube, "b", bool)
    assert await status_of(kube, "a") == status
