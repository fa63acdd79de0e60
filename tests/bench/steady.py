"""Pods that come one by one, as they do on a quiet day; and agents that have nothing to do."""

from __future__ import annotations

import asyncio
import json
import statistics
from typing import TYPE_CHECKING, Final

from tests.bench.accounts import cpu_s, resident_mib
from tests.bench.cluster import NAMESPACE
from tests.bench.load import SEEN_S, clear_all, make_pool
from tests.bench.report import Table
from tests.plane.agents import make_pod

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.cluster import Cluster
    from tests.bench.report import Row
    from tests.plane.agents import Agent

AGENTS: Final = 10
PODS_PER_S: Final = 20
SECONDS: Final = 60
IDLE_S: Final = 10.0


async def run(cluster: Cluster) -> Table:
    async with cluster.agents(AGENTS) as agents:
        rows = [await _idle(agents), await _steady(cluster, agents)]
    about = f"{PODS_PER_S} pods/s for {SECONDS} s over {AGENTS} agents; times of an ADD are the agents' own"
    return Table("steady", about, rows)


async def _idle(agents: Sequence[Agent]) -> Row:
    pids = [agent.process.pid for agent in agents]
    before = sum(map(cpu_s, pids))
    await asyncio.sleep(IDLE_S)
    return _row("idle", 0, [], (sum(map(cpu_s, pids)) - before) / IDLE_S, agents)


async def _steady(cluster: Cluster, agents: Sequence[Agent]) -> Row:
    await make_pool(cluster.kube, "steady", "10.46.0.0/16", ["10.46.0.1-10.46.255.254"])
    count = PODS_PER_S * SECONDS
    skipped = [len(_served(cluster, agent)) for agent in agents]
    began = asyncio.get_running_loop().time()

    async def one(index: int) -> None:
        agent = agents[index % len(agents)]
        await _until(began + index / PODS_PER_S)
        pod = await make_pod(cluster.kube, NAMESPACE, f"steady-{index}", agent.node, json.dumps({"ipv4": ["steady"]}))
        await _until(began + index / PODS_PER_S + SEEN_S)
        answer = await agent.add(pod)
        if answer.status != 200:
            raise RuntimeError(f"an ADD failed: {answer.json}")

    before = sum(cpu_s(agent.process.pid) for agent in agents)
    async with asyncio.TaskGroup() as group:
        for index in range(count):
            group.create_task(one(index))
    spent = sum(cpu_s(agent.process.pid) for agent in agents) - before
    took_ms = [ms for agent, skip in zip(agents, skipped, strict=True) for ms in _served(cluster, agent)[skip:]]
    await clear_all(cluster.kube)
    return _row("steady", count, took_ms, spent / SECONDS, agents)


def _row(what: str, count: int, took_ms: Sequence[float], cores: float, agents: Sequence[Agent]) -> Row:
    cuts = statistics.quantiles(took_ms, n=100) if took_ms else [0.0] * 99
    return {
        "what": what,
        "ADDs": count,
        "p50 ms": cuts[49],
        "p99 ms": cuts[98],
        "max ms": max(took_ms, default=0.0),
        "% of a core, each": cores / len(agents) * 100,
        "MiB, largest": max(resident_mib(agent.process.pid) for agent in agents),
    }


def _served(cluster: Cluster, agent: Agent) -> list[float]:
    """How long the agent says that each request took, in milliseconds."""
    lines = cluster.log_of(agent).read_text().splitlines()
    events = (json.loads(line) for line in lines if line.startswith("{"))
    return [event["took_ms"] for event in events if event["event"] == "request_served"]


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - asyncio.get_running_loop().time()))
