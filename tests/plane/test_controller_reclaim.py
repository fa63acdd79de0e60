"""Reclaim by a real controller process on an API server: what goes back, and what never does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest

from allocator.kube.codec import decode_time
from allocator.kube.errors import NotFound
from allocator.kube.resources import EVENTS, NODES, PODS, SPIDER_ENDPOINTS, SPIDER_IP_POOLS, STATEFUL_SETS
from devcluster.waiting import until
from tests.plane.agents import make_node, make_pod, set_ready
from tests.plane.controllers import (
    NOBODY,
    find,
    in_seconds,
    make_endpoint,
    make_pool,
    make_record,
    make_stateful_set,
    running_controller,
    slot_of,
    state_of,
    until_state,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.plane.controllers import Controller


NEVER: Final = datetime.max.replace(tzinfo=UTC)


@pytest.fixture(autouse=True)
async def pool(kube: KubeClient) -> str:
    await make_node(kube, "node-1")
    await make_pool(kube, "reclaim", "10.30.0.1-10.30.0.250")
    return "reclaim"


@pytest.fixture(scope="module")
def controller(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """One for all tests of this file: each cleans up what it made."""
    with running_controller(plane.kubeconfig, "default", tmp_path_factory.mktemp("controller")) as running:
        yield running


async def remove_pod(kube: KubeClient, pod: Object) -> None:
    """At once, as a kubelet does when all its containers are gone."""
    meta = pod["metadata"]
    await kube.delete(PODS, meta["name"], namespace=meta["namespace"], grace_period_s=0)


async def holding_pod(kube: KubeClient, namespace: str, name: str, text: str) -> Object:
    pod = await make_pod(kube, namespace, name, "node-1")
    await make_record(kube, text, "reclaim", namespace, name, pod["metadata"]["uid"])
    return pod


async def set_status(kube: KubeClient, pod: Object, **status: Any) -> None:
    meta = pod["metadata"]
    await kube.patch(PODS, meta["name"], {"status": status}, namespace=meta["namespace"], subresource="status")


async def test_the_address_of_a_deleted_pod_cools_and_is_then_forgotten(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    pod = await holding_pod(kube, namespace, "cart", "10.30.0.1")
    await remove_pod(kube, pod)
    await until_state(kube, "10.30.0.1", "Cooling")
    await until_state(kube, "10.30.0.1", "")


async def test_a_release_leaves_a_line_and_an_event_with_all_it_rested_on(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    pod = await holding_pod(kube, namespace, "cart", "10.30.0.1")
    held = await find(kube, "10.30.0.1")
    assert held is not None
    await remove_pod(kube, pod)
    line = await controller.logged("address_released", pod=f"{namespace}/cart")
    assert (line["address"], line["pool"]) == ("10.30.0.1", "reclaim")
    assert (line["pod_uid"], line["reason"]) == (pod["metadata"]["uid"], "PodMissing")
    assert line["resource_version"] == held["metadata"]["resourceVersion"]
    assert line["first_sighting"] < line["second_sighting"]

    async def event() -> Object | None:
        found = (await kube.list(EVENTS, namespace="default"))["items"]
        ours = (each for each in found if each["regarding"].get("uid") == held["metadata"]["uid"])
        return next(ours, None)

    receipt = await until(event, within_s=10, what="the event of the release")
    assert (receipt["reason"], receipt["related"]["uid"]) == ("AddressReleased", pod["metadata"]["uid"])
    assert line["first_sighting"] in receipt["note"]


async def test_a_record_of_nobody_is_found_by_the_sweep_and_the_living_keep_theirs(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    await holding_pod(kube, namespace, "alive", "10.30.0.1")
    await make_record(kube, "10.30.0.2", "reclaim", namespace, "ghost", NOBODY)
    await make_record(kube, "10.30.0.3", "reclaim", namespace, "alive", NOBODY)
    await until_state(kube, "10.30.0.2", "Cooling", "")
    await until_state(kube, "10.30.0.3", "Cooling", "")
    assert await state_of(kube, "10.30.0.1") == "Held"


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({"phase": "Failed", "reason": "Evicted"}, id="evicted"),
        pytest.param({"phase": "Failed", "reason": "Terminated"}, id="ended by its node's shutdown"),
        pytest.param({"phase": "Failed", "reason": "DeadlineExceeded"}, id="over its deadline"),
        pytest.param({"phase": "Failed", "reason": "OutOfcpu"}, id="refused by its node"),
        pytest.param({"phase": "Succeeded"}, id="succeeded"),
    ],
)
async def test_a_pod_that_will_not_run_again_loses_its_address_though_it_is_still_there(
    kube: KubeClient, namespace: str, controller: Controller, status: dict[str, str]
) -> None:
    spec = {"nodeName": "node-1", "restartPolicy": "Always", "containers": [{"name": "main", "image": "none"}]}
    meta = {"name": "job", "namespace": namespace}
    pod = await kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    await make_record(kube, "10.30.0.1", "reclaim", namespace, "job", pod["metadata"]["uid"])
    await set_status(kube, pod, **status)
    await until_state(kube, "10.30.0.1", "Cooling", "")


async def test_a_terminating_pod_loses_its_address_after_its_grace_and_not_before(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    patient = await holding_pod(kube, namespace, "patient", "10.30.0.1")
    hasty = await holding_pod(kube, namespace, "hasty", "10.30.0.2")
    for pod, grace_s in ((patient, 600), (hasty, 1)):
        meta = pod["metadata"]
        await kube.delete(PODS, meta["name"], namespace=namespace, grace_period_s=grace_s)
    await until_state(kube, "10.30.0.2", "Cooling", "")
    line = await controller.logged("address_released", pod=f"{namespace}/hasty")
    assert line["reason"] == "PodTerminationOverdue"
    assert await state_of(kube, "10.30.0.1") == "Held"


async def test_the_slot_of_a_stateful_set_keeps_its_address_until_it_is_scaled_away(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    stateful_set = await make_stateful_set(kube, namespace, replicas=2)
    for ordinal in (0, 1):
        slot = slot_of(stateful_set, ordinal)
        await make_record(kube, f"10.30.0.{ordinal + 1}", "reclaim", namespace, f"db-{ordinal}", NOBODY, slot=slot)
    await until_state(kube, "10.30.0.1", "Retained")
    await until_state(kube, "10.30.0.2", "Retained")
    await kube.patch(STATEFUL_SETS, "db", {"spec": {"replicas": 1}}, namespace=namespace)
    await until_state(kube, "10.30.0.2", "Cooling", "")
    assert await state_of(kube, "10.30.0.1") == "Retained"


async def test_an_endpoint_of_a_pod_that_has_finished_goes_though_the_pod_is_still_there(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    pod = await make_pod(kube, namespace, "job", "node-1")
    await set_status(kube, pod, phase="Succeeded")
    await make_endpoint(kube, pod, "reclaim", "10.30.0.9")
    await until_no_endpoint(kube, namespace, "job")


async def test_a_retained_address_goes_with_its_pool(kube: KubeClient, namespace: str, controller: Controller) -> None:
    stateful_set = await make_stateful_set(kube, namespace, replicas=1)
    await make_pool(kube, "short-lived", "10.30.1.1-10.30.1.9")
    await make_record(kube, "10.30.1.1", "short-lived", namespace, "db-0", NOBODY, slot=slot_of(stateful_set, 0))
    await until_state(kube, "10.30.1.1", "Retained")
    await kube.delete(SPIDER_IP_POOLS, "short-lived")
    # A pool goes before its last address only where somebody takes its finalizer off.
    await kube.patch(SPIDER_IP_POOLS, "short-lived", {"metadata": {"finalizers": None}})
    await until_state(kube, "10.30.1.1", "Cooling", "")
    assert (await controller.logged("address_released", address="10.30.1.1"))["reason"] == "PoolGone"


async def test_an_address_cools_for_long_where_no_kubelet_saw_the_end_of_its_pod_and_nobody_fenced_the_node(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
    for number, name in enumerate(("node-cut-off", "node-fenced"), start=1):
        await make_node(kube, name)
        await set_ready(kube, name, "Unknown")
        await make_record(kube, f"10.30.0.{number}", "reclaim", namespace, "ghost", NOBODY, holder=ghost_on(name))
        if name == "node-fenced":
            await kube.patch(NODES, name, {"spec": {"taints": [taint]}})
    await until_state(kube, "10.30.0.2", "Cooling")
    await until_state(kube, "10.30.0.2", "")
    found = await find(kube, "10.30.0.1")
    assert found is not None
    spec = found["spec"]
    assert (decode_time(spec["until"]) or NEVER) - (decode_time(spec["since"]) or NEVER) == timedelta(minutes=10)


def ghost_on(node: str) -> dict[str, str]:
    names = {"namespace": "shop", "pod": "ghost", "podUID": NOBODY, "interface": "eth0", "containerID": "c1"}
    return {**names, "node": node}


async def test_conflicts_are_left_to_people_and_a_quarantine_lasts_its_time(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    await make_record(kube, "10.30.0.1", "reclaim", namespace, "ghost", NOBODY, state="Conflict")
    later = in_seconds(600)
    await make_record(kube, "10.30.0.2", "reclaim", namespace, "ghost", NOBODY, state="Quarantined", until=later)
    await make_record(kube, "10.30.0.3", "reclaim", namespace, "ghost", NOBODY)
    await until_state(kube, "10.30.0.3", "")
    assert [await state_of(kube, text) for text in ("10.30.0.1", "10.30.0.2")] == ["Conflict", "Quarantined"]


async def test_a_cooling_address_is_forgotten_when_its_time_is_over_and_not_before(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    soon, late = in_seconds(0), in_seconds(20)
    await make_record(kube, "10.30.0.1", "reclaim", namespace, "ghost", NOBODY, state="Cooling", until=soon)
    await make_record(kube, "10.30.0.2", "reclaim", namespace, "ghost", NOBODY, state="Cooling", until=late)
    await until_state(kube, "10.30.0.1", "")
    assert await state_of(kube, "10.30.0.2") == "Cooling"


async def until_no_endpoint(kube: KubeClient, namespace: str, name: str) -> None:
    async def gone() -> bool:
        try:
            await kube.get(SPIDER_ENDPOINTS, name, namespace=namespace)
        except NotFound:
            return True
        return False

    await until(gone, within_s=20, what=f"SpiderEndpoint {name} to go")


async def test_the_endpoint_goes_with_the_last_address_of_its_pod(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    pod = await holding_pod(kube, namespace, "cart", "10.30.0.1")
    await make_endpoint(kube, pod, "reclaim", "10.30.0.1")
    await remove_pod(kube, pod)
    await until_no_endpoint(kube, namespace, "cart")
    assert await state_of(kube, "10.30.0.1") in ("Cooling", "")


async def test_an_endpoint_of_a_gone_pod_without_any_address_goes_too_and_that_of_a_living_holder_stays(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    alive = await holding_pod(kube, namespace, "alive", "10.30.0.9")
    await make_endpoint(kube, alive, "reclaim", "10.30.0.9")
    gone = await make_pod(kube, namespace, "gone", "node-1")
    await make_endpoint(kube, gone, "reclaim", "10.30.0.8")
    await remove_pod(kube, gone)
    await until_no_endpoint(kube, namespace, "gone")
    assert await kube.get(SPIDER_ENDPOINTS, "alive", namespace=namespace)
