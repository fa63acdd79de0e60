"""ReplicaSet: so many pods of the template."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.kube import resources
from devcluster.workloads import templates
from devcluster.workloads.world import (
    Action,
    Create,
    Delete,
    World,
    count,
    is_active,
    is_leaving,
    is_ready,
    phase_of,
    status_update,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.kube.resources import Object


def plan(world: World) -> Iterator[Action]:
    for replica_set in world.replica_sets:
        if not is_leaving(replica_set):
            yield from _plan(replica_set, [pod for pod in world.owned_by(replica_set) if is_active(pod)])


def _plan(replica_set: Object, pods: list[Object]) -> Iterator[Action]:
    wanted = count(replica_set, "replicas")
    for _ in range(wanted - len(pods)):
        pod = templates.pod_of(replica_set, name=templates.with_suffix(replica_set["metadata"]["name"]))
        yield Create(resources.PODS, pod, replica_set)
    for pod in sorted(pods, key=_worth)[: max(len(pods) - wanted, 0)]:
        yield Delete(resources.PODS, pod)
    ready = sum(map(is_ready, pods))
    status = {
        "replicas": len(pods),
        "fullyLabeledReplicas": len(pods),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "observedGeneration": replica_set["metadata"]["generation"],
    }
    yield from status_update(resources.REPLICA_SETS, replica_set, status)


def _worth(pod: Object) -> tuple[bool, bool, bool]:
    """Sorts first what is missed least; pods come oldest first, which Python's stable sort keeps."""
    return (bool(pod["spec"].get("nodeName")), phase_of(pod) == "Running", is_ready(pod))
