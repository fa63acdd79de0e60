"""OpenAPI documents: what `kubectl explain` shows, and where kubectl sees that dry-run and validation are served."""

import hashlib
from typing import Any

import msgspec

from devcluster.plane.problems import Object
from devcluster.plane.registry import Registry, ResourceType

PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# kubectl takes OpenAPI 2.0 as protobuf only, and asks for it when version 3 does not know a kind. This is gnostic's
# Document with `swagger: "2.0"` and empty info: nothing to say about that kind, which lets kubectl go on.
EMPTY_PROTOBUF = b"\x0a\x032.0\x12\x00"

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_STANDARD = {
    "apiVersion": {"type": "string", "description": "Version of the schema that this object is written in."},
    "kind": {"type": "string", "description": "The REST resource that this object stands for, in CamelCase."},
}
_OBJECT_META: Object = {
    "description": "Metadata that all stored objects have.",
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "Unique within its namespace; cannot be changed."},
        "namespace": {"type": "string", "description": "The space within which the name is unique."},
        "labels": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Keys and values by which objects are selected.",
        },
        "annotations": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Keys and values that tools keep with the object.",
        },
        "finalizers": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Who has to agree before a deleted object goes away.",
        },
        "generateName": {"type": "string", "description": "Prefix of a name that the server completes."},
        "generation": {"type": "integer", "format": "int64", "description": "Counts the changes of the desired state."},
        "resourceVersion": {"type": "string", "description": "Changes with every write; opaque to clients."},
        "uid": {"type": "string", "description": "Unique in time and space."},
        "creationTimestamp": {
            "type": "string",
            "format": "date-time",
            "description": "When the server made the object.",
        },
        "deletionTimestamp": {"type": "string", "format": "date-time", "description": "When the object is to go."},
        "ownerReferences": {
            "type": "array",
            "items": {"type": "object", "additionalProperties": {}},
            "description": "Objects with whose end this one ends too.",
        },
    },
}
_WRITE_PARAMETERS = [
    {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
    for name in ("dryRun", "fieldManager", "fieldValidation")
]


def _schema_name(rt: ResourceType) -> str:
    """Reversed group, version, kind: as the documents of a real server name custom resources."""
    host = ".".join(reversed((rt.group or "core").split(".")))
    return f"{host}.{rt.version}.{rt.kind}"


def _identity(rt: ResourceType) -> Object:
    return {"group": rt.group, "version": rt.version, "kind": rt.kind}


def _shown(schema: Any, *, v2: bool) -> Any:
    """The structural schema without what OpenAPI 2.0 does not know."""
    if isinstance(schema, list):
        return [_shown(item, v2=v2) for item in schema]
    if not isinstance(schema, dict):
        return schema
    hidden = {"nullable", "anyOf", "oneOf", "allOf", "not"} if v2 else set()
    return {key: _shown(value, v2=v2) for key, value in schema.items() if key not in hidden}


def _schema(rt: ResourceType, reference: str, *, v2: bool) -> Object:
    own: Object = _shown(rt.schema or {"type": "object", "description": f"{rt.kind} of {rt.api_version}."}, v2=v2)
    meta: Object = {"$ref": f"{reference}{_META}ObjectMeta"}
    if not v2:
        meta = {"description": "Standard object metadata.", "allOf": [meta], "default": {}}
    own["properties"] = {**_STANDARD, "metadata": meta, **{
        key: value for key, value in (own.get("properties") or {}).items() if key not in {*_STANDARD, "metadata"}
    }}  # fmt: skip
    own["x-kubernetes-group-version-kind"] = [_identity(rt)]
    return own


def _paths(rt: ResourceType, reference: str) -> Object:
    root = f"/apis/{rt.group}/{rt.version}" if rt.group else f"/api/{rt.version}"
    base = f"{root}/namespaces/{{namespace}}/{rt.plural}" if rt.namespaced else f"{root}/{rt.plural}"
    content = {"application/json": {"schema": {"$ref": f"{reference}{_schema_name(rt)}"}}}

    def operation(action: str, *, writes: bool) -> Object:
        found: Object = {
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _identity(rt),
            "responses": {"200": {"description": "OK", "content": content}},
        }
        return found | ({"parameters": _WRITE_PARAMETERS} if writes else {})

    many = {"get": operation("list", writes=False), "post": operation("post", writes=True)}
    single = {
        "get": operation("get", writes=False),
        "put": operation("put", writes=True),
        "patch": operation("patch", writes=True),
        "delete": operation("delete", writes=True),
    }
    return {base: many, f"{base}/{{name}}": single}


def _root(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def index(registry: Registry) -> Object:
    versions = dict.fromkeys((rt.group, rt.version) for rt in registry.all())
    paths = {}
    for group, version in versions:
        content = msgspec.json.encode(document(registry, group, version))
        digest = hashlib.sha256(content).hexdigest()[:32].upper()
        root = _root(group, version)
        paths[root] = {"serverRelativeURL": f"/openapi/v3/{root}?hash={digest}"}
    return {"paths": paths}


def document(registry: Registry, group: str, version: str) -> Object | None:
    """OpenAPI 3.0 of one group and version; None when there is no such."""
    reference = "#/components/schemas/"
    types = [rt for rt in registry.all() if (rt.group, rt.version) == (group, version)]
    if not types:
        return None
    schemas: Object = {_schema_name(rt): _schema(rt, reference, v2=False) for rt in types}
    paths: Object = {}
    for rt in types:
        paths |= _paths(rt, reference)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.32.0+embedded"},
        "paths": paths,
        "components": {"schemas": schemas | {f"{_META}ObjectMeta": _OBJECT_META}},
    }


def swagger(registry: Registry) -> Object:
    """OpenAPI 2.0 of everything, for clients that do not know version 3."""
    reference = "#/definitions/"
    definitions = {_schema_name(rt): _schema(rt, reference, v2=True) for rt in registry.all()}
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.32.0+embedded"},
        "paths": {},
        "definitions": definitions | {f"{_META}ObjectMeta": _OBJECT_META},
    }
