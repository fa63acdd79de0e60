"""The API server of the simulation: the embedded plane's store and verbs, without sockets, schemas or webhooks.

A request is answered in one go, at the moment it arrives. What lies between server and clients is network.py's.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml

from devcluster.plane import crds, listing, patches, views, watching
from devcluster.plane.api import Api, Call, Replacement
from devcluster.plane.builtins import BUILTINS
from devcluster.plane.problems import Object, Problem, success
from devcluster.plane.registry import Registry
from devcluster.plane.request import Target, parse_path
from devcluster.plane.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from devcluster.plane.registry import ResourceType
    from devcluster.plane.store import Event
    from tests.simulation.loop import VirtualClock

_CRDS: Final = Path(__file__).parents[2] / "manifests" / "crds"
_WORKLOADS: Final = ("deployments", "statefulsets", "daemonsets", "replicasets", "jobs", "cronjobs")
_SERVED: Final = frozenset(("pods", "namespaces", "nodes", "leases", "events", "configmaps", *_WORKLOADS))
# Nobody reads the warnings.
_SILENT: Final = Call(field_validation="Ignore")


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    as_metadata: bool = False
    content_type: str = ""
    body: Any = None

    @property
    def is_watch(self) -> bool:
        return "watch" in self.query

    @property
    def is_dry_run(self) -> bool:
        return "dryRun" in self.query

    @property
    def is_write(self) -> bool:
        return self.method != "GET" and not self.is_dry_run

    def __str__(self) -> str:
        query = ",".join(f"{key}={value}" for key, value in self.query.items() if key.endswith("Selector"))
        return f"{'WATCH' if self.is_watch else self.method} {self.path}{f'?{query}' if query else ''}"


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    payload: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Feed(watching.Watch):
    """A watch that hands each event on when it happens, instead of keeping it for whoever asks."""

    def __init__(self, store: Store, target: Target, request: Request, deliver: Callable[[str, Object], None]) -> None:
        self._deliver = deliver
        self._view = views.View(target.rt, "metadata" if request.as_metadata else "object")
        super().__init__(store, target.rt, target.namespace, request.query, target.name)

    def begin(self) -> None:
        for kind, obj in self._first:
            self._deliver(kind, obj if kind == "ERROR" else self._shown(obj))

    def bookmark(self) -> None:
        self._deliver("BOOKMARK", self._bookmark(self._store.revision))

    def _notice(self, event: Event) -> None:
        if event.key.collection == self._rt.stored_in and (seen := self._seen(event)) is not None:
            self._deliver(seen[0], self._shown(seen[1]))

    def _shown(self, obj: Object) -> Object:
        return views.metadata_of(obj) if self._view.form == "metadata" else views.from_storage(self._rt, obj)


@functools.cache
def _types() -> tuple[ResourceType, ...]:
    """Custom kinds as the manifests have them, but for schemas and CEL: those cost more time than all the rest, and
    other tests hold us to them.
    """
    found = [rt for rt in BUILTINS if rt.plural in _SERVED]
    for file in sorted(_CRDS.glob("*.yaml")):
        for definition in yaml.load_all(file.read_text(), Loader=yaml.CSafeLoader):
            if definition and definition["kind"] == "CustomResourceDefinition":
                crds.fill(definition, "")
                found += [replace(rt, schema=None) for rt in crds.resource_types(definition)]
    return tuple(found)


class ApiServer:
    def __init__(self, clock: VirtualClock, new_uid: Callable[[], str]) -> None:
        self.store = Store()
        self.registry = Registry(_types())
        self.clock = clock
        self._touches = 0
        self.api = Api(self.store, self.registry, clock=clock.now, new_uid=new_uid)
        self.target = functools.lru_cache(maxsize=2000)(functools.partial(parse_path, registry=self.registry))

    def answer(self, request: Request, *, leaving_out: Callable[[list[Object]], list[Object]] | None = None) -> Reply:
        """The answer to anything but a watch. `leaving_out` makes a list partial."""
        target = self.target(request.path)
        if target is None:
            return Reply(404, b"404 page not found")
        try:
            if request.method == "GET":
                return Reply(200, msgspec.json.encode(self._read(request, target, leaving_out)))
            return Reply(200, msgspec.json.encode(finished(self._write(request, target))))
        except Problem as problem:
            return Reply(problem.code, msgspec.json.encode(problem.status()))

    def touch(self, request: Request) -> None:
        """Somebody annotates the object that the request is about: its resourceVersion moves on."""
        target = self.target(request.path)
        if target is None or self.store.get(target.rt.key(target.namespace, target.name)) is None:
            return
        self._touches += 1
        body = {"metadata": {"annotations": {"example.com/touched": str(self._touches)}}}
        finished(
            self.api.update(
                target.rt,
                target.namespace,
                target.name,
                lambda obj: patches.apply_patch(patches.MERGE, obj, body),
                _SILENT,
            )
        )

    def _read(
        self, request: Request, target: Target, leaving_out: Callable[[list[Object]], list[Object]] | None
    ) -> Object:
        view, now = views.View(target.rt, "metadata" if request.as_metadata else "object"), self.clock.now()
        if target.name:
            return view.one(self.api.get(target.rt, target.namespace, target.name), now)
        page = listing.list_page(self.store, target.rt, target.namespace, request.query)
        objects = leaving_out(page.objects) if leaving_out is not None else page.objects
        return view.many(objects, now, page.metadata)

    async def _write(self, request: Request, target: Target) -> Object:
        rt, namespace, name, body = target.rt, target.namespace, target.name, request.body
        asked = replace(_SILENT, dry_run=request.is_dry_run)
        match request.method:
            case "POST":
                written = await self.api.create(rt, namespace, body, asked)
            case "PUT":
                written = await self.api.update(
                    rt, namespace, name, Replacement(body), asked, subresource=target.subresource
                )
            case "PATCH":
                written = await self.api.update(
                    rt,
                    namespace,
                    name,
                    lambda obj: patches.apply_patch(request.content_type, obj, body),
                    asked,
                    subresource=target.subresource,
                )
            case _:
                written, is_gone = await self.api.delete(rt, namespace, name, body or {}, asked)
                if is_gone:
                    return success(rt, name, written["metadata"]["uid"])
        return views.from_storage(rt, written)


def finished(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("without admission no verb waits")
