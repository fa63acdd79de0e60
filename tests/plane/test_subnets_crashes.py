"""Whoever dies or sleeps in between: all applications are served in the end, and no address is in two pools."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from allocator.kube.resources import SPIDER_IP_POOLS, SPIDER_SUBNETS
from devcluster.waiting import until
from tests.plane.controllers import running_controller
from tests.plane.subnets import (
    PREFIX,
    WITHIN_S,
    asks,
    lent_once,
    make_deployment,
    make_subnet,
    pools_of,
    scale,
    until_agreed,
    until_pool,
    until_unserved,
)

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.plane.controllers import Controller

MANY = 40


async def _burst(kube: KubeClient, namespace: str, subnet: str) -> list[Object]:
    """Many applications of three addresses each, all at once."""
    async with asyncio.TaskGroup() as group:
        made = [
            group.create_task(make_deployment(kube, namespace, f"app-{nth}", asks(subnet, number="+1"), replicas=2))
            for nth in range(MANY)
        ]
    return [task.result() for task in made]


async def _has_begun(kube: KubeClient, subnet: str, offering: int) -> bool:
    """Whether so many pools of the subnet have addresses already."""
    pools, _ = await kube.list_all(SPIDER_IP_POOLS, label_selector=f"{PREFIX}owner-spider-subnet={subnet}")
    return sum(bool(pool["spec"].get("ips")) for pool in pools) >= offering


async def _all_served(kube: KubeClient, subnet: str, applications: list[Object], each: int) -> None:
    offered = await until_agreed(kube, subnet, pools=len(applications))
    assert sorted(ips.size for ips in offered.values()) == [each] * len(applications)
    names = {pool["metadata"]["name"] for made in applications for pool in await pools_of(kube, made)}
    assert names == set(offered)
    await until_unserved(kube, subnet)


def _kill(controller: Controller) -> None:
    controller.process.send_signal(signal.SIGKILL)
    controller.process.wait(WITHIN_S)


@pytest.mark.parametrize("offering", [pytest.param(0, id="at once"), pytest.param(1, id="after the first was served")])
async def test_a_controller_killed_in_the_middle_of_a_burst_leaves_all_to_the_next(
    kube: KubeClient, plane: Plane, namespace: str, tmp_path: Path, offering: int
) -> None:
    subnet = f"killed-{offering}"
    await make_subnet(kube, subnet, f"10.9{1 + offering}.2.1-10.9{1 + offering}.2.120")
    with running_controller(plane.kubeconfig, namespace, tmp_path, identity="one") as one:
        await one.logged("leading")
        made = await _burst(kube, namespace, subnet)
        await until(lambda: _has_begun(kube, subnet, offering), within_s=WITHIN_S, what="the burst to be under way")
        _kill(one)
    await lent_once(kube, subnet)
    with running_controller(plane.kubeconfig, namespace, tmp_path, identity="two"):
        await _all_served(kube, subnet, made, 3)


async def test_a_controller_killed_while_pools_shrink_and_grow_leaves_all_to_the_next(
    kube: KubeClient, plane: Plane, namespace: str, tmp_path: Path
) -> None:
    await make_subnet(kube, "turns", "10.93.2.1-10.93.2.150")
    with running_controller(plane.kubeconfig, namespace, tmp_path, identity="one") as one:
        made = await _burst(kube, namespace, "turns")
        await _all_served(kube, "turns", made, 3)
        async with asyncio.TaskGroup() as group:
            for nth, each in enumerate(made):
                group.create_task(scale(kube, each, 1 + 2 * (nth % 2)))
        await until(lambda: _some_changed(kube, "turns"), within_s=WITHIN_S, what="some pool to have another size")
        _kill(one)
    await lent_once(kube, "turns")
    with running_controller(plane.kubeconfig, namespace, tmp_path, identity="two"):
        offered = await until_agreed(kube, "turns", pools=MANY)

        async def settled() -> bool:
            offered.update((await lent_once(kube, "turns"))[0])
            return sorted(ips.size for ips in offered.values()) == [2] * (MANY // 2) + [4] * (MANY // 2)

        await until(settled, within_s=WITHIN_S, what="pools of two and of four addresses")
        await until_agreed(kube, "turns", pools=MANY)


async def test_the_standby_takes_over_from_a_leader_that_sleeps_and_that_changes_nothing_when_it_wakes(
    kube: KubeClient, plane: Plane, namespace: str, tmp_path: Path
) -> None:
    await make_subnet(kube, "sleeps", "10.94.2.1-10.94.2.150")
    with running_controller(plane.kubeconfig, namespace, tmp_path, identity="one") as one:
        first = await make_deployment(kube, namespace, "first", asks("sleeps", number="+1"), replicas=2)
        await until_pool(kube, first, "10.94.2.1-10.94.2.3")
        # What it is told now is on its mind when it wakes.
        await scale(kube, first, 4)
        one.pause()
        with running_controller(plane.kubeconfig, namespace, tmp_path, identity="two") as two:
            await two.logged("leading")
            await until_pool(kube, first, "10.94.2.1-10.94.2.5")
            await _burst(kube, namespace, "sleeps")
            await until(lambda: _has_begun(kube, "sleeps", 2), within_s=WITHIN_S, what="the burst to be under way")
            before = len(one.lines("pool_resized"))
            one.resume()
            await one.logged("leader_overdue")
            offered = await until_agreed(kube, "sleeps", pools=MANY + 1)
            assert sorted(ips.size for ips in offered.values()) == [3] * MANY + [5]
            await until_unserved(kube, "sleeps")
            assert len(one.lines("pool_resized")) == before
            status = (await kube.get(SPIDER_SUBNETS, "sleeps"))["status"]
            assert status["accountsKeptBy"].startswith("two ")


async def _some_changed(kube: KubeClient, subnet: str) -> bool:
    offered, _ = await lent_once(kube, subnet)
    return any(ips.size != 3 for ips in offered.values())
