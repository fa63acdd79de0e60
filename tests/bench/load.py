"""The work that is measured: bare creates, pools, pods, and ADDs and DELs of all of them at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

from allocator.domain.addresses import parse_address
from allocator.domain.endpoint import Assigned, Endpoint
from allocator.domain.request import Owner, Pod
from allocator.kube.codec import encode_endpoint
from allocator.kube.resources import PODS, SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS
from tests.bench.cluster import NAMESPACE, NODE_PREFIX
from tests.plane.agents import make_pod

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource
    from tests.bench.accounts import Usage
    from tests.bench.cluster import Cluster
    from tests.plane.agents import Agent

T = TypeVar("T")

# Jobs at a time: a few more than the client has calls on their way.
PARALLEL: Final = 32
# An informer shows a pod within milliseconds; a runtime asks for its address no sooner than this.
SEEN_S: Final = 1.0


async def run_all(job: Callable[[T], Awaitable[object]], items: Iterable[T], parallel: int) -> None:
    """The job for each item, so many at a time; the first failure ends it."""
    left = iter(items)

    async def work() -> None:
        for item in left:
            await job(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(parallel):
            group.create_task(work())


async def floor(cluster: Cluster, count: int) -> Usage:
    """Bare creates of what an agent writes for each pod: what the API server takes with nothing of ours in between.

    The quicker of two runs: that nothing came in between is nearest to true.
    """
    return min([await _floor_once(cluster, count) for _ in range(2)], key=lambda usage: usage.wall_s)


async def _floor_once(cluster: Cluster, count: int) -> Usage:
    bodies = [_endpoint(f"floor-{index}", str(parse_address("10.40.0.0") + index)) for index in range(count)]

    async def create(body: Object) -> None:
        await cluster.kube.create(SPIDER_ENDPOINTS, body)

    async with cluster.meter().measured() as measured:
        await run_all(create, bodies, PARALLEL)
    await clear(cluster.kube, SPIDER_ENDPOINTS, NAMESPACE)
    return measured.result()


def _endpoint(name: str, address: str) -> Object:
    uid = "00000000-0000-0000-0000-000000000000"
    pod = Pod(namespace=NAMESPACE, name=name, uid=uid, node=f"{NODE_PREFIX}0")
    assigned = Assigned(
        interface="eth0",
        address=parse_address(address),
        prefix_length=16,
        pool="floor",
        gateway=None,
        routes=(),
        clean_gateway=None,
    )
    body = encode_endpoint(Endpoint(pod=pod, owner=Owner("v1", "Pod", name, uid), assigned=(assigned,)))
    # Of no owner: a garbage collector would be after it, for there is no such pod.
    del body["metadata"]["ownerReferences"]
    return body


async def make_pool(kube: KubeClient, name: str, subnet: str, ips: Sequence[str]) -> None:
    spec = {"subnet": subnet, "ips": list(ips), "ipVersion": 6 if ":" in subnet else 4}
    body = {"apiVersion": SPIDER_IP_POOLS.api_version, "kind": "SpiderIPPool", "metadata": {"name": name}, "spec": spec}
    await kube.create(SPIDER_IP_POOLS, body)


async def make_pools(kube: KubeClient, pools: Sequence[tuple[str, str, Sequence[str]]]) -> None:
    """Name, subnet and addresses of each."""

    async def make(pool: tuple[str, str, Sequence[str]]) -> None:
        await make_pool(kube, *pool)

    await run_all(make, pools, PARALLEL)


async def make_pods(kube: KubeClient, prefix: str, nodes: Sequence[str], annotations: Sequence[str]) -> list[Object]:
    """One pod for each annotation `ippool`, dealt out to the nodes; every informer has had the time to show them."""

    async def make(index: int) -> None:
        node = nodes[index % len(nodes)]
        pods[index] = await make_pod(kube, NAMESPACE, f"{prefix}-{index}", node, annotations[index])

    pods: list[Object] = [{} for _ in annotations]
    await run_all(make, range(len(annotations)), PARALLEL)
    await asyncio.sleep(SEEN_S)
    return pods


async def add_all(agents: Sequence[Agent], pods: Sequence[Object]) -> list[str]:
    """ADD for all pods at once: every address given. An ADD that fails, or an address given twice, ends the bench."""
    by_node = {agent.node: agent for agent in agents}
    given: list[str] = []

    async def add(pod: Object) -> None:
        answer = await by_node[pod["spec"]["nodeName"]].add(pod)
        if answer.status != 200:
            raise RuntimeError(f"an ADD failed: {answer.json}")
        given.extend(answer.addresses)

    await run_all(add, pods, len(pods))
    if len(set(given)) != len(given):
        twice = sorted({each for each in given if given.count(each) > 1})
        raise RuntimeError(f"given twice: {', '.join(twice)}")
    return given


async def delete_all(agents: Sequence[Agent], pods: Sequence[Object]) -> None:
    """DEL for all pods at once."""
    by_node = {agent.node: agent for agent in agents}

    async def delete(pod: Object) -> None:
        answer = await by_node[pod["spec"]["nodeName"]].delete(pod)
        if answer.status != 200:
            raise RuntimeError(f"a DEL failed: {answer.json}")

    await run_all(delete, pods, len(pods))


async def end_pods(kube: KubeClient, pods: Sequence[Object], *, grace_period_s: int) -> None:
    async def end(pod: Object) -> None:
        await kube.delete(PODS, pod["metadata"]["name"], namespace=NAMESPACE, grace_period_s=grace_period_s)

    await run_all(end, pods, PARALLEL)
    await asyncio.sleep(SEEN_S)


async def clear(kube: KubeClient, resource: Resource, namespace: str | None = None) -> None:
    """Delete all objects of a kind with one request."""
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
    await kube.raw("DELETE", resource.path(namespace), body=options)


async def clear_all(kube: KubeClient) -> None:
    """Nothing of a table is left for the next one. Endpoints go before their pods: a garbage collector has no work."""
    await clear(kube, SPIDER_ENDPOINTS, NAMESPACE)
    await clear(kube, SPIDER_IP_ADDRESSES)
    await clear(kube, PODS, NAMESPACE)
    await clear(kube, SPIDER_IP_POOLS)
