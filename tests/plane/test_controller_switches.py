"""The controller's switches and its brake, each with a controller of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from allocator.kube.resources import PODS
from tests.plane.agents import make_node, make_pod
from tests.plane.controllers import (
    NOBODY,
    condition,
    in_seconds,
    make_pool,
    make_record,
    make_stateful_set,
    running_controller,
    slot_of,
    state_of,
    until_state,
    until_status,
)

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane


@pytest.fixture
async def pool(kube: KubeClient) -> str:
    await make_node(kube, "node-1")
    await make_pool(kube, "switches", "10.30.0.1-10.30.0.250")
    return "switches"


def is_braked(status: dict[str, Any]) -> bool:
    return any(each["type"] == "ReclaimBraked" for each in status["conditions"])


async def test_a_running_pod_without_an_address_keeps_its_record_unless_the_originals_switch_is_on(
    kube: KubeClient, plane: Plane, namespace: str, pool: str, tmp_path: Path
) -> None:
    cart = await make_pod(kube, namespace, "cart", "node-1")
    await kube.patch(PODS, "cart", {"status": {"phase": "Running"}}, namespace=namespace, subresource="status")
    await make_record(kube, "10.30.0.1", pool, namespace, "cart", cart["metadata"]["uid"])
    await make_record(kube, "10.30.0.2", pool, namespace, "ghost", NOBODY)
    with running_controller(plane.kubeconfig, namespace, tmp_path):
        await until_state(kube, "10.30.0.2", "Cooling", "")
        assert await state_of(kube, "10.30.0.1") == "Held"
    switch = {"SPIDERPOOL_GC_ENABLE_STATELESS_RUNNING_POD_ON_EMPTY_POD_STATUS_IPS": "true"}
    with running_controller(plane.kubeconfig, namespace, tmp_path, **switch) as running:
        await until_state(kube, "10.30.0.1", "Cooling", "")
        assert (await running.logged("address_released", address="10.30.0.1"))["reason"] == "PodWithoutIPs"


async def test_without_static_addresses_a_slot_is_an_ordinary_holder(
    kube: KubeClient, plane: Plane, namespace: str, pool: str, tmp_path: Path
) -> None:
    stateful_set = await make_stateful_set(kube, namespace, replicas=1)
    await make_record(kube, "10.30.0.1", pool, namespace, "db-0", NOBODY, slot=slot_of(stateful_set, 0))
    conf = tmp_path / "conf.yml"
    conf.write_text("enableStatefulSet: false\n")
    with running_controller(plane.kubeconfig, namespace, tmp_path, "--config", str(conf)):
        await until_state(kube, "10.30.0.1", "Cooling", "")


async def test_the_end_of_a_pod_is_heard_without_a_sweep_which_may_be_an_hour_away(
    kube: KubeClient, plane: Plane, namespace: str, pool: str, tmp_path: Path
) -> None:
    cart = await make_pod(kube, namespace, "cart", "node-1")
    await make_record(kube, "10.30.0.1", pool, namespace, "cart", cart["metadata"]["uid"])
    await make_record(kube, "10.30.0.2", pool, namespace, "ghost", NOBODY)
    with running_controller(plane.kubeconfig, namespace, tmp_path, "--sweep-interval", "3600") as running:
        # By the first sweep, the only one:
        await running.logged("address_released", address="10.30.0.2")
        await kube.delete(PODS, "cart", namespace=namespace, grace_period_s=0)
        await running.logged("address_released", address="10.30.0.1")


async def test_reclaim_that_is_switched_off_frees_nothing(
    kube: KubeClient, plane: Plane, namespace: str, pool: str, tmp_path: Path
) -> None:
    await make_record(kube, "10.30.0.1", pool, namespace, "ghost", NOBODY)
    await make_record(kube, "10.30.0.2", pool, namespace, "ghost", NOBODY, state="Cooling", until=in_seconds(3))
    with running_controller(plane.kubeconfig, namespace, tmp_path, SPIDERPOOL_GC_IP_ENABLED="false") as running:
        await running.logged("reclaim_off")
        await until_state(kube, "10.30.0.2", "")
    assert await state_of(kube, "10.30.0.1") == "Held"


async def test_a_sweep_that_would_free_too_much_frees_nothing_at_first(
    kube: KubeClient, plane: Plane, namespace: str, pool: str, tmp_path: Path
) -> None:
    texts = [f"10.30.0.{number}" for number in range(1, 61)]
    for text in texts:
        await make_record(kube, text, pool, namespace, "ghost", NOBODY)
    cools = in_seconds(4)
    await make_record(kube, "10.30.0.100", pool, namespace, "ghost", NOBODY, state="Cooling", until=cools)
    with running_controller(plane.kubeconfig, namespace, tmp_path) as running:
        line = await running.logged("reclaim_braked")
        assert (line["would_free"], line["in_use"]) == (60, 60)
        told = condition(await until_status(kube, pool, is_braked), "ReclaimBraked")
        assert (told["status"], told["reason"]) == ("True", "TooManyAtOnce")
        assert told["message"].startswith("60 addresses of this pool")
        # Many a sweep and grace later:
        await until_state(kube, "10.30.0.100", "")
        assert {await state_of(kube, text) for text in texts} == {"Held"}
