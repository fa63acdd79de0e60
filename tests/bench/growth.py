"""What an allocation costs as pools and records grow: it should cost what it costs in a small, empty pool."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain.addresses import IntervalSet, object_name, parse_address, parse_network
from allocator.kube.resources import PODS as POD_KIND
from allocator.kube.resources import SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS
from tests.bench.cluster import NAMESPACE
from tests.bench.load import PARALLEL, add_all, clear, make_pods, make_pool, run_all
from tests.bench.report import Table, progress
from tests.plane.controllers import make_record

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tests.bench.accounts import Usage
    from tests.bench.cluster import Cluster
    from tests.bench.report import Row
    from tests.plane.agents import Agent

PODS: Final = 200
SCATTERED: Final = 10_000
LAYOUTS: Final = ("spread", "clustered")


@dataclass(frozen=True, slots=True)
class Case:
    """A pool of all of `subnet`, some of it taken before: by index into its addresses."""

    what: str
    pool: str
    subnet: str
    taken: Collection[int] = ()

    @property
    def pods(self) -> int:
        """Beside the first: fewer where fewer addresses are free, with an eye on the gateway's and the network's."""
        return min(PODS, parse_network(self.subnet).num_addresses - len(self.taken) - 1)


def _scattered(what: str, pool: str, subnet: str) -> Case:
    size = min(parse_network(subnet).num_addresses, 2**60)  # more than random.sample takes
    taken = random.Random(subnet).sample(range(size), SCATTERED)  # noqa: S311 - the same in each run
    return Case(f"{SCATTERED} records in {what}", pool, subnet, taken)


def _full(bits: int, layout: str, pool: str, subnet: str) -> Case:
    spread = [index for index in range(2**bits) if index % 100 != 50]
    taken = spread if layout == "spread" else range(len(spread))
    return Case(f"2^{bits} 99 % full, free ones {layout}", pool, subnet, taken)


def _cases() -> list[Case]:
    """Those of one pool one after the other: from each to the next only the records that differ are written."""
    return [
        Case("empty 2^8", "8", "10.60.0.0/24"),
        Case("empty 2^12", "12", "10.61.0.0/20"),
        Case("empty 2^16", "16", "10.62.0.0/16"),
        Case("empty 2^24", "24", "11.0.0.0/8"),
        Case("empty IPv6 /64", "64", "fd60::/64"),
        _scattered("2^24", "24", "11.0.0.0/8"),
        _scattered("an IPv6 /64", "64", "fd60::/64"),
        *(_full(8, layout, "8", "10.60.0.0/24") for layout in LAYOUTS),
        *(_full(12, layout, "12", "10.61.0.0/20") for layout in LAYOUTS),
        _scattered("2^16", "16", "10.62.0.0/16"),
        *(_full(16, layout, "16", "10.62.0.0/16") for layout in LAYOUTS),
    ]


async def run(cluster: Cluster) -> Table:
    async with cluster.agents(1) as agents:
        # The first allocations of a process are dearer than all others.
        await _measured(cluster, agents, Case("warm-up", "warm-up", "10.59.0.0/16"), set())
        standing: dict[str, set[int]] = {}
        rows = [await _measured(cluster, agents, case, standing.setdefault(case.pool, set())) for case in _cases()]
    least = min(row["agent ms"] for row in rows)
    rows = [{**row, "x least": row["agent ms"] / least} for row in rows]
    about = f"{PODS} ADDs at once on one agent, or as many as are free, after a first one; figures are for one ADD"
    return Table("growth", about, rows, ("first ms: the agent's CPU time of the first ADD, with the one shared list",))


async def _measured(cluster: Cluster, agents: Sequence[Agent], case: Case, standing: set[int]) -> Row:
    """`standing`: what records there are of this pool already; what there are now, afterwards."""
    network = parse_network(case.subnet)
    await make_pool(cluster.kube, case.pool, case.subnet, IntervalSet.network(network).texts())
    await _arrange(cluster, case, standing)
    annotation = json.dumps({f"ipv{network.version}": [case.pool]})
    pods = await make_pods(cluster.kube, case.pool, [agents[0].node], [annotation] * (1 + case.pods))
    async with cluster.meter(agents).measured() as first:
        given = await add_all(agents, pods[:1])
    async with cluster.meter(agents).measured() as others:
        given += await add_all(agents, pods[1:])
    await _take_off(cluster, given)
    await cluster.kube.delete(SPIDER_IP_POOLS, case.pool)
    progress(f"growth: {case.what}")
    return _row(case, first.result(), others.result())


async def _arrange(cluster: Cluster, case: Case, standing: set[int]) -> None:
    """Make the records stand as the case says."""
    base = parse_network(case.subnet).network_address

    async def take(index: int) -> None:
        await make_record(cluster.kube, str(base + index), case.pool, NAMESPACE, f"taken-{index}", f"taken-{index}")

    async def free(index: int) -> None:
        await cluster.kube.delete(SPIDER_IP_ADDRESSES, object_name(base + index))

    taken = set(case.taken)
    await run_all(free, standing - taken, PARALLEL)
    await run_all(take, taken - standing, PARALLEL)
    standing.clear()
    standing |= taken


async def _take_off(cluster: Cluster, given: Sequence[str]) -> None:
    async def free(address: str) -> None:
        await cluster.kube.delete(SPIDER_IP_ADDRESSES, object_name(parse_address(address.partition("/")[0])))

    await clear(cluster.kube, SPIDER_ENDPOINTS, NAMESPACE)
    await run_all(free, given, PARALLEL)
    await clear(cluster.kube, POD_KIND, NAMESPACE)


def _row(case: Case, first: Usage, others: Usage) -> Row:
    count = case.pods
    return {
        "what": case.what,
        "ADDs": count,
        "first ms": first.ms_each("agents", 1),
        "agent ms": others.ms_each("agents", count),
        "calls": others.calls_each(count),
        "bytes": others.sent_bytes // count,
        "apiserver ms": others.ms_each("apiserver", count),
    }
