"""What happens in a cluster so that the leader comes by each of its boundaries, whatever dies meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from allocator.kube.resources import (
    LEASES,
    SPIDER_ENDPOINTS,
    SPIDER_IP_ADDRESSES,
    SPIDER_IP_POOLS,
    SPIDER_SUBNETS,
    STATEFUL_SETS,
)
from controller.leading import LEASE
from devcluster.waiting import until
from tests.crash import subnet_scenes
from tests.crash.agent_scenes import asks_for
from tests.crash.stage import NAMESPACE
from tests.plane.controllers import API, FINALIZER

if TYPE_CHECKING:
    from allocator.kube.resources import Object, Resource
    from tests.crash.agent_scenes import Scene
    from tests.crash.stage import Cluster

# A death, an election, two sightings; on a busy machine.
WITHIN_S: Final = 60.0


async def lost(cluster: Cluster) -> str:
    """A pod ends and nobody says so. Its address."""
    pod = await cluster.pod(asks_for(await cluster.pool(1)))
    (address,) = await cluster.runtime.start(pod)
    await cluster.lose(pod)
    return address


async def forgotten(cluster: Cluster) -> None:
    """The address of such a pod has cooled."""
    await gone(cluster, SPIDER_IP_ADDRESSES, await lost(cluster))


async def lost_member(cluster: Cluster) -> None:
    """The address of a StatefulSet's member waits for the next one, which gets it."""
    owner, annotation = await cluster.stateful_set(), asks_for(await cluster.pool(3))
    name = f"{owner['metadata']['name']}-0"
    first = await cluster.pod(annotation, name=name, owner=owner)
    before = await cluster.runtime.start(first)
    await cluster.lose(first)

    async def retained() -> bool:
        record = await cluster.api.find(SPIDER_IP_ADDRESSES, before[0])
        return record is not None and record["spec"]["state"] == "Retained"

    await until(retained, within_s=WITHIN_S, what="the address to be kept")
    assert await cluster.runtime.start(await cluster.pod(annotation, name=name, owner=owner)) == before


async def last_member(cluster: Cluster) -> None:
    """Scaled down to nothing: the address goes, and the endpoint that no pod owns."""
    owner, annotation = await cluster.stateful_set(), asks_for(await cluster.pool(3))
    pod = await cluster.pod(annotation, name=f"{owner['metadata']['name']}-0", owner=owner)
    await cluster.runtime.start(pod)
    await cluster.api.patch(STATEFUL_SETS, owner, {"spec": {"replicas": 0}})
    await cluster.lose(pod)
    await gone(cluster, SPIDER_ENDPOINTS, pod["metadata"]["name"])


async def last_member_of_the_original(cluster: Cluster) -> None:
    """The original's agents gave endpoints a finalizer."""
    owner, annotation = await cluster.stateful_set(), asks_for(await cluster.pool(3))
    pod = await cluster.pod(annotation, name=f"{owner['metadata']['name']}-0", owner=owner)
    await cluster.runtime.start(pod)
    endpoint = {"metadata": {key: pod["metadata"][key] for key in ("name", "namespace")}}
    await cluster.api.patch(SPIDER_ENDPOINTS, endpoint, {"metadata": {"finalizers": [FINALIZER]}})
    await cluster.api.patch(STATEFUL_SETS, owner, {"spec": {"replicas": 0}})
    await cluster.lose(pod)
    await gone(cluster, SPIDER_ENDPOINTS, pod["metadata"]["name"])


async def lost_target(cluster: Cluster) -> None:
    """The target of a live migration is gone; its source goes on with the address alone."""
    machine, annotation = await cluster.machine(), asks_for(await cluster.pool(1))
    source = await cluster.launcher(machine, annotation)
    (address,) = await cluster.runtime.start(source)
    target = await cluster.launcher(machine, annotation, migrates=True)
    await cluster.runtime.start(target)
    await cluster.lose(target)

    async def alone() -> bool:
        record = await cluster.api.find(SPIDER_IP_ADDRESSES, address)
        return record is not None and "peer" not in record["spec"]

    await until(alone, within_s=WITHIN_S, what="the source to have the address alone")


async def record_deleted_by_hand(cluster: Cluster) -> None:
    """Its pod has the address, says the kubelet; so the record is made again before somebody else gets the address."""
    pod = await cluster.pod(asks_for(await cluster.pool(1)))
    (address,) = await cluster.runtime.start(pod)
    await cluster.report(pod, address)
    record = await cluster.api.find(SPIDER_IP_ADDRESSES, address)
    assert record is not None
    await cluster.api.delete(SPIDER_IP_ADDRESSES, record)

    async def back() -> bool:
        found = await cluster.api.find(SPIDER_IP_ADDRESSES, address)
        return found is not None and found["metadata"]["uid"] != record["metadata"]["uid"]

    await until(back, within_s=WITHIN_S, what="the record to be made again")


async def endpoint_deleted_by_hand(cluster: Cluster) -> None:
    pod = await cluster.pod(asks_for(await cluster.pool(1)))
    await cluster.runtime.start(pod)
    endpoint = await cluster.api.find(SPIDER_ENDPOINTS, pod["metadata"]["name"], NAMESPACE)
    assert endpoint is not None
    await cluster.api.delete(SPIDER_ENDPOINTS, endpoint)


async def endpoint_edited_by_hand(cluster: Cluster) -> None:
    pod = await cluster.pod(asks_for(await cluster.pool(1)))
    await cluster.runtime.start(pod)
    endpoint = {"metadata": {key: pod["metadata"][key] for key in ("name", "namespace")}}
    await cluster.api.patch(SPIDER_ENDPOINTS, endpoint, {"status": {"current": {"ips": []}}})


async def new_pool(cluster: Cluster) -> None:
    """It is counted, and so is the first pod that has an address of it."""
    pool = await cluster.pool(3)
    await cluster.runtime.start(await cluster.pod(asks_for(pool)))

    async def counted() -> bool:
        found = await cluster.api.find(SPIDER_IP_POOLS, pool["metadata"]["name"])
        status = (found or {}).get("status") or {}
        return status.get("allocatedIPCount") == 1 and status.get("totalIPCount") == 3

    await until(counted, within_s=WITHIN_S, what="the pool to be counted")


async def deleted_pool(cluster: Cluster) -> None:
    pool = await cluster.pool(3)
    await cluster.api.delete(SPIDER_IP_POOLS, pool)
    await gone(cluster, SPIDER_IP_POOLS, pool["metadata"]["name"])


async def deleted_subnet(cluster: Cluster) -> None:
    made = await subnet(cluster, f"172.16.{next(cluster.stage.numbers) % 250}.0/24")
    await cluster.api.delete(SPIDER_SUBNETS, made)
    await gone(cluster, SPIDER_SUBNETS, made["metadata"]["name"])


async def overlapping_subnets(cluster: Cluster) -> None:
    """Made while no webhook was there to refuse the second."""
    number = next(cluster.stage.numbers) % 250
    made = [await subnet(cluster, f"172.17.{number}.0/{length}") for length in (24, 25)]

    async def told() -> bool:
        found = [await cluster.api.find(SPIDER_SUBNETS, each["metadata"]["name"]) for each in made]
        return all(((each or {}).get("status") or {}).get("conditions") for each in found)

    await until(told, within_s=WITHIN_S, what="the subnets to say that they overlap")


async def lease_deleted_by_hand(cluster: Cluster) -> None:
    lease = {"metadata": {"name": LEASE, "namespace": NAMESPACE}}
    await cluster.api.delete(LEASES, lease)
    await lost(cluster)


async def subnet(cluster: Cluster, network: str) -> Object:
    meta = {"name": f"subnet-{next(cluster.stage.numbers)}", "finalizers": [FINALIZER]}
    body = {"subnet": network, "ips": [], "ipVersion": 4}
    return await cluster.api.create(
        SPIDER_SUBNETS, {"apiVersion": API, "kind": "SpiderSubnet", "metadata": meta, "spec": body}
    )


async def gone(cluster: Cluster, resource: Resource, name: str) -> None:
    async def is_gone() -> bool:
        namespace = NAMESPACE if resource.namespaced else None
        return await cluster.api.find(resource, name, namespace) is None

    await until(is_gone, within_s=WITHIN_S, what=f"{resource.kind} {name} to go")


SCENES: Final[dict[str, tuple[Scene, ...]]] = {
    "create-Lease": (lease_deleted_by_hand,),
    "replace-Lease": (lost,),
    "patch-SpiderIPAddress=Cooling": (lost,),
    "patch-SpiderIPAddress=Retained": (lost_member,),
    "patch-SpiderIPAddress=Held": (lost_target,),
    "create-SpiderIPAddress": (record_deleted_by_hand,),
    "delete-SpiderIPAddress": (forgotten,),
    "create-SpiderEndpoint": (endpoint_deleted_by_hand,),
    "replace-SpiderEndpoint": (endpoint_edited_by_hand,),
    "patch-SpiderEndpoint=status": (lost_target,),
    "patch-SpiderEndpoint=finalizers": (last_member_of_the_original,),
    "delete-SpiderEndpoint": (last_member,),
    "replace-SpiderIPPool/status": (new_pool,),
    "patch-SpiderIPPool=finalizers": (deleted_pool,),
    "create-SpiderIPPool": (subnet_scenes.application,),
    "patch-SpiderIPPool=annotations+labels+spec": (subnet_scenes.application_that_shrinks,),
    "patch-SpiderIPPool=annotations": (subnet_scenes.takings_of_an_earlier_leader,),
    "patch-SpiderIPPool=finalizers+labels+spec": (subnet_scenes.pool_that_was_there_before_its_subnet,),
    "patch-SpiderIPPool=spec": (subnet_scenes.pool_that_was_there_before_its_subnet,),
    "delete-SpiderIPPool": (subnet_scenes.application_that_ends,),
    "replace-SpiderSubnet/status": (overlapping_subnets, subnet_scenes.application_that_shrinks),
    "patch-SpiderSubnet=finalizers": (deleted_subnet,),
    "create-Event": (lost,),
}
