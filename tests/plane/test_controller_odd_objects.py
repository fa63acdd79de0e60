"""Objects that no webhook would have let in, and the end of subnets, by a real controller process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from allocator.kube.resources import SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS, SPIDER_SUBNETS
from devcluster.waiting import until
from tests.plane.controllers import (
    API,
    FINALIZER,
    NOBODY,
    condition,
    in_seconds,
    make_pool,
    make_record,
    running_controller,
    until_gone,
    until_state,
    until_status,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane
    from tests.plane.controllers import Controller

# CEL does not order IPv6 with a dotted end: the CRD lets such a reversed range in, as the original's webhook did.
REVERSED = "fd00::0.0.0.9-fd00::0.0.0.1"


@pytest.fixture(scope="module")
def controller(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    slowly = ("--reclaim-grace", "20", "--sweep-interval", "20")
    with running_controller(plane.kubeconfig, "default", tmp_path_factory.mktemp("controller"), *slowly) as running:
        yield running


async def test_a_time_that_python_cannot_read_ends_no_controller(
    kube: KubeClient, plane: Plane, namespace: str, tmp_path: Path
) -> None:
    await make_pool(kube, "odd", "10.30.0.1-10.30.0.10")
    odd = {
        "type": "Ready",
        "status": "True",
        "reason": "R",
        "message": "m",
        "lastTransitionTime": "2024-01-01t00:00:00z",
    }
    status: dict[str, Any] = {"allocationSource": "Ledger", "observedGeneration": 1, "conditions": [odd]}
    await kube.patch(SPIDER_IP_POOLS, "odd", {"status": status}, subresource="status")
    with running_controller(plane.kubeconfig, namespace, tmp_path) as fresh:
        await until_status(kube, "odd", lambda status: status.get("totalIPCount") == 10)
        assert fresh.process.poll() is None
        assert not fresh.lines("change_not_taken_in")


async def test_a_pool_that_cannot_be_read_says_so_and_can_be_deleted(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    await make_pool(kube, "reversed", REVERSED, subnet="fd00::/64", ipVersion=6)
    status = await until_status(kube, "reversed", lambda status: "conditions" in status)
    ready = condition(status, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Unreadable")
    assert REVERSED in ready["message"]
    await make_record(kube, "fd00::1", "reversed", namespace, "ghost", NOBODY, state="Cooling", until=in_seconds(3))
    await kube.delete(SPIDER_IP_POOLS, "reversed")
    await until_status(kube, "reversed", lambda status: condition(status, "Ready")["reason"] == "Terminating")
    await until_state(kube, "fd00::1", "")
    await until_gone(kube, "reversed")


async def make_subnet(kube: KubeClient, name: str, **status: Any) -> None:
    meta = {"name": name, "finalizers": [FINALIZER]}
    spec = {"subnet": "10.30.0.0/16", "ips": ["10.30.0.1-10.30.0.10"], "ipVersion": 4}
    await kube.create(SPIDER_SUBNETS, {"apiVersion": API, "kind": "SpiderSubnet", "metadata": meta, "spec": spec})
    if status:
        await kube.patch(SPIDER_SUBNETS, name, {"status": status}, subresource="status")


async def test_a_deleted_subnet_goes_also_where_its_accounts_name_a_pool_that_is_gone(
    kube: KubeClient, controller: Controller
) -> None:
    await make_subnet(kube, "empty")
    await make_subnet(kube, "lent", controlledIPPools='{"left":{"ips":["10.30.0.1-10.30.0.5"]}}')
    await make_subnet(kube, "standing")
    for name in ("lent", "empty"):
        await kube.delete(SPIDER_SUBNETS, name)
    for name in ("lent", "empty"):
        await until_gone(kube, name, resource=SPIDER_SUBNETS)
    assert FINALIZER in (await kube.get(SPIDER_SUBNETS, "standing"))["metadata"]["finalizers"]


async def test_a_record_that_cannot_be_read_is_told_of_once_and_blocks_its_pool(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    await make_pool(kube, "a", "10.30.0.1-10.30.0.10")
    raw = await make_record(kube, "10.30.0.1", "a", namespace, "ghost", NOBODY, since="2024-01-01t00:00:00z")
    uid = raw["metadata"]["uid"]
    line = await controller.logged("address_object_unreadable", uid=uid)
    assert line["address"] == "10.30.0.1"
    await kube.patch(SPIDER_IP_ADDRESSES, "10.30.0.1", {"metadata": {"labels": {"seen": "yes"}}})
    await make_record(kube, "10.30.0.2", "a", namespace, "ghost", NOBODY)

    async def counted() -> bool:
        status = (await kube.get(SPIDER_IP_POOLS, "a")).get("status") or {}
        return bool(status.get("allocatedIPCount") == 2)

    await until(counted, within_s=20, what="the second record to be counted")
    assert len(controller.lines("address_object_unreadable", uid=uid)) == 1
