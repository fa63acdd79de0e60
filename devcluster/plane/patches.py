"""The three patch forms: JSON (RFC 6902), merge (RFC 7386) and Kubernetes' strategic merge for built-in kinds."""

import copy
from typing import Any

import jsonpatch
from jsonpointer import JsonPointerException

from devcluster.plane import problems
from devcluster.plane.problems import Object

JSON = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

# The key that identifies an element of a list in a strategic merge, by the name of the list. Lists that are not named
# here are replaced as a whole, as tolerations and args are. `ports` is settled by its elements (see _merge_key).
_MERGE_KEYS = {
    "addresses": "type",
    "conditions": "type",
    "containers": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "hostAliases": "ip",
    "hostIPs": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "podIPs": "ip",
    "resourceClaims": "name",
    "secrets": "name",
    "taints": "key",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
    "webhooks": "name",
}
_MERGED_SETS = {"finalizers", "podCIDRs"}


def apply_json(obj: Object, operations: Any) -> Object:
    if not isinstance(operations, list):
        raise problems.bad_request("error decoding patch: it is no list of operations")
    try:
        patched = jsonpatch.apply_patch(obj, operations)
    except (jsonpatch.JsonPatchException, JsonPointerException, TypeError) as error:
        message = "the server rejected our request due to an error in our request"
        raise problems.Problem(422, "Invalid", message) from error
    if not isinstance(patched, dict):
        raise problems.bad_request("the patched object is no JSON object")
    return patched


def apply_merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = apply_merge(result.get(key), value)
    return result


def apply_strategic(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) else {}
    if retained := patch.get("$retainKeys"):
        result = {key: value for key, value in result.items() if key in retained}
    for key, value in patch.items():
        if key.startswith("$"):
            continue  # directives: $retainKeys is done, the others follow
        if value is None:
            result.pop(key, None)
        elif isinstance(value, list):
            result[key] = _merge_list(key, result.get(key), value)
        else:
            result[key] = apply_strategic(result.get(key), value)
    _apply_list_directives(result, patch)
    return result


def _apply_list_directives(result: Object, patch: Object) -> None:
    for key, value in patch.items():
        directive, _, name = key.partition("/")
        if not isinstance(result.get(name), list):
            continue
        if directive == "$deleteFromPrimitiveList":
            result[name] = [item for item in result[name] if item not in value]
        elif directive == "$setElementOrder":
            result[name] = _ordered(name, result[name], value)


def _merge_key(name: str, elements: list[Any]) -> str | None:
    if name == "ports":
        return "containerPort" if any("containerPort" in e for e in elements if isinstance(e, dict)) else "port"
    return _MERGE_KEYS.get(name)


def _merge_list(name: str, target: Any, patch: list[Any]) -> list[Any]:
    current = list(target) if isinstance(target, list) else []
    if name in _MERGED_SETS and all(isinstance(item, str) for item in patch):
        return current + [item for item in patch if item not in current]
    key = _merge_key(name, [*current, *patch])
    if key is None or not all(isinstance(item, dict) for item in patch):
        return copy.deepcopy(patch)
    if any(item.get("$patch") == "replace" for item in patch):
        return [copy.deepcopy(item) for item in patch if item.get("$patch") != "replace"]
    for item in patch:
        at = next((i for i, old in enumerate(current) if old.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            current = [old for old in current if old.get(key) != item.get(key)]
        elif at is None:
            current.append(apply_strategic({}, item))
        else:
            current[at] = apply_strategic(current[at], item)
    return current


def _ordered(name: str, items: list[Any], order: list[Any]) -> list[Any]:
    """Elements that the order names stand as it says; the others follow the neighbour they had."""
    key = _merge_key(name, [*items, *order])

    def identity(item: Any) -> Any:
        return item.get(key) if isinstance(item, dict) else item

    wanted = [identity(item) for item in order]
    known = sorted((i for i in items if identity(i) in wanted), key=lambda item: wanted.index(identity(item)))
    return known + [item for item in items if identity(item) not in wanted]


def apply_patch(content_type: str, obj: Object, patch: Any) -> Object:
    """`content_type` is JSON, MERGE or STRATEGIC. `obj` itself stays as it is."""
    if content_type == JSON:
        return apply_json(copy.deepcopy(obj), patch)
    merged = (apply_merge if content_type == MERGE else apply_strategic)(obj, patch)
    if not isinstance(merged, dict):
        raise problems.bad_request("the patch is no JSON object")
    return merged
