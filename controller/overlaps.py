"""Which pools overlap, kept while pools come, change and go. The webhook lets none in, but it may have been away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.domain.overlap import extent_of
from allocator.domain.overlapping import overlapping

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from allocator.domain.overlap import Extent
    from allocator.kube.resources import Object


class Overlaps:
    def __init__(self) -> None:
        self._editions: dict[str, tuple[str, int]] = {}
        self._extents: dict[str, Extent] = {}
        self._others: Mapping[str, Sequence[str]] = {}
        self._stale = False

    def note(self, name: str, raw: Object | None) -> None:
        """The pool as it is now; None when it is gone. A change of its status or labels costs nothing."""
        if raw is None:
            self._stale |= self._editions.pop(name, None) is not None
            self._extents.pop(name, None)
            return
        edition = (raw["metadata"]["uid"], int(raw["metadata"].get("generation", 0)))
        if self._editions.get(name) == edition:
            return
        self._editions[name] = edition
        self._stale = True
        extent = extent_of(raw)
        if extent is None:
            self._extents.pop(name, None)
        else:
            self._extents[name] = extent

    def of(self, name: str) -> Sequence[str]:
        return self._others.get(name, ())

    def bring_up_to_date(self) -> frozenset[str]:
        """The pools for which it is not as it was when this was last called."""
        if not self._stale:
            return frozenset()
        before, self._others = self._others, overlapping(self._extents.values())
        self._stale = False
        names = before.keys() | self._others.keys()
        return frozenset(name for name in names if before.get(name, ()) != self._others.get(name, ()))
