"""Applications of third parties: which kinds get pools is a setting, and their scale says how large those are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from allocator.kube.resources import REPLICA_SETS, SPIDER_IP_POOLS
from tests.plane import robots
from tests.plane.controllers import running_controller, until_gone
from tests.plane.subnets import (
    PREFIX,
    accounts,
    asks,
    config_with,
    make_deployment,
    make_lone_pod,
    make_subnet,
    make_workload,
    pools_of,
    selecting,
    until_event,
    until_pool,
    until_size,
    until_unserved,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.plane.controllers import Controller


@pytest.fixture(scope="module", autouse=True)
def controller(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    # The controller looks for kinds that are not there once a minute.
    asyncio.run(robots.install_at(plane.kubeconfig))
    directory = tmp_path_factory.mktemp("controller")
    said = config_with(directory, subnetApplicationKinds=robots.KINDS)
    with running_controller(plane.kubeconfig, "default", directory, *said) as running:
        yield running


async def _scale(kube: KubeClient, robot: Object, replicas: int) -> None:
    """As `kubectl scale` does it."""
    meta = robot["metadata"]
    path = robots.ROBOTS.path(meta["namespace"], meta["name"], "scale")
    await kube.raw("PATCH", path, body={"spec": {"replicas": replicas}}, content_type="application/merge-patch+json")


async def test_the_pool_follows_the_scale_of_its_application(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "scaled", "10.61.2.1-10.61.2.20")
    robot = await robots.make_one(kube, robots.ROBOTS, namespace, "arm", asks("scaled", number="+1"), crew=2)
    pool = await until_pool(kube, robot, "10.61.2.1-10.61.2.3")
    affinity = pool["spec"]["podAffinity"]["matchLabels"]
    assert (affinity[PREFIX + "app-api-group"], affinity[PREFIX + "app-kind"]) == ("example.com", "Robot")
    assert (await accounts(kube, "scaled"))[0][pool["metadata"]["name"]]["application"] == (
        f"example.com_v1_Robot_{namespace}_arm"
    )
    await _scale(kube, robot, 4)
    await until_pool(kube, robot, "10.61.2.1-10.61.2.5")
    await _scale(kube, robot, 1)
    await until_pool(kube, robot, "10.61.2.4-10.61.2.5")
    await kube.delete(robots.ROBOTS, "arm", namespace=namespace)
    await until_gone(kube, pool["metadata"]["name"])


async def test_a_kind_without_scale_gets_the_fixed_number_that_it_asks_for(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "fixed3", "10.62.2.1-10.62.2.20")
    rock = await robots.make_one(kube, robots.ROCKS, namespace, "flint", asks("fixed3", number="3"))
    await until_pool(kube, rock, "10.62.2.1-10.62.2.3")


@pytest.mark.parametrize("number", [pytest.param("+1", id="a surplus"), pytest.param(None, id="no number")])
async def test_a_kind_without_scale_is_told_that_it_needs_a_fixed_number(
    kube: KubeClient, namespace: str, number: str | None
) -> None:
    await make_subnet(kube, "unscaled", "10.63.2.1-10.63.2.20", subnet="10.63.0.0/16")
    rock = await robots.make_one(kube, robots.ROCKS, namespace, "flint", asks("unscaled", number=number))
    event = await until_event(kube, rock, "InvalidRequest")
    assert "set the annotation ipam.spidernet.io/ippool-ip-number to a fixed number" in event["note"]
    body = {"spec": {"template": {"metadata": {"annotations": {PREFIX + "ippool-ip-number": "2"}}}}}
    await kube.patch(robots.ROCKS, "flint", body, namespace=namespace)
    await until_size(kube, rock, 2)
    await until_unserved(kube, "unscaled")


async def test_a_kind_that_is_not_listed_is_told_so_and_all_others_go_on(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "haunted", "10.64.2.1-10.64.2.20")
    annotations = asks("haunted", number="2")
    ghost = await robots.make_one(kube, robots.GHOSTS, namespace, "grey", annotations)
    await make_lone_pod(kube, namespace, "grey-1", annotations, owner=ghost)
    event = await until_event(kube, ghost, "InvalidRequest")
    assert "add it to subnetApplicationKinds of the ConfigMap" in event["note"]
    told = (await until_unserved(kube, "haunted", ghost))["message"]
    assert "Ghost of example.com/v1 is no kind that pools are made for here" in told
    cart = await make_deployment(kube, namespace, "cart", annotations, replicas=1)
    await until_pool(kube, cart, "10.64.2.1-10.64.2.2")
    assert await pools_of(kube, ghost) == []
    await until_unserved(kube, "haunted", ghost)


async def _borrowing(kube: KubeClient, namespace: str, annotations: dict[str, str]) -> Object:
    """As an Argo Rollout does it: its ReplicaSet has pods, and it has no template."""
    robot = await make_workload(kube, robots.ROBOTS, namespace, "arm", {"crew": 2})
    middle = await make_workload(
        kube, REPLICA_SETS, namespace, "arm-1", selecting("arm-1", annotations, replicas=1), owner=robot
    )
    await make_lone_pod(kube, namespace, "arm-1-a", annotations, owner=middle)
    return robot


async def test_pods_speak_for_an_application_that_borrows_its_template(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "lent", "10.65.2.1-10.65.2.20")
    robot = await _borrowing(kube, namespace, asks("lent", number="+1"))
    await until_pool(kube, robot, "10.65.2.1-10.65.2.3")
    pools, _ = await kube.list_all(SPIDER_IP_POOLS, label_selector=f"{PREFIX}owner-spider-subnet=lent")
    assert len(pools) == 1


@pytest.mark.parametrize("net", [pytest.param("10.66", id="its own"), pytest.param("10.68", id="borrowed")])
async def test_a_new_leader_leaves_an_idle_pool_to_a_third_partys_application_whose_template_is(
    kube: KubeClient, namespace: str, plane: Plane, tmp_path: Path, controller: Controller, net: str
) -> None:
    await make_subnet(kube, f"spared-{net}", f"{net}.2.1-{net}.2.20")
    annotations = asks(f"spared-{net}", number="+1")
    if net == "10.68":
        robot = await _borrowing(kube, namespace, annotations)
    else:
        robot = await robots.make_one(kube, robots.ROBOTS, namespace, "arm", annotations, crew=2)
    pool = await until_pool(kube, robot, f"{net}.2.1-{net}.2.3")
    controller.pause()
    said = config_with(tmp_path, subnetApplicationKinds=robots.KINDS)
    with running_controller(plane.kubeconfig, "default", tmp_path, *said, identity="two") as two:
        await two.logged("leading")
        await _scale(kube, robot, 3)
        grown = await until_pool(kube, robot, f"{net}.2.1-{net}.2.4")
        assert grown["metadata"]["uid"] == pool["metadata"]["uid"]
        controller.resume()
        await controller.logged("leader_overdue")
