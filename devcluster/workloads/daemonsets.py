"""DaemonSet: a pod on every node that the template allows, replaced node by node. Surge is left out.

As with the real one its pods name their node in an affinity, and the scheduler binds them: also to a closed node.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from allocator.kube import resources
from devcluster.workloads import scheduling, templates
from devcluster.workloads.world import (
    Action,
    Create,
    Delete,
    World,
    is_active,
    is_leaving,
    is_over,
    is_ready,
    share,
    status_update,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from allocator.kube.resources import Object, Objects

REVISION_LABEL = "controller-revision-hash"


def plan(world: World) -> Iterator[Action]:
    for daemon_set in world.daemon_sets:
        if not is_leaving(daemon_set):
            places: dict[str, Objects] = defaultdict(list)
            for pod in world.owned_by(daemon_set):
                places[node_of(pod)].append(pod)
            template = daemon_set["spec"]["template"]["spec"]
            wanted = [node["metadata"]["name"] for node in world.nodes if scheduling.allows(template, node)]
            yield from _pods(daemon_set, wanted, places)
            yield from status_update(resources.DAEMON_SETS, daemon_set, _status(daemon_set, wanted, places))


def _pods(daemon_set: Object, wanted: list[str], places: Mapping[str, Objects]) -> Iterator[Action]:
    for node in wanted:
        if not places.get(node):
            yield Create(resources.PODS, _pod(daemon_set, node), daemon_set)
    kept = []
    for node, pods in places.items():
        standing = [pod for pod in pods if is_active(pod)]
        kept += standing[:1] if node in wanted else []
        surplus = standing[1:] if node in wanted else standing
        yield from (Delete(resources.PODS, pod) for pod in surplus)
        yield from (Delete(resources.PODS, pod) for pod in pods if is_over(pod) and not is_leaving(pod))
    yield from _update(daemon_set, len(wanted), kept)


def _update(daemon_set: Object, wanted: int, pods: Objects) -> Iterator[Action]:
    strategy = daemon_set["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return
    bound = math.ceil(share((strategy.get("rollingUpdate") or {}).get("maxUnavailable", 1), wanted))
    room = bound - (wanted - sum(map(is_ready, pods)))
    for pod in (pod for pod in pods if not _is_current(daemon_set, pod)):
        room -= is_ready(pod)  # who is not ready is missed already
        if room >= 0 or not is_ready(pod):
            yield Delete(resources.PODS, pod)


def _pod(daemon_set: Object, node: str) -> Object:
    template = daemon_set["spec"]["template"]["spec"]
    here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    affinity = template.get("affinity") or {}
    near = affinity.get("nodeAffinity") or {}
    terms = (near.get(scheduling.REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    near = near | {scheduling.REQUIRED: {"nodeSelectorTerms": [term | here for term in terms]}}
    tolerated = {"key": scheduling.CLOSED, "operator": "Exists", "effect": "NoSchedule"}
    spec = {
        "affinity": affinity | {"nodeAffinity": near},
        "tolerations": [*(template.get("tolerations") or []), tolerated],
    }
    labels = {REVISION_LABEL: templates.revision_of(daemon_set["spec"]["template"])}
    return templates.pod_of(
        daemon_set, name=templates.with_suffix(daemon_set["metadata"]["name"]), labels=labels, spec=spec
    )


def _status(daemon_set: Object, wanted: list[str], places: Mapping[str, Objects]) -> Object:
    there = [pod for node in wanted for pod in places.get(node, ())[:1] if is_active(pod)]
    ready = sum(map(is_ready, there))
    return {
        "observedGeneration": daemon_set["metadata"]["generation"],
        "desiredNumberScheduled": len(wanted),
        "currentNumberScheduled": len(there),
        "numberMisscheduled": sum(any(map(is_active, pods)) for node, pods in places.items() if node not in wanted),
        "numberReady": ready,
        "numberAvailable": ready,
        "numberUnavailable": len(wanted) - ready,
        "updatedNumberScheduled": sum(_is_current(daemon_set, pod) for pod in there),
    }


def _is_current(daemon_set: Object, pod: Object) -> bool:
    revision = templates.revision_of(daemon_set["spec"]["template"])
    return bool((pod["metadata"].get("labels") or {}).get(REVISION_LABEL) == revision)


def node_of(pod: Object) -> str:
    """Where the pod is, or shall be."""
    if node := pod["spec"].get("nodeName"):
        return str(node)
    near = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = (near.get(scheduling.REQUIRED) or {}).get("nodeSelectorTerms") or []
    named = (field["values"][0] for term in terms for field in term.get("matchFields") or ())
    return next(named, "")
