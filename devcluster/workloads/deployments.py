"""Deployment: a ReplicaSet per revision of the template, and the way from the old ones to the new one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from allocator.kube import resources
from devcluster.workloads import templates
from devcluster.workloads.world import (
    Action,
    Create,
    Delete,
    Update,
    World,
    count,
    is_active,
    is_leaving,
    is_ready,
    share,
    status_update,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.kube.resources import Object, Objects

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"


def plan(world: World) -> Iterator[Action]:
    for deployment in world.deployments:
        if not is_leaving(deployment):
            yield from _plan(deployment, world)


def _plan(deployment: Object, world: World) -> Iterator[Action]:
    owned = [one for one in world.owned_by(deployment) if not is_leaving(one)]
    revision = templates.revision_of(deployment["spec"]["template"])
    new = next((one for one in owned if (one["metadata"].get("labels") or {}).get(HASH_LABEL) == revision), None)
    old = [one for one in owned if one is not new]
    pods = {one["metadata"]["uid"]: world.owned_by(one) for one in owned}
    if deployment["spec"].get("paused"):
        pass
    elif new is None:
        yield Create(resources.REPLICA_SETS, _replica_set(deployment, revision, old), deployment)
    elif _strategy(deployment) == "Recreate":
        yield from _recreate(deployment, new, old, pods)
    else:
        yield from _roll(deployment, new, old, pods)
    yield from _forget(deployment, old, pods)
    yield from status_update(resources.DEPLOYMENTS, deployment, _status(deployment, new, pods, world))


def _replica_set(deployment: Object, revision: str, old: Objects) -> Object:
    spec, meta = deployment["spec"], deployment["metadata"]
    template = spec["template"]
    labels = {**(template["metadata"].get("labels") or {}), HASH_LABEL: revision}
    number = 1 + max((int((one["metadata"].get("annotations") or {}).get(REVISION, 0)) for one in old), default=0)
    selector = {**spec["selector"]}
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH_LABEL: revision}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta['name']}-{revision}",
            "namespace": meta["namespace"],
            "labels": labels,
            "annotations": {REVISION: str(number)},
            "ownerReferences": [templates.owner_reference(deployment)],
        },
        "spec": {
            # The first revision starts whole; a later one is grown by _roll or _recreate.
            "replicas": 0 if old else count(deployment, "replicas"),
            "selector": selector,
            "template": {**template, "metadata": {**template["metadata"], "labels": labels}},
        },
    }


def _roll(deployment: Object, new: Object, old: Objects, pods: dict[str, Objects]) -> Iterator[Action]:
    wanted = count(deployment, "replicas")
    surge, unavailable = bounds(deployment)
    total = sum(count(one, "replicas") for one in (new, *old))
    have = count(new, "replicas")
    grown = min(wanted, have + max(wanted + surge - total, 0)) if have < wanted else wanted
    yield from _scale(new, grown)
    # Pods of the new revision that are not ready yet may not be counted on: the old ones stay for them.
    ready = sum(_ready(one, pods) for one in (new, *old))
    room = max(total - (wanted - unavailable) - (have - min(have, _ready(new, pods))), 0)
    for one in old:
        size = count(one, "replicas")
        broken = min(size - min(size, _ready(one, pods)), room)
        spare = max(min(size - broken, room - broken, ready - (wanted - unavailable)), 0)
        ready, room = ready - spare, room - broken - spare
        yield from _scale(one, size - broken - spare)


def _recreate(deployment: Object, new: Object, old: Objects, pods: dict[str, Objects]) -> Iterator[Action]:
    for one in old:
        yield from _scale(one, 0)
    if not any(pods[one["metadata"]["uid"]] for one in old):
        yield from _scale(new, count(deployment, "replicas"))


def _scale(replica_set: Object, replicas: int) -> Iterator[Action]:
    if count(replica_set, "replicas") != replicas:
        yield Update(resources.REPLICA_SETS, replica_set, {"spec": {"replicas": replicas}})


def _forget(deployment: Object, old: Objects, pods: dict[str, Objects]) -> Iterator[Action]:
    done = [one for one in old if count(one, "replicas") == 0 and not pods[one["metadata"]["uid"]]]
    for one in done[: max(len(done) - count(deployment, "revisionHistoryLimit", 10), 0)]:
        yield Delete(resources.REPLICA_SETS, one)


def _status(deployment: Object, new: Object | None, pods: dict[str, Objects], world: World) -> Object:
    active = [pod for owned in pods.values() for pod in owned if is_active(pod)]
    ready = sum(map(is_ready, active))
    updated = sum(map(is_active, pods[new["metadata"]["uid"]])) if new else 0
    wanted = count(deployment, "replicas")
    is_available = ready >= wanted - bounds(deployment)[1]
    is_complete = updated == wanted == ready == len(active)
    available = ("True", "MinimumReplicasAvailable") if is_available else ("False", "MinimumReplicasUnavailable")
    progressing = ("True", "NewReplicaSetAvailable") if is_complete else ("True", "ReplicaSetUpdated")
    return {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": len(active),
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(wanted - ready, 0),
        "conditions": [world.condition("Available", *available), world.condition("Progressing", *progressing)],
    }


def bounds(deployment: Object) -> tuple[int, int]:
    """Pods above and below the wanted number: percentages of surge round up, of unavailable down, never both zero."""
    wanted = count(deployment, "replicas")
    rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    surge = math.ceil(share(rolling.get("maxSurge", "25%"), wanted))
    unavailable = math.floor(share(rolling.get("maxUnavailable", "25%"), wanted))
    return (surge, unavailable) if surge or unavailable else (0, 1)


def _ready(replica_set: Object, pods: dict[str, Objects]) -> int:
    return sum(map(is_ready, pods[replica_set["metadata"]["uid"]]))


def _strategy(deployment: Object) -> str:
    return str((deployment["spec"].get("strategy") or {}).get("type") or "RollingUpdate")
