"""What a DELETE does to an object: gone at once, or marked and left to its finalizers, its kubelet or its namespace."""

from datetime import datetime, timedelta

from devcluster.plane import problems
from devcluster.plane.problems import Object
from devcluster.plane.registry import ResourceType
from devcluster.plane.strategy import timestamp

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
RETURN_DELETED = {"/pods", "/namespaces", "/services"}  # DELETE answers with the object where others give a Status
_IMMORTAL = {"default", "kube-system", "kube-public"}
_FINISHED = {"Succeeded", "Failed"}


def check_preconditions(rt: ResourceType, obj: Object, options: Object) -> None:
    """Problem 409 when the object is not the one that the client means to delete, 403 when it must not go."""
    if rt.stored_in == "/namespaces" and obj["metadata"]["name"] in _IMMORTAL:
        raise problems.forbidden(rt, obj["metadata"]["name"], "this namespace may not be deleted")
    wanted, metadata = options.get("preconditions") or {}, obj["metadata"]
    hints = {"uid": ("UID", "deleted and then recreated"), "resourceVersion": ("ResourceVersion", "modified")}
    for field, (word, hint) in hints.items():
        if wanted.get(field) not in (None, "", metadata[field]):
            why = (
                f"the {word} in the precondition ({wanted[field]}) does not match the {word} in record "
                f"({metadata[field]}). The object might have been {hint}"
            )
            raise problems.failed_precondition(rt, metadata["name"], why)


def _finalizers(old: list[str], options: Object) -> list[str]:
    policy = options.get("propagationPolicy")
    if policy is None and options.get("orphanDependents") is not None:
        policy = "Orphan" if options["orphanDependents"] else "Background"
    if policy is None:
        return old
    kept = [name for name in old if name not in {FOREGROUND, ORPHAN}]
    return kept + {"Foreground": [FOREGROUND], "Orphan": [ORPHAN]}.get(policy, [])


def _grace_s(obj: Object, options: Object) -> int:
    """Only a pod that a node runs gets time; everything else is deleted without a delay."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    if obj.get("kind") != "Pod" or not spec.get("nodeName") or status.get("phase") in _FINISHED:
        return 0
    wanted = options.get("gracePeriodSeconds")
    return int(spec.get("terminationGracePeriodSeconds", 30) if wanted is None else wanted)


def mark(obj: Object, options: Object, now: datetime) -> Object:
    """The object as it stands after a DELETE; see strategy.is_finished for whether it goes away with that."""
    metadata = dict(obj["metadata"])
    if finalizers := _finalizers(list(metadata.get("finalizers") or []), options):
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    grace = _grace_s(obj, options)
    if obj.get("kind") == "Namespace":
        metadata.setdefault("deletionTimestamp", timestamp(now))
        return obj | {"metadata": metadata, "status": (obj.get("status") or {}) | {"phase": "Terminating"}}
    before = metadata.get("deletionGracePeriodSeconds")
    if not metadata.get("deletionTimestamp"):
        metadata["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace))
        metadata["deletionGracePeriodSeconds"] = grace
        if metadata.get("generation"):
            metadata["generation"] += 1
    elif before is not None and grace < before:
        metadata["deletionGracePeriodSeconds"] = grace  # a later DELETE may only shorten the time
        metadata["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace))
    return obj | {"metadata": metadata}
