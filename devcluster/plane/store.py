"""The versioned store: one counter for all writes, compare-and-swap, and a history for watches and old lists.

Pure: no I/O, no clock, no tasks. Whoever needs time or uids puts them into the objects first, so that a simulation can
run the same store under its own clock. An object in the store is never changed in place: a writer hands over a new
dict and gives up its reference, a reader copies before it edits.
"""

import bisect
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from devcluster.plane.problems import Object

Kind = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """`collection` is `group/plural`; `namespace` is empty for what lives in none."""

    collection: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Event:
    """`old` is None for ADDED; for DELETED `new` is the last state, carrying the revision of the deletion."""

    revision: int
    kind: Kind
    key: Key
    old: Object | None
    new: Object


class KeyExists(Exception):
    pass


class KeyMissing(Exception):
    pass


class Stale(Exception):
    """The revision that the writer has seen is not the current one."""


class TooOld(Exception):
    def __init__(self, oldest: int) -> None:
        super().__init__(oldest)
        self.oldest = oldest


class Store:
    def __init__(self, *, history: int = 20_000) -> None:
        """`history` events are kept; a watch or list from before them raises TooOld."""
        self.revision = 1
        self._objects: dict[str, dict[Key, Object]] = {}
        self._order: dict[str, list[Key]] = {}
        self._history: deque[Event] = deque(maxlen=history)
        self._forgotten = 1
        self._listeners: list[Callable[[Event], None]] = []

    def get(self, key: Key) -> Object | None:
        return self._objects.get(key.collection, {}).get(key)

    def create(self, key: Key, obj: Object) -> Object:
        objects = self._objects.setdefault(key.collection, {})
        if key in objects:
            raise KeyExists
        objects[key] = self._stamped(obj)
        bisect.insort(self._order.setdefault(key.collection, []), key)
        return self._commit("ADDED", key, None, obj)

    def replace(self, key: Key, obj: Object, *, seen: str) -> Object:
        """`seen` is the resourceVersion of the state that `obj` was made from."""
        old = self._current(key, seen)
        self._objects[key.collection][key] = self._stamped(obj)
        return self._commit("MODIFIED", key, old, obj)

    def delete(self, key: Key, *, seen: str) -> Object:
        old = self._current(key, seen)
        del self._objects[key.collection][key]
        order = self._order[key.collection]
        del order[bisect.bisect_left(order, key)]
        return self._commit("DELETED", key, old, self._stamped(old | {"metadata": dict(old["metadata"])}))

    def items(self, collection: str, *, namespace: str = "", at: int | None = None) -> list[tuple[Key, Object]]:
        """In the order of (namespace, name). `at` gives the state of an earlier revision, or raises TooOld."""
        objects = self._objects.get(collection, {})
        if at is None or at == self.revision:
            keys = self._order.get(collection, [])
            return [(key, objects[key]) for key in keys if not namespace or key.namespace == namespace]
        if at < self._forgotten:
            raise TooOld(self._forgotten)
        past = dict(objects)
        for event in reversed(self._history):
            if event.revision <= at:
                break
            if event.key.collection != collection:
                continue
            if event.old is None:
                past.pop(event.key, None)
            else:
                past[event.key] = event.old
        return [(key, past[key]) for key in sorted(past) if not namespace or key.namespace == namespace]

    def everything(self) -> Iterator[tuple[Key, Object]]:
        for objects in list(self._objects.values()):
            yield from list(objects.items())

    def since(self, collection: str, revision: int) -> list[Event]:
        """Events of the collection after `revision`, oldest first; TooOld when some of them are forgotten."""
        if revision < self._forgotten:
            raise TooOld(self._forgotten)
        found: list[Event] = []
        for event in reversed(self._history):
            if event.revision <= revision:
                break
            if event.key.collection == collection:
                found.append(event)
        return found[::-1]

    def restore(self, revision: int, objects: Mapping[Key, Object]) -> None:
        """Fills an empty store with what stood at `revision`. Listeners see it added; history begins afterwards."""
        self.revision = revision
        for key, obj in sorted(objects.items()):
            self._objects.setdefault(key.collection, {})[key] = obj
            self._order.setdefault(key.collection, []).append(key)
            for listener in list(self._listeners):
                listener(Event(revision, "ADDED", key, None, obj))
        self.compact()

    def compact(self) -> None:
        """Forgets the whole history, as a real server does every few minutes; tests use it to meet 410."""
        self._history.clear()
        self._forgotten = self.revision

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Calls `listener` within each write, in order; the returned function ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _current(self, key: Key, seen: str) -> Object:
        old = self.get(key)
        if old is None:
            raise KeyMissing
        if old["metadata"]["resourceVersion"] != seen:
            raise Stale
        return old

    def _stamped(self, obj: Object) -> Object:
        obj["metadata"]["resourceVersion"] = str(self.revision + 1)
        return obj

    def _commit(self, kind: Kind, key: Key, old: Object | None, new: Object) -> Object:
        self.revision += 1
        if len(self._history) == self._history.maxlen:
            self._forgotten = self._history[0].revision
        event = Event(self.revision, kind, key, old, new)
        self._history.append(event)
        for listener in list(self._listeners):
            listener(event)
        return new
