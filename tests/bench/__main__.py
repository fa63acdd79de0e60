"""make bench: how fast, as ratios within one run, since machines and their noise differ.

    raw      creates of bare address objects by one client: what the API server itself can take
    burst    ADDs over 4 agents, all at once, on a pool of exactly as many addresses
    ratio    burst / raw: 1.0 would be the speed of the API server with nothing added

An ADD is two creates (record and endpoint) and its share of two live reads, so 0.5 is about the design's ceiling.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from allocator.domain.addresses import IntervalSet, object_name, parse_network
from allocator.kube.client import KubeClient
from allocator.kube.resources import NAMESPACES, NODES, SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS
from devcluster.plane import start_plane
from tests.plane.agents import Agent, make_pod, running_agent
from tests.plane.controllers import make_record
from tests.plane.support import install_crd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from allocator.kube.resources import Object
    from devcluster.plane import Kind

CRDS = Path(__file__).resolve().parents[2] / "manifests" / "crds"
PODS = 400
AGENTS = 4
ROUNDS = 4
# As many as an agent gets at once in a burst: more would measure the client, not the server.
PARALLEL = 64


async def timed(jobs: Iterable[Callable[[], Awaitable[object]]], parallel: int) -> float:
    """Seconds until all jobs are done, so many at a time."""
    places = asyncio.Semaphore(parallel)

    async def one(job: Callable[[], Awaitable[object]]) -> None:
        async with places:
            await job()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(one(job))
    return time.perf_counter() - began


async def burst(kind: Kind) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with (
            start_plane(kind, folder / "plane") as plane,
            KubeClient.connect(kubeconfig=plane.kubeconfig, user_agent="bench", timeout_s=60) as kube,
            AsyncExitStack() as stack,
        ):
            for path in sorted(CRDS.glob("spider*.yaml")):
                await install_crd(kube, yaml.safe_load(path.read_text()))
            await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}})
            # An API server that has just started is busy with itself: the first rounds only warm it up.
            raw = [await _raw(kube) for _ in range(ROUNDS)][-1]
            agents = []
            for index in range(AGENTS):
                node = f"n{index}"
                await kube.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
                agents.append(await stack.enter_async_context(running_agent(plane.kubeconfig, node, folder)))
            adds = await _adds(kube, agents)
    print(f"plane {kind}, {PODS} pods, {AGENTS} agents, {os.cpu_count()} cores")
    print(f"  raw    {PODS / raw:8.0f} creates/s")
    print(f"  burst  {PODS / adds:8.0f} ADDs/s")
    print(f"  ratio  {raw / adds:8.2f}")


async def _raw(kube: KubeClient) -> float:
    base = parse_network("10.40.0.0/16").network_address

    def create(index: int) -> Callable[[], Awaitable[object]]:
        return lambda: make_record(kube, str(base + index), "raw", "bench", f"raw-{index}", f"raw-{index}")

    took = await timed([create(index) for index in range(PODS)], PARALLEL)
    for index in range(PODS):
        await kube.delete(SPIDER_IP_ADDRESSES, object_name(base + index))
    return took


async def _adds(kube: KubeClient, agents: list[Agent]) -> float:
    subnet = parse_network("10.41.0.0/16")
    first = int(subnet.network_address) + 1
    items = IntervalSet(4, ((first, first + PODS - 1),)).texts()
    spec = {"subnet": str(subnet), "ips": items, "ipVersion": 4}
    meta = {"name": "bench"}
    await kube.create(
        SPIDER_IP_POOLS,
        {"apiVersion": SPIDER_IP_POOLS.api_version, "kind": "SpiderIPPool", "metadata": meta, "spec": spec},
    )
    by_node = {agent.node: agent for agent in agents}
    pods = [
        await make_pod(kube, "bench", f"p{index}", agents[index % AGENTS].node, '{"ipv4": ["bench"]}')
        for index in range(PODS)
    ]

    async def add(pod: Object) -> None:
        answer = await by_node[pod["spec"]["nodeName"]].add(pod)
        if answer.status != 200:
            raise RuntimeError(f"an ADD failed: {answer.json}")

    took = await timed([lambda pod=pod: add(pod) for pod in pods], PODS)  # type: ignore[misc]
    endpoints, _ = await kube.list_all(SPIDER_ENDPOINTS, namespace="bench")
    if len({each["status"]["current"]["ips"][0]["ipv4"] for each in endpoints}) != PODS:
        raise RuntimeError("an address was given twice")
    return took


def sets() -> None:
    """The cost of interval sets is in spans: a /8 must cost what a /24 costs."""

    def cost(first: int, size: int) -> float:
        usable = IntervalSet(4, ((first, first + size - 1),))
        taken = IntervalSet.of(4, ((first + 2 * index, first + 2 * index) for index in range(100)))
        began = time.perf_counter()
        for _ in range(2000):
            (usable - taken).nth(50)
        return time.perf_counter() - began

    small, large = cost(10 << 24, 2**8), cost(10 << 24, 2**24)
    print(f"interval sets: free addresses of a /8 cost {large / small:.2f} times those of a /24")


def main() -> None:
    sets()
    asyncio.run(burst("envtest" if "envtest" in sys.argv else "embedded"))


if __name__ == "__main__":
    main()
