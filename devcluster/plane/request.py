"""Reading a request: its path, its query, the form of answer it accepts, its body."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from aiohttp import web

from devcluster.plane import problems, protobuf
from devcluster.plane.problems import Object
from devcluster.plane.registry import Registry, ResourceType
from devcluster.plane.views import View

ACCEPTED = "application/json, application/yaml"
_READABLE = {  # PATCH has types of its own
    "application/json",
    "application/vnd.kubernetes.protobuf",
}
BODY_LIMIT = 3 * 1024 * 1024  # bytes, as kube-apiserver


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names: a collection (`name` empty), an object, or a subresource of an object."""

    rt: ResourceType
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse_path(path: str, registry: Registry) -> Target | None:
    """None when no such resource is served."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if (
        rest[0] == "namespaces"
        and len(rest) >= 3
        and (inner := registry.find(group, version, rest[2]))
        and inner.namespaced
    ):
        namespace, rest = rest[1], rest[2:]
    rt = registry.find(group, version, rest[0])
    if rt is None or len(rest) > 3:
        return None
    name, subresource = [*rest, "", ""][1:3]
    if rt.namespaced and name and not namespace:
        return None
    return Target(rt, namespace, name, subresource)


def flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() in {"1", "true", "t"}


def accepted_view(rt: ResourceType, accept: str, query: Mapping[str, str]) -> tuple[View, str]:
    """The form and the media type of the answer. Problem 406 when the client takes none that is spoken here."""
    include = query.get("includeObject", "Metadata")
    for offer in accept.split(",") if accept else ["*/*"]:
        media, *parameters = (part.strip() for part in offer.split(";"))
        given = dict(p.split("=", 1) for p in parameters if "=" in p)
        if media not in {"application/json", "application/yaml", "*/*", "application/*"}:
            continue
        content_type = "application/yaml" if media == "application/yaml" else "application/json"
        match given.get("as"):
            case None:
                return View(rt), content_type
            case "Table" if given.get("g") == "meta.k8s.io" and given.get("v") == "v1":
                return View(rt, "table", include), content_type
            case "PartialObjectMetadata" | "PartialObjectMetadataList" if given.get("v") == "v1":
                return View(rt, "metadata"), content_type
            case _:
                continue
    raise problems.not_acceptable(ACCEPTED)


async def read_body(request: web.Request) -> tuple[Any, list[str]]:
    """The decoded body (None when there is none) and the paths of fields that occur twice."""
    try:
        data = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise problems.too_large() from error
    if not data.strip():
        return None, []
    if request.content_type in {"application/yaml", "application/apply-patch+yaml"}:
        try:
            return yaml.safe_load(data), []
        except yaml.YAMLError as error:
            raise problems.bad_request(f"error parsing YAML: {error}") from error
    given = request.headers.get("Content-Type")
    if given and request.content_type not in _READABLE and request.method != "PATCH":
        raise problems.unsupported_media_type(ACCEPTED)
    if request.content_type == "application/vnd.kubernetes.protobuf":
        return _decode_protobuf(data), []
    return _decode(data)


def _decode_protobuf(data: bytes) -> Object:
    try:
        return protobuf.decode(data)
    except (protobuf.Unreadable, UnicodeDecodeError) as error:
        hint = f"protobuf with {error} is not understood: send the object as a file, kubectl create -f"
        raise problems.unsupported_media_type(ACCEPTED, hint) from error


def _decode(data: bytes) -> tuple[Any, list[str]]:
    repeated: dict[int, list[str]] = {}

    def pairs(items: list[tuple[str, Any]]) -> Object:
        found = dict(items)
        if len(found) != len(items):
            names = [name for name, _ in items]
            repeated[id(found)] = sorted({name for name in names if names.count(name) > 1})
        return found

    try:
        body = json.loads(data, object_pairs_hook=pairs)
    except ValueError as error:
        raise problems.bad_request(f"couldn't decode the body as JSON: {error}") from error
    return body, list(_repeated_paths(body, repeated, "")) if repeated else []


def _repeated_paths(value: Any, repeated: Mapping[int, list[str]], path: str) -> list[str]:
    found: list[str] = []
    if isinstance(value, dict):
        found += [f"{path}.{name}" if path else name for name in repeated.get(id(value), [])]
        for key, inner in value.items():
            found += _repeated_paths(inner, repeated, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            found += _repeated_paths(inner, repeated, f"{path}[{at}]")
    return found
