"""What resources there are: one entry each, built in or made from a CustomResourceDefinition."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from devcluster.plane.problems import Object
from devcluster.plane.store import Key

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")

NAME_AND_NAMESPACE = ("metadata.name", "metadata.namespace")


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column: filled from a JSONPath, or by `cell` for what a path cannot say (READY 1/2)."""

    name: str
    type: str = "string"
    path: str = ""
    priority: int = 0
    description: str = ""
    format: str = ""
    cell: Callable[[Object, datetime], Any] | None = None


@dataclass(frozen=True, slots=True)
class ScalePaths:
    replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    selector: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceType:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    singular: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS  # only "create": answered at once and not stored (access reviews)
    status: bool = False
    scale: ScalePaths | None = None
    columns: tuple[Column, ...] | None = None  # None: NAME and AGE
    fields: tuple[str, ...] = ()  # what a fieldSelector may name beyond metadata.name and metadata.namespace
    schema: Object | None = None  # structural schema; None for built-in kinds, which are not checked
    custom: bool = False
    collection: str = ""  # of the store; events of both groups share one

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def stored_in(self) -> str:
        return self.collection or f"{self.group}/{self.plural}"

    def key(self, namespace: str, name: str) -> Key:
        return Key(self.stored_in, namespace if self.namespaced else "", name)


class Registry:
    def __init__(self, types: Iterable[ResourceType]) -> None:
        self._types = {(rt.group, rt.version, rt.plural): rt for rt in types}
        self._custom: dict[str, list[ResourceType]] = {}

    def find(self, group: str, version: str, plural: str) -> ResourceType | None:
        return self._types.get((group, version, plural))

    def by_collection(self, collection: str) -> ResourceType | None:
        return next((rt for rt in self._types.values() if rt.stored_in == collection), None)

    def all(self) -> list[ResourceType]:
        return list(self._types.values())

    def collections(self) -> list[ResourceType]:
        """One type for each collection of the store."""
        return list({rt.stored_in: rt for rt in reversed(self._types.values())}.values())

    def set_custom(self, definition: str, types: list[ResourceType]) -> None:
        """Replaces what the named CustomResourceDefinition serves; an empty list withdraws it."""
        for rt in self._custom.pop(definition, []):
            del self._types[rt.group, rt.version, rt.plural]
        if types:
            self._custom[definition] = types
            self._types |= {(rt.group, rt.version, rt.plural): rt for rt in types}
