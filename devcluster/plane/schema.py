"""Structural schemas of custom resources: what is unknown, what defaults, what is wrong and how that is told."""

import copy
import functools
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Protocol, cast

from jsonschema import Draft4Validator

from devcluster.plane.problems import FieldProblem, Object, invalid_value, required

_ROOT = {"apiVersion", "kind", "metadata"}
_METADATA = {
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
}


def prune(obj: Object, schema: Object) -> list[str]:
    """Removes what the schema does not know, in place; the paths of the removed fields, sorted."""
    removed = [f"metadata.{key}" for key in _unknown(obj.get("metadata"), _METADATA)]
    for path in removed:
        del obj["metadata"][path.removeprefix("metadata.")]
    removed += _prune(obj, schema, "", known=_ROOT)
    return sorted(removed)


def _unknown(value: Any, known: set[str]) -> list[str]:
    return [key for key in value if key not in known] if isinstance(value, dict) else []


def _prune(value: Any, schema: Object, path: str, *, known: Collection[str] = ()) -> list[str]:
    removed: list[str] = []
    if isinstance(value, list):
        items = schema.get("items") or {}
        for at, item in enumerate(value):
            removed += _prune(item, items, f"{path}[{at}]")
    elif isinstance(value, dict):
        if schema.get("x-kubernetes-embedded-resource"):
            known = _ROOT
        properties = schema.get("properties") or {}
        additional = schema.get("additionalProperties")
        keep_unknown = schema.get("x-kubernetes-preserve-unknown-fields") or additional is True
        for key in list(value):
            inside = f"{path}.{key}" if path else key
            if key in known:
                continue
            if key in properties:
                removed += _prune(value[key], properties[key], inside)
            elif isinstance(additional, dict):
                removed += _prune(value[key], additional, inside)
            elif not keep_unknown:
                del value[key]
                removed.append(inside)
    return removed


def set_defaults(value: Any, schema: Object) -> None:
    """In place; parents that are absent stay absent. A null where null is not allowed counts as absent, and goes."""
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            set_defaults(item, schema["items"])
    if not isinstance(value, dict):
        return
    properties = schema.get("properties") or {}
    for key, inner in properties.items():
        if key != "metadata":  # that is the server's own, whatever the schema says of it
            _default_one(value, key, inner)
    if isinstance(additional := schema.get("additionalProperties"), dict):
        for key in value.keys() - properties.keys():
            _default_one(value, key, additional)


def _default_one(value: Object, key: str, schema: Object) -> None:
    if key in value and value[key] is None and not schema.get("nullable"):
        del value[key]
    if key not in value and "default" in schema:
        value[key] = copy.deepcopy(schema["default"])
    if key in value:
        set_defaults(value[key], schema)


def _converted(schema: Any) -> Any:
    """As a JSON Schema of draft 4, whose exclusiveMinimum is a boolean as in OpenAPI 3.0."""
    if isinstance(schema, list):
        return [_converted(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {
        key: {name: _converted(inner) for name, inner in value.items()} if key == "properties" else _converted(value)
        for key, value in schema.items()
        if key not in {"default", "description", "example", "enum", "format", "required"} and not key.startswith("x-")
    }
    for verbatim in ("enum", "required"):
        if schema.get(verbatim):
            out[verbatim] = schema[verbatim]
    if schema.get("x-kubernetes-int-or-string"):
        out.pop("anyOf", None)
        out["type"] = ["integer", "string"]
    if schema.get("nullable") and "type" in out:
        out["type"] = [*([out["type"]] if isinstance(out["type"], str) else out["type"]), "null"]
    return out


def _compile(schema: Object) -> Draft4Validator:
    converted = _converted(schema)
    for implied in _ROOT:
        converted.get("properties", {}).pop(implied, None)
    return Draft4Validator(converted)


@functools.lru_cache(maxsize=256)
def _compiled(text: str) -> Draft4Validator:
    return _compile(json.loads(text))


def validate(obj: Object, schema: Object) -> list[FieldProblem]:
    validator = _compiled(json.dumps(schema))
    found = [problem for error in validator.iter_errors(obj) for problem in _problems(cast("_Error", error))]
    found += list(_list_types(obj, schema, ""))
    return sorted(found, key=lambda problem: problem.path)


class _Error(Protocol):
    """As much of jsonschema's ValidationError as is used; its own annotations say Unset everywhere."""

    validator: Any
    validator_value: Any
    instance: Any
    schema: Any
    message: str
    absolute_path: Iterable[str | int]


def _path(error: _Error, *more: str) -> str:
    text = ""
    for step in [*error.absolute_path, *more]:
        text += f"[{step}]" if isinstance(step, int) else (f".{step}" if text else str(step))
    return text


def _go(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


_TYPE_NAMES = (
    (bool, "boolean"),
    (str, "string"),
    (int, "integer"),
    (float, "number"),
    (list, "array"),
    (dict, "object"),
)


def _type_name(value: Any) -> str:
    return next((name for kind, name in _TYPE_NAMES if isinstance(value, kind)), "null")


def _wrong_type(error: _Error, path: str) -> FieldProblem:
    types = error.validator_value
    wanted = types if isinstance(types, str) else ",".join(name for name in types if name != "null")
    got = _go(_type_name(error.instance))
    why = f"{path} in body must be of type {wanted}: {got}"
    return FieldProblem("FieldValueTypeInvalid", path, f"Invalid value: {got}: {why}")


def _compare(error: _Error, path: str) -> FieldProblem:
    limit = error.validator_value
    lower = error.validator == "minimum"
    exclusive = error.schema.get("exclusiveMinimum" if lower else "exclusiveMaximum")
    word = ("greater" if lower else "less") + (" than" if exclusive else " than or equal to")
    return invalid_value(path, _go(error.instance), f"{path} in body should be {word} {limit}")


def _many(error: _Error, path: str) -> FieldProblem:
    text = f"Too many: {len(error.instance)}: must have at most {error.validator_value} item"
    return FieldProblem("FieldValueTooMany", path, text + ("s" if error.validator_value != 1 else ""))


def _long(error: _Error, path: str) -> FieldProblem:
    return FieldProblem("FieldValueTooLong", path, f"Too long: may not be more than {error.validator_value} bytes")


def _unsupported(error: _Error, path: str) -> FieldProblem:
    supported = ", ".join(value if value.startswith('"') else f'"{value}"' for value in map(_go, error.validator_value))
    text = f"Unsupported value: {_go(error.instance)}: supported values: {supported}"
    return FieldProblem("FieldValueNotSupported", path, text)


def _should(text: str) -> Callable[[_Error, str], FieldProblem]:
    def tell(error: _Error, path: str) -> FieldProblem:
        why = text.format(path=path, limit=error.validator_value)
        return invalid_value(path, _go(error.instance), why)

    return tell


_TELL: dict[str, Callable[[_Error, str], FieldProblem]] = {
    "type": _wrong_type,
    "enum": _unsupported,
    "minimum": _compare,
    "maximum": _compare,
    "maxItems": _many,
    "maxLength": _long,
    "minItems": _should("{path} in body should have at least {limit} items"),
    "minLength": _should("{path} in body should be at least {limit} chars long"),
    "minProperties": _should("{path} in body should have at least {limit} properties"),
    "maxProperties": _should("{path} in body should have at most {limit} properties"),
    "pattern": _should("{path} in body should match '{limit}'"),
    "multipleOf": _should("{path} in body should be a multiple of {limit}"),
    "uniqueItems": _should("{path} in body shouldn't contain duplicates"),
    "anyOf": _should("{path} in body must validate at least one schema (anyOf)"),
    "oneOf": _should("{path} in body must validate one and only one schema (oneOf)"),
    "not": _should("{path} in body must not validate the schema (not)"),
}


def _problems(error: _Error) -> Iterator[FieldProblem]:
    validator = str(error.validator)
    if validator == "required":
        for name in error.validator_value:
            if name not in error.instance:
                yield required(_path(error, name))
    elif validator in _TELL:
        yield _TELL[validator](error, _path(error))
    else:
        yield invalid_value(_path(error), _go(error.instance), error.message)


def _list_types(value: Any, schema: Object, path: str) -> Iterator[FieldProblem]:
    """Duplicates in lists that are sets or maps."""
    if isinstance(value, list):
        items = schema.get("items") or {}
        keys = schema.get("x-kubernetes-list-map-keys") if schema.get("x-kubernetes-list-type") == "map" else None
        unique = keys is not None or schema.get("x-kubernetes-list-type") == "set"
        seen: set[str] = set()
        for at, item in enumerate(value):
            yield from _list_types(item, items, f"{path}[{at}]")
            identity = {k: item.get(k) for k in keys} if keys and isinstance(item, dict) else item
            if unique and _go(identity) in seen:
                yield FieldProblem("FieldValueDuplicate", f"{path}[{at}]", f"Duplicate value: {_go(identity)}")
            seen.add(_go(identity))
    elif isinstance(value, dict):
        properties = schema.get("properties") or {}
        additional = schema.get("additionalProperties")
        for key, inner in value.items():
            if inner_schema := properties.get(key) or (additional if isinstance(additional, dict) else None):
                yield from _list_types(inner, inner_schema, f"{path}.{key}" if path else key)
