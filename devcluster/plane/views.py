"""The forms in which one object can be asked for: another version, metadata only, a row of a Table."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from devcluster.plane import columns, paths
from devcluster.plane.problems import Object
from devcluster.plane.registry import Column, ResourceType

Form = Literal["object", "metadata", "table"]

# events.k8s.io/v1 and v1 are two faces of one object; stored is that of v1.
_EVENT_NAMES = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedCount": "count",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
}


def to_storage(rt: ResourceType, obj: Object) -> Object:
    if rt.group != "events.k8s.io":
        return obj
    return {_EVENT_NAMES.get(key, key): value for key, value in obj.items()} | {"apiVersion": "v1"}


def from_storage(rt: ResourceType, obj: Object) -> Object:
    if rt.group == "events.k8s.io":
        names = {new: old for old, new in _EVENT_NAMES.items()}
        return {names.get(key, key): value for key, value in obj.items()} | {"apiVersion": rt.api_version}
    return obj if obj.get("apiVersion") == rt.api_version else obj | {"apiVersion": rt.api_version}


def metadata_of(obj: Object) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _as_number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _cell(column: Column, obj: Object, now: datetime) -> Any:
    if column.cell:
        return column.cell(obj, now)
    value = next(iter(paths.find(obj, column.path)), None)
    if value is None:
        return None
    number = _as_number(value)
    cells = {
        "date": columns.age(value, now),
        "integer": None if number is None else int(number),
        "number": number,
        "boolean": value if isinstance(value, bool) else None,
        "string": paths.text(value),
    }
    return cells.get(column.type)


@dataclass(frozen=True, slots=True)
class View:
    """How the client wants objects. `include` says what a Table row carries beside its cells."""

    rt: ResourceType
    form: Form = "object"
    include: str = "Metadata"

    def _columns(self) -> tuple[Column, ...]:
        given = self.rt.columns
        if given is None:
            return (columns.NAME, columns.AGE)
        return (columns.NAME, *given) if self.rt.custom else given

    def one(self, obj: Object, now: datetime) -> Object:
        if self.form == "table":
            return self.table([obj], now, {"resourceVersion": obj["metadata"].get("resourceVersion", "")})
        return metadata_of(obj) if self.form == "metadata" else from_storage(self.rt, obj)

    def many(self, objects: Iterable[Object], now: datetime, metadata: Object) -> Object:
        if self.form == "table":
            return self.table(objects, now, metadata)
        if self.form == "metadata":
            kind = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            return kind | {"metadata": metadata, "items": [metadata_of(obj) for obj in objects]}
        items = [from_storage(self.rt, obj) for obj in objects]
        if not self.rt.custom:  # typed lists of the real server leave them out of their items
            items = [{key: item[key] for key in item if key not in {"apiVersion", "kind"}} for item in items]
        kind = {"kind": self.rt.list_kind or f"{self.rt.kind}List", "apiVersion": self.rt.api_version}
        return kind | {"metadata": metadata, "items": items}

    def table(self, objects: Iterable[Object], now: datetime, metadata: Object) -> Object:
        shown = self._columns()
        definitions = [
            {"name": c.name, "type": c.type, "format": c.format, "description": c.description, "priority": c.priority}
            for c in shown
        ]
        rows = [{"cells": [_cell(c, obj, now) for c in shown], **self._included(obj)} for obj in objects]
        kind = {"kind": "Table", "apiVersion": "meta.k8s.io/v1"}
        return kind | {"metadata": metadata, "columnDefinitions": definitions, "rows": rows}

    def _included(self, obj: Object) -> Object:
        match self.include:
            case "None":
                return {}
            case "Object":
                return {"object": from_storage(self.rt, obj)}
            case _:
                return {"object": metadata_of(obj)}
