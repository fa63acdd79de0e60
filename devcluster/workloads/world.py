"""What the controllers see and what they may ask for."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from allocator.kube.resources import Object, Objects, Resource


@dataclass(frozen=True, slots=True)
class Create:
    """`owner` gets the event, and a pause, when the API server refuses."""

    resource: Resource
    obj: Object
    owner: Object


@dataclass(frozen=True, slots=True)
class Delete:
    """Of this UID only."""

    resource: Resource
    obj: Object


@dataclass(frozen=True, slots=True)
class Update:
    """Merge patch on the object as it was read: its resourceVersion is the precondition."""

    resource: Resource
    obj: Object
    body: Object
    subresource: str | None = None


@dataclass(frozen=True, slots=True)
class Bind:
    pod: Object
    node: str


@dataclass(frozen=True, slots=True)
class Collect:
    """Delete `obj` if a live read shows that its controller is gone."""

    resource: Resource
    obj: Object
    controller: Object  # the ownerReference


Action = Create | Delete | Update | Bind | Collect


@dataclass(slots=True)
class World:
    """One moment of the caches. Objects are shared with the caches: never change them."""

    now: datetime
    deployments: Objects = field(default_factory=list)
    replica_sets: Objects = field(default_factory=list)
    stateful_sets: Objects = field(default_factory=list)
    daemon_sets: Objects = field(default_factory=list)
    cron_jobs: Objects = field(default_factory=list)
    jobs: Objects = field(default_factory=list)
    pods: Objects = field(default_factory=list)
    nodes: Objects = field(default_factory=list)
    assumed: dict[str, str] = field(default_factory=dict)  # pod UID -> node, bound but not yet seen as bound
    _owned: dict[str, Objects] = field(init=False)

    def __post_init__(self) -> None:
        self._owned = defaultdict(list)
        for obj in (*self.replica_sets, *self.jobs, *self.pods):
            if controller := controller_of(obj):
                self._owned[controller["uid"]].append(obj)

    def owned_by(self, owner: Object) -> Objects:
        """Pods, ReplicaSets or Jobs whose controller is `owner`, oldest first."""
        found = self._owned.get(owner["metadata"]["uid"], [])
        return sorted(found, key=lambda obj: (obj["metadata"].get("creationTimestamp", ""), obj["metadata"]["name"]))

    def condition(self, kind: str, status: str, reason: str = "") -> Object:
        moment = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"type": kind, "status": status, "reason": reason, "lastTransitionTime": moment}


def controller_of(obj: Object) -> Object | None:
    references: Objects = obj["metadata"].get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), None)


def key_of(obj: Object) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def is_leaving(obj: Object) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def is_over(pod: Object) -> bool:
    return phase_of(pod) in {"Succeeded", "Failed"}


def is_active(pod: Object) -> bool:
    return not is_leaving(pod) and not is_over(pod)


def is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return is_active(pod) and any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def phase_of(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def count(obj: Object, name: str, default: int = 1) -> int:
    """An integer of the spec; absent counts as the API's default."""
    value = obj["spec"].get(name)
    return default if value is None else int(value)


def share(value: int | str, whole: int) -> float:
    """A bound of a rolling update: a number, or a percentage of the whole."""
    return whole * int(value[:-1]) / 100 if isinstance(value, str) and value.endswith("%") else int(value)


def status_update(resource: Resource, obj: Object, status: Object) -> list[Action]:
    """The write that makes the status so, or nothing when it is so already. Zero and absent are the same."""
    current = obj.get("status") or {}
    if all(_essence(name, current.get(name)) == _essence(name, value) for name, value in status.items()):
        return []
    return [Update(resource, obj, {"status": status}, "status")]


def _essence(name: str, value: Any) -> object:
    """Conditions without their times: a new time alone is no change."""
    if name == "conditions":
        return {(item["type"], item["status"], item.get("reason") or "") for item in value or ()}
    return value or None
