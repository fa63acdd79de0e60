"""The store on disk, so that an embedded plane that was killed goes on where it was.

A file of JSON lines `[revision, collection, namespace, name, object]`, the object null for a deletion. Each line is
written within the write that it tells of, before anybody hears of it. It is not flushed to the disk: it survives the
death of the process, not that of the machine, as envtest's etcd does.

History is not kept: as with a kube-apiserver that starts anew, a watch from before has to list again.
"""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from devcluster.plane.problems import Object
from devcluster.plane.store import Event, Key, Store

# Lines after which the file is begun anew with what stands: a cluster in steady use writes the same few objects.
LINES_LIMIT = 20_000


class Journal:
    """One process writes it at a time. `restore`, then `follow`."""

    def __init__(self, directory: Path, *, lines_limit: int = LINES_LIMIT) -> None:
        self._path = directory / "journal"
        self._lines_limit = lines_limit
        self._descriptor = -1
        self._lines = 0

    def restore(self, store: Store) -> None:
        """What the file tells, into an empty store. A last line that is cut off was never answered, and counts not."""
        revision, objects = 1, dict[Key, Object]()
        for line in self._path.read_bytes().split(b"\n")[:-1] if self._path.exists() else []:
            revision, collection, namespace, name, obj = msgspec.json.decode(line)
            key = Key(collection, namespace, name)
            if obj is None:
                objects.pop(key, None)
            else:
                objects[key] = obj
        store.restore(revision, objects)

    def follow(self, store: Store) -> Callable[[], None]:
        """Write down what stands and every event from now on; the returned function ends that."""
        self._begin(store)

        def note(event: Event) -> None:
            self._append(_line(event.revision, event.key, None if event.kind == "DELETED" else event.new))
            self._lines += 1
            if self._lines >= self._lines_limit:
                self._begin(store)

        unsubscribe = store.subscribe(note)

        def end() -> None:
            unsubscribe()
            os.close(self._descriptor)

        return end

    def _begin(self, store: Store) -> None:
        """A file of what stands, in place of the old one in a single step."""
        draft = self._path.with_name("journal.new")
        # With the store's revision, not the object's own: the last write may have been a deletion.
        lines = [_line(store.revision, key, obj) for key, obj in store.everything()]
        draft.write_bytes(b"".join(lines))
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = os.open(draft, os.O_WRONLY | os.O_APPEND)
        draft.replace(self._path)
        self._lines = 0

    def _append(self, line: bytes) -> None:
        while line:
            line = line[os.write(self._descriptor, line) :]


def _line(revision: int, key: Key, obj: Object | None) -> bytes:
    return msgspec.json.encode([revision, key.collection, key.namespace, key.name, obj]) + b"\n"
