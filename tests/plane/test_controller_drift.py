"""Pools and the gateway and routes of their SpiderSubnet, by a real controller process on an API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from allocator.domain.drift import FOLLOW
from allocator.kube.resources import SPIDER_IP_POOLS, SPIDER_SUBNETS
from devcluster.waiting import until
from tests.plane.controllers import condition, make_pool, running_controller, until_status
from tests.plane.webhooks import register, subnet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.plane.controllers import Controller
    from tests.plane.webhooks import Webhook

SLOWLY = ("--reclaim-grace", "20", "--sweep-interval", "20")
V4 = "10.30.0.0/16"
ROUTES = [{"dst": "10.99.0.0/16", "gw": "10.30.0.254"}]


@pytest.fixture(scope="module")
def controller(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    with running_controller(plane.kubeconfig, "default", tmp_path_factory.mktemp("controller"), *SLOWLY) as running:
        yield running


async def adopted(kube: KubeClient, name: str, items: str, **spec: Any) -> Object:
    """A pool of the subnet dc1, as webhook and controller leave it."""
    await make_pool(kube, name, items, **spec)
    return await kube.patch(
        SPIDER_IP_POOLS, name, {"metadata": {"labels": {"ipam.spidernet.io/owner-spider-subnet": "dc1"}}}
    )


async def until_drift(kube: KubeClient, name: str, reason: str) -> dict[str, Any]:
    """The condition, once it has that reason."""

    def holds(status: dict[str, Any]) -> bool:
        return any(each["type"] == "SubnetDrift" and each["reason"] == reason for each in status["conditions"])

    return condition(await until_status(kube, name, holds), "SubnetDrift")


async def until_spec(kube: KubeClient, name: str, **wanted: Any) -> None:
    async def look() -> bool:
        spec = (await kube.get(SPIDER_IP_POOLS, name))["spec"]
        return all(spec.get(key) == value for key, value in wanted.items())

    await until(look, within_s=20, what=f"spec of SpiderIPPool {name} to have {wanted}")


async def test_a_changed_gateway_shows_on_the_pools_of_the_subnet_and_changes_none(
    kube: KubeClient, controller: Controller
) -> None:
    await kube.create(SPIDER_SUBNETS, subnet("dc1", subnet=V4, gateway="10.30.0.1", ips=["10.30.0.2-10.30.0.99"]))
    await adopted(kube, "a", "10.30.0.2-10.30.0.10", gateway="10.30.0.1")
    await make_pool(kube, "stranger", "10.31.0.20", subnet="10.31.0.0/16", gateway="10.31.0.1")
    assert (await until_drift(kube, "a", "AsSubnet"))["status"] == "False"
    await kube.patch(SPIDER_SUBNETS, "dc1", {"spec": {"gateway": "10.30.0.100", "routes": ROUTES}})
    found = await until_drift(kube, "a", "DiffersFromSubnet")
    assert found["status"] == "True"
    assert "SpiderSubnet dc1 has gateway 10.30.0.100 and routes 10.99.0.0/16 via 10.30.0.254" in found["message"]
    assert FOLLOW in found["message"]
    assert (await kube.get(SPIDER_IP_POOLS, "a"))["spec"]["gateway"] == "10.30.0.1"
    stranger = await until_status(kube, "stranger", bool)
    assert all(each["type"] != "SubnetDrift" for each in stranger["conditions"])


async def test_a_pool_that_follows_gets_every_change(kube: KubeClient, controller: Controller) -> None:
    await kube.create(SPIDER_SUBNETS, subnet("dc1", subnet=V4, gateway="10.30.0.100", ips=["10.30.0.2-10.30.0.99"]))
    await adopted(kube, "a", "10.30.0.2-10.30.0.10", gateway="10.30.0.1", disable=True)
    await until_drift(kube, "a", "DiffersFromSubnet")
    await kube.patch(SPIDER_IP_POOLS, "a", {"metadata": {"annotations": {FOLLOW: "true"}}})
    await until_spec(kube, "a", gateway="10.30.0.100", ips=["10.30.0.2-10.30.0.10"], disable=True)
    await kube.patch(SPIDER_SUBNETS, "dc1", {"spec": {"gateway": "10.30.0.101", "routes": ROUTES}})
    await until_spec(kube, "a", gateway="10.30.0.101", routes=ROUTES)
    await until_drift(kube, "a", "AsSubnet")


async def test_what_the_api_server_refuses_to_take_over_is_told(
    kube: KubeClient, controller: Controller, server: Webhook
) -> None:
    await kube.create(SPIDER_SUBNETS, subnet("dc1", subnet=V4, gateway="10.30.0.5"))
    await adopted(kube, "a", "10.30.0.2-10.30.0.10", gateway="10.30.0.1")
    await register(kube, server)
    await kube.patch(SPIDER_IP_POOLS, "a", {"metadata": {"annotations": {FOLLOW: "true"}}})
    found = await until_drift(kube, "a", "CannotFollow")
    assert "because the API server refuses it: " in found["message"]
    assert "the gateway 10.30.0.5" in found["message"]
    await kube.patch(SPIDER_SUBNETS, "dc1", {"spec": {"gateway": "10.30.0.100"}})
    await until_spec(kube, "a", gateway="10.30.0.100")
