"""Many nodes on few addresses, and many small pools: where agents meet most often."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from allocator.domain.addresses import parse_network
from tests.bench.load import add_all, clear_all, floor, make_pods, make_pool, make_pools
from tests.bench.report import Table, usage_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.cluster import Cluster
    from tests.bench.report import Row
    from tests.plane.agents import Agent

AGENTS: Final = 64
SMALL_POOLS: Final = 500
PODS_OF_A_POOL: Final = 3


async def run(cluster: Cluster) -> Table:
    async with cluster.agents(AGENTS) as agents:
        rows = await _one_pod_each(cluster, agents)
    async with cluster.agents(10) as agents:
        rows += await _small_pools(cluster, agents)
    about = "CPU milliseconds, calls and bytes are for one pod"
    return Table("nodes", about, rows, ("every pod of a small pool is on another node, and names its pool only",))


async def _one_pod_each(cluster: Cluster, agents: Sequence[Agent]) -> list[Row]:
    await make_pool(cluster.kube, "nodes", "10.44.0.0/16", ["10.44.0.1-10.44.0.64"])
    annotation = json.dumps({"ipv4": ["nodes"]})
    pods = await make_pods(cluster.kube, "each", [agent.node for agent in agents], [annotation] * len(agents))
    bare = await floor(cluster, len(pods))
    async with cluster.meter(agents).measured() as measured:
        await add_all(agents, pods)
    await clear_all(cluster.kube)
    return [usage_row(f"{len(agents)} agents, 1 pod each, {len(pods)} addresses", measured.result(), len(pods), bare)]


async def _small_pools(cluster: Cluster, agents: Sequence[Agent]) -> list[Row]:
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
    return [usage_row(what, measured.result(), len(pods), bare)]


def _first(subnet: str) -> list[str]:
    base = parse_network(subnet).network_address
    return [f"{base + 1}-{base + PODS_OF_A_POOL}"]
