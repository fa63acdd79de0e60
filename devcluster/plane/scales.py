"""The Scale of an object (autoscaling/v1): how many are wanted and how many there are, found by the type's paths."""

import json
from typing import Any

from devcluster.plane import columns, problems, schema
from devcluster.plane.problems import FieldProblem, Object, invalid_value
from devcluster.plane.registry import ResourceType, ScalePaths

_IDENTITY = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
_SIZE = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}  # that it is not negative is another rule
_SCHEMA: Object = {
    "type": "object",
    "properties": {
        "spec": {"type": "object", "properties": {"replicas": _SIZE}},
        "status": {"type": "object", "properties": {"replicas": _SIZE, "selector": {"type": "string"}}},
    },
}
# Of no collection: only what a client may send and how it is shown.
TYPE = ResourceType(
    group="autoscaling", version="v1", plural="scales", kind="Scale", columns=columns.SCALES, schema=_SCHEMA
)


def scale_of(rt: ResourceType, obj: Object) -> Object:
    """A size that is not set counts as zero, and zero is not said in the spec, as Go's omitempty has it."""
    at = _paths(rt)
    wanted = _find(obj, at.replicas) or 0
    selector = _find(obj, at.selector) if at.selector else None
    text = columns.selector_text(selector) if isinstance(selector, dict) else selector
    return {
        "kind": TYPE.kind,
        "apiVersion": TYPE.api_version,
        "metadata": {key: obj["metadata"][key] for key in _IDENTITY if key in obj["metadata"]},
        "spec": {"replicas": wanted} if wanted else {},
        "status": {"replicas": _find(obj, at.status_replicas) or 0, **({"selector": text} if text else {})},
    }


def scaled(rt: ResourceType, obj: Object, scale: Object) -> Object:
    """`obj` (spent) with the size of `scale`; its name, namespace and version are left to be checked."""
    before, given = obj["metadata"], scale["metadata"]
    if given.get("uid", before["uid"]) != before["uid"]:
        why = f"Precondition failed: UID in precondition: {given['uid']}, UID in object meta: {before['uid']}"
        raise problems.conflict(rt, before["name"], why)
    *parents, last = _steps(_paths(rt).replicas)
    inner = obj
    for step in parents:
        inner = inner.setdefault(step, {})
    inner[last] = (scale.get("spec") or {}).get("replicas", 0)
    kept = {key: value for key, value in before.items() if key != "name"}
    claimed = {key: given[key] for key in ("name", "namespace", "resourceVersion") if given.get(key)}
    return obj | {"metadata": kept | claimed}


def check_form(scale: Object) -> None:
    """Problem 400 when Go could not read it."""
    if found := schema.validate(scale, _SCHEMA):
        raise problems.undecodable(TYPE, TYPE.version, TYPE.kind, f"json: cannot unmarshal {found[0]}")


def check_set(rt: ResourceType, obj: Object) -> None:
    """Problem 500 when there is no size to show."""
    path = _paths(rt).replicas
    if _find(obj, path) is None:
        raise problems.internal(f"the spec replicas field {json.dumps(path)} does not exist")


def check_size(rt: ResourceType, obj: Object) -> list[FieldProblem]:
    path = _paths(rt).replicas
    size = _find(obj, path)
    if not isinstance(size, int) or size >= 0:
        return []
    if rt.custom:
        return [invalid_value(path, str(size), "should be a non-negative integer")]
    return [invalid_value(path.removeprefix("."), str(size), "must be greater than or equal to 0")]


def _paths(rt: ResourceType) -> ScalePaths:
    assert rt.scale is not None  # noqa: S101 -- only reached for kinds that have it
    return rt.scale


def _steps(path: str) -> list[str]:
    return path.split(".")[1:]


def _find(obj: Object, path: str) -> Any:
    found: Any = obj
    for step in _steps(path):
        found = found.get(step) if isinstance(found, dict) else None
    return found
