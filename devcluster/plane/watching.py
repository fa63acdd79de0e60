"""Watch requests: the events of one collection as a stream of JSON lines, with bookmarks, until a timeout."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime

from devcluster.plane import listing, problems
from devcluster.plane.problems import FieldProblem, Object
from devcluster.plane.registry import ResourceType
from devcluster.plane.request import flag
from devcluster.plane.store import Event, Store, TooOld
from devcluster.plane.views import View

BOOKMARK_S = 60.0  # between two bookmarks, as kube-apiserver
_LAST_BOOKMARK_S = 2.0  # before the end of the watch comes one more
_QUEUE_LIMIT = 20_000  # events; a client that is further behind is cut off and lists again


class Watch:
    def __init__(self, store: Store, rt: ResourceType, namespace: str, query: Mapping[str, str], name: str) -> None:
        """Subscribes at once, so that nothing is lost between the first events and the live ones. Close it."""
        self._rt = rt
        self._store = store
        self._namespace = namespace
        self._match = listing.matcher(rt, query, name=name)
        self._bookmarks = flag(query, "allowWatchBookmarks")
        self._initial = flag(query, "sendInitialEvents")
        if self._initial and query.get("resourceVersionMatch") != "NotOlderThan":
            why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            cause = FieldProblem("FieldValueForbidden", "resourceVersionMatch", f"Forbidden: {why}")
            raise listing.wrong_options([cause])
        self._from = listing.parse_version(query.get("resourceVersion", "")) or 0
        wanted = query.get("timeoutSeconds", "")
        self._timeout_s = float(wanted) if wanted.isdigit() and int(wanted) else random.uniform(1800, 3600)  # noqa: S311
        self._live: asyncio.Queue[Event] = asyncio.Queue()
        self._start = store.revision
        self._first = self._read_first()
        self.close = store.subscribe(self._notice)

    def _notice(self, event: Event) -> None:
        if event.key.collection == self._rt.stored_in and self._live.qsize() <= _QUEUE_LIMIT:
            self._live.put_nowait(event)

    def _seen(self, event: Event) -> tuple[str, Object] | None:
        """The event as it looks through the namespace and the selectors; None when it is not visible there."""
        if self._namespace and event.key.namespace != self._namespace:
            return None
        if self._match is None:
            return event.kind, event.new
        before = event.old is not None and self._match(event.old)
        after = event.kind != "DELETED" and self._match(event.new)
        if before and after:
            return "MODIFIED", event.new
        if after:
            return "ADDED", event.new
        if not before:
            return None
        assert event.old is not None  # noqa: S101 -- `before` says so
        # The state that last matched, at the version of the event that ended it.
        version = {"resourceVersion": event.new["metadata"]["resourceVersion"]}
        return "DELETED", event.old | {"metadata": event.old["metadata"] | version}

    def _read_first(self) -> list[tuple[str, Object]]:
        """The present state for a watch without a version, else what has happened since, or why that is not known."""
        if self._from > self._start:
            return [("ERROR", problems.too_new(self._from, self._start).status())]
        if self._from == 0 or self._initial:
            found = [obj for _, obj in self._store.items(self._rt.stored_in, namespace=self._namespace)]
            return [("ADDED", obj) for obj in found if self._match is None or self._match(obj)]
        try:
            events = self._store.since(self._rt.stored_in, self._from)
        except TooOld as error:
            return [("ERROR", problems.expired(self._from, error.oldest).status())]
        return [seen for event in events if (seen := self._seen(event))]

    async def events(self) -> AsyncIterator[tuple[str, Object]]:
        """Pairs of type and stored object (for BOOKMARK: only its version); ERROR carries a Status and is the last."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        for seen in self._first:
            yield seen
            if seen[0] == "ERROR":
                return
        if self._initial:
            yield "BOOKMARK", self._bookmark(self._start, {"k8s.io/initial-events-end": "true"})
        last_bookmark = deadline - _LAST_BOOKMARK_S
        next_bookmark = min(loop.time() + BOOKMARK_S, max(last_bookmark, loop.time()))
        while (now := loop.time()) < deadline and self._live.qsize() <= _QUEUE_LIMIT:
            try:
                async with asyncio.timeout(min(deadline, next_bookmark) - now):
                    event = await self._live.get()
            except TimeoutError:
                now = loop.time()
                next_bookmark = min(now + BOOKMARK_S, last_bookmark if now < last_bookmark else deadline)
                if self._bookmarks and now < deadline and self._live.empty():
                    yield "BOOKMARK", self._bookmark(self._store.revision)
                continue
            if seen_now := self._seen(event):
                yield seen_now

    def _bookmark(self, revision: int, annotations: Mapping[str, str] | None = None) -> Object:
        metadata: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = dict(annotations)
        return {"kind": self._rt.kind, "apiVersion": self._rt.api_version, "metadata": metadata}


def shown(view: View, clock: Callable[[], datetime]) -> Callable[[str, Object], Object]:
    """Turns a pair of `Watch.events` into the JSON of one line."""
    described = False

    def show(kind: str, obj: Object) -> Object:
        nonlocal described
        if kind == "ERROR":
            return {"type": kind, "object": obj}
        if view.form == "table" and kind == "BOOKMARK":
            rows = [{"cells": [], "object": obj}]
            table = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
            return {"type": kind, "object": table | {"columnDefinitions": None, "rows": rows}}
        if kind == "BOOKMARK" and view.form == "metadata":
            obj = obj | {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
            return {"type": kind, "object": obj}
        out = obj if kind == "BOOKMARK" else view.one(obj, clock())
        if view.form == "table":
            if described:  # the columns are told once a stream
                out["columnDefinitions"] = None
            described = True
        return {"type": kind, "object": out}

    return show
