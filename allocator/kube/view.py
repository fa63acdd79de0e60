"""What a cache shows: the watch's story, merged with what this process itself just wrote.

No I/O and no time of its own. Versions (resourceVersion) are compared for equality only, so whether a version is
older than another is known from where it came: events come in order, and a list shows everything that was written
before it began.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from allocator.kube.resources import Object

K = TypeVar("K")
Key = tuple[str, str]  # namespace ("" when cluster-scoped), name

# A write's answer may come this much later than the watch event of it: more than any call's deadline.
LATE_ANSWER_S = 60.0
# A note that a living watch has not confirmed for so long was overtaken before it was made.
DOUBT_AFTER_S = 30.0


@dataclass(frozen=True, slots=True)
class Change:
    """`old` is None when added, `new` is None when deleted. Neither may be edited: they are the cache's own."""

    kind: Literal["added", "modified", "deleted"]
    old: Object | None
    new: Object | None


@dataclass(slots=True)
class _Note:
    """A write of ours that the watch has not shown yet; `shown` is what it showed last instead."""

    version: str
    uid: str
    turn: int
    at: float
    shown: Object | None


class View:
    """`now` is monotonic seconds, and `turn` (from `begin_list`) tells lists from notes that came before them.

    `selects`: not all objects are shown, so that one whose end the watch has shown may have left the selection only. It
    comes back under the same uid.
    """

    def __init__(self, on_change: Callable[[Change], None], *, selects: bool = False) -> None:
        self.objects: dict[Key, Object] = {}
        self._on_change = on_change
        self._selects = selects
        self._notes: dict[Key, _Note] = {}
        self._buried: dict[str, int] = {}  # uid -> turn of note_deleted
        self._turn = 0
        # What the watch showed lately, oldest first: a note of one of these comes too late to tell anything.
        self._seen: dict[tuple[Key, str], float] = {}
        self._ended: dict[str, float] = {}

    def note(self, obj: Object, now: float) -> None:
        key, version, uid = key_of(obj), version_of(obj), uid_of(obj)
        self._forget(now)
        current = self.objects.get(key)
        if self._selects and (key, version) not in self._seen:
            # Whatever was written before the end was shown before it: this was written since.
            self._ended.pop(uid, None)
        if (key, version) in self._seen or uid in self._ended or uid in self._buried:
            return
        if current is not None and version_of(current) == version:
            return
        earlier = self._notes.get(key)
        shown = earlier.shown if earlier is not None else current
        self._notes[key] = _Note(version, uid, self._turn, now, shown)
        self._put(key, obj)

    def note_deleted(self, key: Key, uid: str, now: float) -> None:
        self._forget(now)
        if uid not in self._ended:
            self._buried[uid] = self._turn
        note = self._notes.get(key)
        if note is not None and note.uid == uid:
            del self._notes[key]
        elif note is not None and note.shown is not None and uid_of(note.shown) == uid:
            note.shown = None
        self._drop(key, uid)

    def show(self, kind: str, obj: Object, now: float) -> None:
        """An ADDED, MODIFIED or DELETED event of the watch."""
        key, version, uid = key_of(obj), version_of(obj), uid_of(obj)
        deleted = kind == "DELETED"
        self._forget(now)
        _set_last(self._seen, (key, version), now)
        if deleted:
            _set_last(self._ended, uid, now)
            if (current := self.objects.get(key)) is not None:
                # A list may have shown it: the answer to the write that made it is as late as one that was watched.
                _set_last(self._seen, (key, version_of(current)), now)
        elif self._selects:
            self._ended.pop(uid, None)
        if uid in self._buried:
            # Its end, or that it left the selection before it came back and we deleted it: `_forget` tells.
            if deleted and not self._selects:
                del self._buried[uid]
            return
        note = self._notes.get(key)
        if note is not None and version != note.version and not (deleted and uid == note.uid):
            # older than the note, or it overtook the note: `settle` finds out
            if not deleted:
                note.shown = obj
            elif note.shown is not None and uid_of(note.shown) == uid:
                note.shown = None
            return
        self._notes.pop(key, None)
        if deleted:
            self._drop(key, uid)
        else:
            self._put(key, obj)

    def begin_list(self) -> int:
        """To call before a list is sent; the result goes to `replace_all`."""
        self._turn += 1
        return self._turn

    def replace_all(self, items: Iterable[Object], turn: int) -> None:
        """The list begun at `turn`: it wins over notes made before it, and loses to notes made since."""
        self._buried = {uid: buried for uid, buried in self._buried.items() if buried >= turn}
        listed = {key_of(item): item for item in items if uid_of(item) not in self._buried}
        for key, note in list(self._notes.items()):
            found = listed.get(key)
            if note.turn < turn or (found is not None and version_of(found) == note.version):
                del self._notes[key]
            else:
                note.shown = found
                listed[key] = self.objects[key]
        for key in self.objects.keys() - listed.keys():
            self._put(key, None)
        for key, item in listed.items():
            self._put(key, item)

    def settle(self, now: float) -> None:
        """The watch has just proven that it is up to date (a bookmark, or its end): a note that it still has not
        shown was overtaken by another write before we made it, and what the watch showed last is right.
        """
        for key, note in list(self._notes.items()):
            if now - note.at > DOUBT_AFTER_S:
                del self._notes[key]
                self._put(key, note.shown)

    def _drop(self, key: Key, uid: str) -> None:
        current = self.objects.get(key)
        # The end of an object is not the end of a later one of the same name.
        if current is not None and uid_of(current) == uid:
            self._put(key, None)

    def _put(self, key: Key, new: Object | None) -> None:
        old = self.objects.get(key)
        if new is None:
            if old is not None:
                del self.objects[key]
                self._on_change(Change("deleted", old, None))
            return
        if old is not None and uid_of(old) == uid_of(new) and version_of(old) == version_of(new):
            return
        self.objects[key] = new
        if old is None:
            self._on_change(Change("added", None, new))
        elif uid_of(old) == uid_of(new):
            self._on_change(Change("modified", old, new))
        else:
            self._on_change(Change("deleted", old, None))
            self._on_change(Change("added", None, new))

    def _forget(self, now: float) -> None:
        _drop_older(self._seen, now - LATE_ANSWER_S)
        for uid in _drop_older(self._ended, now - LATE_ANSWER_S):
            self._buried.pop(uid, None)


def key_of(obj: Object) -> Key:
    meta = obj["metadata"]
    return (meta.get("namespace") or "", meta["name"])


def uid_of(obj: Object) -> str:
    return str(obj["metadata"].get("uid", ""))


def version_of(obj: Object) -> str:
    return str(obj["metadata"].get("resourceVersion", ""))


def _set_last(times: dict[K, float], key: K, now: float) -> None:
    """Behind all others, wherever it was: an early place with a late time would keep the rest from being dropped."""
    times.pop(key, None)
    times[key] = now


def _drop_older(times: dict[K, float], limit: float) -> list[K]:
    """The keys that it dropped."""
    dropped: list[K] = []
    while times:
        oldest = next(iter(times))
        if times[oldest] >= limit:
            break
        del times[oldest]
        dropped.append(oldest)
    return dropped
