"""StatefulSet: pods with ordinals, made in order and replaced in reverse order. Volumes and partitions are left out."""

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
    is_over,
    is_ready,
    status_update,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.kube.resources import Object

REVISION_LABEL = "controller-revision-hash"


def plan(world: World) -> Iterator[Action]:
    for stateful_set in world.stateful_sets:
        if not is_leaving(stateful_set):
            pods = {ordinal_of(pod): pod for pod in world.owned_by(stateful_set)}
            yield from _pods(stateful_set, pods)
            yield from status_update(resources.STATEFUL_SETS, stateful_set, _status(stateful_set, pods))


def _pods(stateful_set: Object, pods: dict[int, Object]) -> Iterator[Action]:
    in_order = stateful_set["spec"].get("podManagementPolicy", "OrderedReady") == "OrderedReady"
    wanted = _ordinals(stateful_set)
    for ordinal in wanted:
        pod = pods.get(ordinal)
        if pod is None:
            yield Create(resources.PODS, _pod(stateful_set, ordinal), stateful_set)
        elif is_over(pod) and not is_leaving(pod):
            yield Delete(resources.PODS, pod)
        if in_order and (pod is None or not is_ready(pod)):
            return
    surplus = sorted((ordinal for ordinal in pods if ordinal not in wanted), reverse=True)
    for ordinal in surplus[:1] if in_order else surplus:
        if not is_leaving(pods[ordinal]):
            yield Delete(resources.PODS, pods[ordinal])
    if not surplus:
        yield from _update(stateful_set, pods)


def _update(stateful_set: Object, pods: dict[int, Object]) -> Iterator[Action]:
    if (stateful_set["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate") != "RollingUpdate":
        return
    revision = _revision(stateful_set)
    for ordinal in reversed(_ordinals(stateful_set)):
        pod = pods.get(ordinal)
        if pod is None or is_leaving(pod):
            return
        if pod["metadata"]["labels"].get(REVISION_LABEL) != revision:
            yield Delete(resources.PODS, pod)
            return
        if not is_ready(pod):
            return


def _pod(stateful_set: Object, ordinal: int) -> Object:
    name = f"{stateful_set['metadata']['name']}-{ordinal}"
    labels = {
        "statefulset.kubernetes.io/pod-name": name,
        "apps.kubernetes.io/pod-index": str(ordinal),
        REVISION_LABEL: _revision(stateful_set),
    }
    spec = {"hostname": name, "subdomain": stateful_set["spec"].get("serviceName") or ""}
    return templates.pod_of(stateful_set, name=name, labels=labels, spec=spec)


def _status(stateful_set: Object, pods: dict[int, Object]) -> Object:
    revision = _revision(stateful_set)
    active = [pod for pod in pods.values() if is_active(pod)]
    ready = sum(map(is_ready, active))
    updated = sum(pod["metadata"]["labels"].get(REVISION_LABEL) == revision for pod in active)
    complete = updated == ready == count(stateful_set, "replicas") == len(pods)
    current = revision if complete else (stateful_set.get("status") or {}).get("currentRevision") or revision
    return {
        "observedGeneration": stateful_set["metadata"]["generation"],
        "replicas": len(active),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "updatedReplicas": updated,
        "currentReplicas": sum(pod["metadata"]["labels"].get(REVISION_LABEL) == current for pod in active),
        "currentRevision": current,
        "updateRevision": revision,
    }


def _revision(stateful_set: Object) -> str:
    return f"{stateful_set['metadata']['name']}-{templates.revision_of(stateful_set['spec']['template'])}"


def _ordinals(stateful_set: Object) -> range:
    start = int((stateful_set["spec"].get("ordinals") or {}).get("start") or 0)
    return range(start, start + count(stateful_set, "replicas"))


def ordinal_of(pod: Object) -> int:
    return int(pod["metadata"]["name"].rpartition("-")[2])
