"""1,000 pods at once over 10 agents, and the end of all of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from tests.bench.load import add_all, clear_all, delete_all, end_pods, floor, make_pods, make_pool
from tests.bench.report import Table, progress, usage_row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from allocator.kube.resources import Object
    from tests.bench.accounts import Usage
    from tests.bench.cluster import Cluster
    from tests.bench.report import Row
    from tests.plane.agents import Agent

PODS: Final = 1000
AGENTS: Final = 10
ROUNDS: Final = {
    "exact": {"exact": ("10.41.0.0/16", "10.41.0.1-10.41.3.232")},
    "room": {"room": ("10.42.0.0/16", "10.42.0.1-10.42.7.208")},
    "dual": {"dual-4": ("10.43.0.0/16", "10.43.0.1-10.43.3.232"), "dual-6": ("fd43::/64", "fd43::1-fd43::3e8")},
}


async def run(cluster: Cluster) -> Table:
    # An API server that has just started is busy with itself, and its first requests of a kind are slow.
    await floor(cluster, PODS)
    rows: list[Row] = []
    says = ["exact: as many addresses as pods; room: twice as many; dual: IPv4 and IPv6"]
    async with cluster.agents(AGENTS) as agents:
        for name, pools in ROUNDS.items():
            for what, usage, bare in await _round(cluster, agents, name, pools):
                rows.append(usage_row(what, usage, PODS, bare))
                says.append(f"{what}: {PODS / usage.wall_s:.0f}/s, and {usage.busy()}")
    about = f"{PODS} pods at once, {AGENTS} agents; CPU milliseconds, calls and bytes are for one pod"
    return Table("burst", about, rows, says)


async def _round(
    cluster: Cluster, agents: Sequence[Agent], name: str, pools: Mapping[str, tuple[str, str]]
) -> list[tuple[str, Usage, Usage | None]]:
    """What was done, what it cost, and the floor that it is measured against."""
    for pool, (subnet, ips) in pools.items():
        await make_pool(cluster.kube, pool, subnet, [ips])
    annotation = json.dumps({f"ipv{6 if ':' in subnet else 4}": [pool] for pool, (subnet, _) in pools.items()})
    pods = await make_pods(cluster.kube, name, [agent.node for agent in agents], [annotation] * PODS)
    bare = await floor(cluster, PODS)
    added = await _measured_adds(cluster, agents, pods, len(pools))
    await end_pods(cluster.kube, pods, grace_period_s=30)
    async with cluster.meter(agents).measured() as released:
        await delete_all(agents, pods)
    await clear_all(cluster.kube)
    progress(f"burst: {name}")
    return [
        (f"{name}: bare creates", bare, None),
        (f"{name}: ADD", added, bare),
        (f"{name}: DEL", released.result(), bare),
    ]


async def _measured_adds(cluster: Cluster, agents: Sequence[Agent], pods: Sequence[Object], families: int) -> Usage:
    async with cluster.meter(agents).measured() as measured:
        given = await add_all(agents, pods)
    if len(given) != len(pods) * families:
        raise RuntimeError(f"{len(pods)} pods got {len(given)} addresses")
    return measured.result()
