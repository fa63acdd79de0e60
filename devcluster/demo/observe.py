"""What the demo reads from the API server and from the pods' namespaces to prove what it says."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface
from typing import TYPE_CHECKING

from allocator.kube import errors, resources
from devcluster.demo.show import DemoError
from devcluster.nodes import links, namespaces
from devcluster.waiting import until

if TYPE_CHECKING:
    from allocator.kube.resources import Object, Objects
    from devcluster.cluster import Cluster

NAMESPACE = "default"

# The projection writes a first count soon and further ones every 5 s; the rest is for a busy machine.
COUNTED_WITHIN_S = 15.0
SETTLED_WITHIN_S = 10.0

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class PodAddress:
    pod: str
    uid: str
    node: str
    interface: str
    address: Address
    pool: str


async def pods(cluster: Cluster, app: str) -> Objects:
    items, _ = await cluster.client.list_all(resources.PODS, namespace=NAMESPACE, label_selector=f"app={app}")
    return sorted(items, key=lambda pod: str(pod["metadata"]["name"]))


async def pod(cluster: Cluster, name: str) -> Object | None:
    try:
        return await cluster.client.get(resources.PODS, name, namespace=NAMESPACE)
    except errors.NotFound:
        return None


def is_running(obj: Object) -> bool:
    return (obj.get("status") or {}).get("phase") == "Running" and not obj["metadata"].get("deletionTimestamp")


async def wait_running(cluster: Cluster, app: str, number: int, *, within_s: float) -> None:
    """Exactly so many pods, all running, none on its way out."""

    async def ready() -> bool:
        found = await pods(cluster, app)
        return len(found) == number and all(map(is_running, found))

    await until(ready, within_s=within_s, what=f"{number} running pods of {app}")


async def addresses_of(cluster: Cluster, obj: Object) -> list[PodAddress]:
    """As the pod's SpiderEndpoint has them. DemoError unless they are what the pod's status and interface have."""
    meta = obj["metadata"]
    endpoint = await cluster.client.get(resources.SPIDER_ENDPOINTS, meta["name"], namespace=NAMESPACE)
    current = endpoint["status"]["current"]
    if current["uid"] != meta["uid"]:
        raise DemoError(f"SpiderEndpoint {meta['name']} is for the pod UID {current['uid']}, not {meta['uid']}")
    found = [
        PodAddress(
            meta["name"], meta["uid"], current["node"], ip["interface"], ip_interface(ip[key]).ip, ip[f"{key}Pool"]
        )
        for ip in current["ips"]
        for key in ("ipv4", "ipv6")
        if ip.get(key)
    ]
    listed = {one["ip"] for one in obj["status"]["podIPs"]}
    if {str(one.address) for one in found} != listed:
        raise DemoError(f"SpiderEndpoint {meta['name']} and the pod's podIPs {sorted(listed)} differ")
    await _check_interface(cluster, meta["uid"], found)
    return found


async def _check_interface(cluster: Cluster, uid: str, found: list[PodAddress]) -> None:
    network = cluster.network_of(uid)
    if network is None:
        raise DemoError(f"no node runs the pod {found[0].pod if found else uid}")
    namespace = network.sandbox.namespace
    if namespace is None:
        return
    interface = network.attachment.interface
    kinds = await namespaces.inside(namespace, links.names)
    if kinds.get(interface) != "macvlan":
        raise DemoError(f"{interface} in {namespace.path} is no macvlan interface: {kinds}")
    await namespaces.inside(namespace, links.wait_settled, interface, within_s=SETTLED_WITHIN_S)
    there = {ip_interface(text).ip for text in await namespaces.inside(namespace, links.addresses, interface)}
    if there != {one.address for one in found}:
        raise DemoError(f"{interface} in {namespace.path} has the addresses {there}, not those of its SpiderEndpoint")


async def records(cluster: Cluster) -> Objects:
    items, _ = await cluster.client.list_all(resources.SPIDER_IP_ADDRESSES)
    return items


async def held_by(cluster: Cluster, uid: str) -> list[str]:
    """Addresses whose record says that the pod with this UID has them now."""
    return [
        record["spec"]["address"]
        for record in await records(cluster)
        if record["spec"]["state"] != "Cooling" and (record["spec"].get("holder") or {}).get("podUID") == uid
    ]


async def wait_unused(cluster: Cluster, *, within_s: float) -> None:
    """Until no address of the demo's pools is anyone's: all records are cooling or gone. People may have pods of theirs
    in a cluster that is kept.
    """

    async def unused() -> bool:
        found = [record["spec"] for record in await records(cluster)]
        return all(spec["state"] == "Cooling" for spec in found if _is_ours(spec["holder"]["pod"]))

    await until(unused, within_s=within_s, what="all addresses to be released")


def _is_ours(pod: str) -> bool:
    return pod.startswith(("web-", "db-"))


async def wait_counted(cluster: Cluster, pools: tuple[str, ...], number: int) -> None:
    """Until the status of each pool counts so many addresses in use."""
    for pool in pools:

        async def counted(name: str = pool) -> bool:
            found = await cluster.client.get(resources.SPIDER_IP_POOLS, name)
            return ((found.get("status") or {}).get("allocatedIPCount") or 0) == number

        await until(counted, within_s=COUNTED_WITHIN_S, what=f"pool {pool} to count {number} addresses in use")
