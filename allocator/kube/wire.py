"""What goes over the wire: content types, the frames of a watch, answers and what they mean."""

from collections.abc import AsyncGenerator, Sequence
from functools import cache
from typing import Any, Generic, TypeVar

import aiohttp
import msgspec

from allocator.kube.errors import ApiError, Unreachable, from_response
from allocator.kube.resources import Object, Resource

T = TypeVar("T", bound=msgspec.Struct)

JSON = "application/json"
AS_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
AS_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
PATCH_TYPES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",  # JSON is YAML
}


async def lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """Lines of any length: a watch event holds a whole object, and aiohttp's own line reader stops at 64 KiB."""
    parts: list[bytes] = []
    async for chunk in content.iter_any():
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line = b"".join([*parts, end])
            parts.clear()
            if line.strip():
                yield line
        if rest:
            parts.append(rest)
    if parts:
        raise Unreachable("the watch was cut inside an event")


def watch_event(resource: Resource, line: bytes, *, metadata_only: bool) -> tuple[str, Object]:
    event = decoded("WATCH", resource.plural, line)
    if not isinstance(event, dict):
        raise Unreachable(f"WATCH {resource.plural}: an event is no object")
    kind, obj = event.get("type"), event.get("object") or {}
    if kind == "ERROR":
        raise from_response(int(obj.get("code") or 500), obj)
    return str(kind), completed(resource, obj, metadata_only=metadata_only)


def completed(resource: Resource, obj: Object, *, metadata_only: bool = False) -> Object:
    """Items of lists come without kind and apiVersion, metadata-only ones with those of their envelope; a server
    that cannot send metadata only sends all.
    """
    if obj.get("kind") == "Status":
        return obj
    if metadata_only:
        return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": obj.get("metadata") or {}}
    if "kind" in obj and "apiVersion" in obj:
        return obj
    return {**obj, "apiVersion": resource.api_version, "kind": resource.kind}


def filled(**params: str | int | None) -> dict[str, str]:
    return {name: str(value) for name, value in params.items() if value is not None and value != ""}


def decoded(method: str, path: str, payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except msgspec.DecodeError as error:
        raise Unreachable(f"{method} {path}: the answer is not whole: {error}") from error


def items(method: str, path: str, payload: bytes, form: type[T]) -> Sequence[T]:
    """The items of a list, each decoded to the form and no further."""
    try:
        return _list_decoder(form).decode(payload).items
    except msgspec.DecodeError as error:
        raise Unreachable(f"{method} {path}: the answer is not whole: {error}") from error


class _List(msgspec.Struct, Generic[T]):
    items: list[T]


@cache
def _list_decoder(form: type[T]) -> msgspec.json.Decoder[_List[T]]:
    return msgspec.json.Decoder(_List[form])  # type: ignore[valid-type]


def refusal(response: aiohttp.ClientResponse, payload: bytes) -> ApiError:
    try:
        body = msgspec.json.decode(payload)
    except msgspec.DecodeError:
        body = payload
    header = response.headers.get("Retry-After", "")
    return from_response(response.status, body, retry_after=float(header) if header.isdecimal() else None)


def unreachable(method: str, path: str, error: Exception) -> Unreachable:
    _cut_off(error)
    if isinstance(error, TimeoutError):
        return Unreachable(f"{method} {path}: no answer in time")
    return Unreachable(f"{method} {path}: {type(error).__name__}: {error}")


def _cut_off(error: BaseException | None) -> None:
    """Take the frames off what went wrong. Those of aiohttp and asyncio refer back to it, and such a circle, with its
    request, socket and buffers, would stay until Python looks for cycles in what is old, which may be hours later.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
