"""The Node object: made when missing, kept Ready by a heartbeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.kube import errors, resources
from allocator.runtime import logs

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from allocator.runtime.clock import Clock

log = logs.get_logger(__name__)

# A node-lifecycle controller calls a node lost after 40 s (--node-monitor-grace-period before Kubernetes 1.32).
HEARTBEAT_S = 10.0

# The devcluster's own nodes, also among the nodes of a real cluster.
LABEL = "devcluster.spidernet.io/node"


class ForeignNodeError(Exception):
    """The cluster has a node of this name that is not the devcluster's."""


async def register(client: KubeClient, name: str, *, host: str, clock: Clock) -> None:
    """ForeignNodeError when the name is taken by someone else's node, which stays as it is."""
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                LABEL: "true",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
            },
        },
    }
    try:
        await client.create(resources.NODES, node)
    except errors.AlreadyExists:
        found = await client.get(resources.NODES, name)
        if LABEL not in (found["metadata"].get("labels") or {}):
            raise ForeignNodeError(f"the cluster has a node {name} of its own: use a cluster without one") from None
    await _report(client, name, host, clock)
    # The API server taints each new node as not ready (plugin TaintNodesByCondition); where no node-lifecycle
    # controller runs nobody else takes that off.
    await client.patch(resources.NODES, name, {"spec": {"taints": None}})


async def remove(client: KubeClient, names: tuple[str, ...]) -> None:
    """As far as the API server lets us; the rest is logged."""
    for name in names:
        try:
            await client.delete(resources.NODES, name)
        except (errors.ApiError, errors.Unreachable) as error:
            log.warning("node_not_removed", node=name, error=str(error))


async def heartbeat(client: KubeClient, name: str, *, host: str, clock: Clock) -> None:
    while True:
        await clock.sleep(HEARTBEAT_S)
        try:
            await _report(client, name, host, clock)
        except (errors.ApiError, errors.Unreachable) as error:
            log.warning("node_heartbeat_failed", node=name, error=str(error))


async def _report(client: KubeClient, name: str, host: str, clock: Clock) -> None:
    moment = clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    amount = {"cpu": "8", "memory": "16Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    ready: Object = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "devcluster kubelet is posting ready status",
        "lastHeartbeatTime": moment,
        "lastTransitionTime": moment,
    }
    status = {
        "capacity": amount,
        "allocatable": amount,
        "addresses": [{"type": "InternalIP", "address": host}, {"type": "Hostname", "address": name}],
        "conditions": [ready],
        "nodeInfo": {"kubeletVersion": "devcluster", "operatingSystem": "linux", "architecture": "amd64"},
    }
    await client.patch(resources.NODES, name, {"status": status}, subresource="status")
