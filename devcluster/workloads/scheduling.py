"""Bind pods to nodes: the ready node with the fewest pods that has the labels asked for. Resources are not counted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from devcluster.workloads.world import Action, Bind, World, is_active

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.kube.resources import Object


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
    labels = node["metadata"].get("labels") or {}
    wanted = pod["spec"].get("nodeSelector") or {}
    conditions = (node.get("status") or {}).get("conditions") or []
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    return ready and not (node.get("spec") or {}).get("unschedulable") and wanted.items() <= labels.items()
