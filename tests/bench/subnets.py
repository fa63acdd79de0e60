"""Applications that are made at once on one SpiderSubnet: how long until each has its pool, and one more among many."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from allocator.kube.resources import DEPLOYMENTS, SPIDER_IP_POOLS, SPIDER_SUBNETS
from devcluster.waiting import until
from tests.bench.cluster import NAMESPACE
from tests.bench.report import Table, progress, usage_row
from tests.plane.controllers import running_controller
from tests.plane.subnets import accounts, asks, make_deployment, make_subnet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from tests.bench.accounts import Usage
    from tests.bench.cluster import Cluster
    from tests.bench.report import Row
    from tests.plane.controllers import Controller

BURSTS: Final = (50, 500)
SIZE: Final = 2
SUBNET: Final = "bench"
WITHIN_S: Final = 120.0
# Creations at once: as many as a client of kubectl's kind would have.
AT_ONCE: Final = 32
# Of one application among many others.
ALONE: Final = 10


async def run(cluster: Cluster) -> Table:
    rows: list[Row] = []
    says = [f"each application asks for {SIZE} addresses and has no pods: the time is that of the controller alone"]
    log_level = ("--log-level", "info")
    with running_controller(cluster.kubeconfig, NAMESPACE, cluster.folder, *log_level, identity="bench") as controller:
        await controller.logged("leading")
        each_s = []
        for count in BURSTS:
            bare = await _bare(cluster, controller, count)
            usage = await _burst(cluster, controller, count)
            rows.append(usage_row(f"{count} Deployments without pools", bare, count, None))
            rows.append(usage_row(f"{count} applications at once", usage, count, bare))
            each_s.append(usage.wall_s / count)
            alone_ms = await _one_more(cluster.kube)
            says.append(
                f"{count}: {usage.wall_s * 1000 / count:.1f} ms for each, {usage.busy()}; "
                f"then one more has its pool after {alone_ms:.0f} ms (median of {ALONE})"
            )
            await _clear(cluster.kube)
            progress(f"subnets: {count}")
    says.append(f"an application of {BURSTS[-1]} takes {each_s[-1] / each_s[0]:.2f}x the time of one of {BURSTS[0]}")
    return Table("subnets", "CPU milliseconds, calls and bytes are for one application", rows, says)


async def _bare(cluster: Cluster, controller: Controller, count: int) -> Usage:
    """The same Deployments, which ask for nothing: what their creation alone costs."""
    async with cluster.meter(controller=[controller.process.pid]).measured() as measured:
        await _make(cluster.kube, [f"bare-{nth}" for nth in range(count)], {})
    await cluster.kube.raw("DELETE", DEPLOYMENTS.path(NAMESPACE))
    return measured.result()


async def _burst(cluster: Cluster, controller: Controller, count: int) -> Usage:
    await make_subnet(cluster.kube, SUBNET, "10.46.0.1-10.46.15.254", subnet="10.46.0.0/16")
    async with cluster.meter(controller=[controller.process.pid]).measured() as measured:
        await _make(cluster.kube, [f"app-{nth}" for nth in range(count)], asks(SUBNET, number=str(SIZE)))
        await _all_have_pools(cluster.kube, count)
    lent, allocated, _ = await accounts(cluster.kube, SUBNET)
    if (len(lent), allocated) != (count, count * SIZE):
        raise RuntimeError(f"{count} applications got {len(lent)} pools and {allocated} addresses")
    return measured.result()


async def _make(kube: KubeClient, names: Sequence[str], annotations: dict[str, str]) -> list[Object]:
    places = asyncio.Semaphore(AT_ONCE)

    async def make(name: str) -> Object:
        async with places:
            return await make_deployment(kube, NAMESPACE, name, annotations, replicas=0)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(make(name)) for name in names]
    return [task.result() for task in tasks]


async def _all_have_pools(kube: KubeClient, count: int) -> None:
    """Looked at seldom: each look is a list of all."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        raws, _ = await kube.list_all(SPIDER_IP_POOLS)
        if sum(bool(raw["spec"].get("ips")) for raw in raws) == count:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"after {WITHIN_S:.0f} s some of {count} applications have no pool")
        await asyncio.sleep(0.25)


async def _one_more(kube: KubeClient) -> float:
    """Milliseconds from the creation of an application until its pool offers addresses; the median of some."""
    took = []
    for nth in range(ALONE):
        began = time.perf_counter()
        (made,) = await _make(kube, [f"alone-{nth}"], asks(SUBNET, number=str(SIZE)))
        selector = f"ipam.spidernet.io/owner-application-uid={made['metadata']['uid']}"

        async def look(selector: str = selector) -> bool:
            raws = (await kube.list(SPIDER_IP_POOLS, label_selector=selector))["items"]
            return any(raw["spec"].get("ips") for raw in raws)

        await until(look, within_s=WITHIN_S, what="the pool of one more application")
        took.append((time.perf_counter() - began) * 1000)
    return sorted(took)[ALONE // 2]


async def _clear(kube: KubeClient) -> None:
    await kube.raw("DELETE", DEPLOYMENTS.path(NAMESPACE))

    async def none_left() -> bool:
        return not (await kube.list(SPIDER_IP_POOLS, limit=1))["items"]

    await until(none_left, within_s=WITHIN_S, what="the pools to go with their applications")
    await kube.delete(SPIDER_SUBNETS, SUBNET)

    async def is_gone() -> bool:
        return not (await kube.list(SPIDER_SUBNETS))["items"]

    await until(is_gone, within_s=WITHIN_S, what="the subnet to go")
