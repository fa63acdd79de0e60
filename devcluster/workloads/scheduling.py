"""Bind pods to nodes: the ready node with the fewest pods that the pod's selector and required node affinity allow.

Resources are not counted.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from devcluster.workloads.world import Action, Bind, World, is_active

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from allocator.kube.resources import Object

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
CLOSED = "node.kubernetes.io/unschedulable"  # the taint of a node that takes no pods


def plan(world: World) -> Iterator[Action]:
    places = {pod["metadata"]["uid"]: node_of(pod, world) for pod in world.pods if is_active(pod)}
    load = Counter(node for node in places.values() if node)
    spread = Counter((_owner(pod), node_of(pod, world)) for pod in world.pods if is_active(pod))
    for pod in world.pods:
        if not is_active(pod) or node_of(pod, world):
            continue
        fitting = [node["metadata"]["name"] for node in world.nodes if _fits(pod, node)]
        if fitting:
            # Pods of one workload go apart first, as the real scheduler's default topology spread has it.
            chosen = min(fitting, key=lambda name: (spread[_owner(pod), name], load[name], name))
            load[chosen] += 1
            spread[_owner(pod), chosen] += 1
            yield Bind(pod, chosen)


def node_of(pod: Object, world: World) -> str:
    return pod["spec"].get("nodeName") or world.assumed.get(pod["metadata"]["uid"], "")


def _owner(pod: Object) -> str:
    references = pod["metadata"].get("ownerReferences") or [{"uid": ""}]
    return str(references[0]["uid"])


def _fits(pod: Object, node: Object) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    is_open = not (node.get("spec") or {}).get("unschedulable") or any(
        toleration.get("key") == CLOSED for toleration in pod["spec"].get("tolerations") or []
    )
    return ready and is_open and allows(pod["spec"], node)


def allows(spec: Object, node: Object) -> bool:
    """Whether the selector and the required affinity of a pod's spec let it on this node."""
    labels = node["metadata"].get("labels") or {}
    wanted = spec.get("nodeSelector") or {}
    return wanted.items() <= labels.items() and _is_allowed(spec.get("affinity") or {}, node)


def _is_allowed(affinity: Object, node: Object) -> bool:
    """Whether the node satisfies one of the required terms, if there are any. An empty term allows nothing."""
    required = (affinity.get("nodeAffinity") or {}).get(REQUIRED)
    if required is None:
        return True
    labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    for term in required.get("nodeSelectorTerms") or []:
        asked = [(each, labels) for each in term.get("matchExpressions") or []]
        asked += [(each, fields) for each in term.get("matchFields") or []]
        if asked and all(_holds(each, found) for each, found in asked):
            return True
    return False


def _holds(requirement: Object, found: Mapping[str, str]) -> bool:
    value, values = found.get(requirement["key"]), requirement.get("values") or []
    match requirement["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            return value is not None and _is_beyond(operator, value, values[0])
        case _:
            return False


def _is_beyond(operator: str, value: str, bound: str) -> bool:
    try:
        return int(value) > int(bound) if operator == "Gt" else int(value) < int(bound)
    except ValueError:
        return False
