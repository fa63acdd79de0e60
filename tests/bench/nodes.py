"""Many nodes on few addresses, and many small pools: where agents meet most often."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from allocator.domain.addresses import parse_network
from tests.bench.load import add_all, clear_all, floor, make_pods, make_pool, make_pools
from tests.bench.report import Table, progress, usage_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.accounts import Usage
    from tests.bench.cluster import Cluster
    from tests.bench.report import Row
    from tests.plane.agents import Agent

AGENTS: Final = 64
AGENTS_OF_SMALL_POOLS: Final = 10
SMALL_POOLS: Final = 500
PODS_OF_A_POOL: Final = 3


async def run(cluster: Cluster) -> Table:
    rows: list[Row] = []
    says = ["every pod of a small pool is on another node, and names its pool only"]
    for count, work in ((AGENTS, _one_pod_each), (AGENTS_OF_SMALL_POOLS, _small_pools)):
        async with cluster.agents(count) as agents:
            what, usage, bare, pods = await work(cluster, agents)
        progress(f"nodes: {what}")
        rows.append(usage_row(what, usage, pods, bare))
        says.append(f"{what}: {usage.busy()}")
    return Table("nodes", "CPU milliseconds, calls and bytes are for one pod", rows, says)


async def _one_pod_each(cluster: Cluster, agents: Sequence[Agent]) -> tuple[str, Usage, Usage, int]:
    await make_pool(cluster.kube, "nodes", "10.44.0.0/16", ["10.44.0.1-10.44.0.64"])
    annotation = json.dumps({"ipv4": ["nodes"]})
    pods = await make_pods(cluster.kube, "each", [agent.node for agent in agents], [annotation] * len(agents))
    bare = await floor(cluster, len(pods))
    async with cluster.meter(agents).measured() as measured:
        await add_all(agents, pods)
    await clear_all(cluster.kube)
    return f"{len(agents)} agents, 1 pod each, {len(pods)} addresses", measured.result(), bare, len(pods)


async def _small_pools(cluster: Cluster, agents: Sequence[Agent]) -> tuple[str, Usage, Usage, int]:
    names = [f"small-{index}" for index in range(SMALL_POOLS)]
    subnets = [str(each) for each in parse_network("10.45.0.0/16").subnets(new_prefix=29)][:SMALL_POOLS]
    await make_pools(
        cluster.kube, [(name, subnet, _first(subnet)) for name, subnet in zip(names, subnets, strict=True)]
    )
    annotations = [json.dumps({"ipv4": [name]}) for name in names for _ in range(PODS_OF_A_POOL)]
    pods = await make_pods(cluster.kube, "small", [agent.node for agent in agents], annotations)
    bare = await floor(cluster, len(pods))
    async with cluster.meter(agents).measured() as measured:
        await add_all(agents, pods)
    await clear_all(cluster.kube)
    what = f"{SMALL_POOLS} pools of {PODS_OF_A_POOL}, {len(agents)} agents, {len(pods)} pods"
    return what, measured.result(), bare, len(pods)


def _first(subnet: str) -> list[str]:
    base = parse_network(subnet).network_address
    return [f"{base + 1}-{base + PODS_OF_A_POOL}"]
