"""Which pools overlap, kept while pools come, change and go. The webhook lets none in, but it may have been away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.domain.overlapping import overlaps
from allocator.kube.codec import Malformed, decode_pool, is_unadopted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from allocator.domain.overlapping import Overlap
    from allocator.domain.pool import Pool
    from allocator.domain.record import Record
    from allocator.kube.resources import Object


class Overlaps:
    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, int, bool]] = {}
        self._pools: dict[str, Pool] = {}
        self._overlaps: Mapping[str, Overlap] = {}
        self._stale = False

    def note(self, name: str, raw: Object | None) -> None:
        """The pool as it is now; None when it is gone. A change of its counts or labels costs nothing."""
        if raw is None:
            self._stale |= self._seen.pop(name, None) is not None
            self._pools.pop(name, None)
            return
        seen = (raw["metadata"]["uid"], int(raw["metadata"].get("generation", 0)), is_unadopted(raw))
        if self._seen.get(name) == seen:
            return
        self._seen[name] = seen
        self._stale = True
        try:
            self._pools[name] = decode_pool(raw)
        except Malformed:
            # It has nothing; the projection tells of it.
            self._pools.pop(name, None)

    def of(self, name: str) -> Overlap | None:
        return self._overlaps.get(name)

    def counting(self, record: Record) -> Iterator[str]:
        """The pools whose counts the record enters: its own, and those that offer its address as well."""
        yield record.pool
        own, overlap = self._pools.get(record.pool), self._overlaps.get(record.pool)
        if own is None or record.address not in own.ips:
            # Held through a pool that offers it no longer, cannot be read or is gone: any may offer it now.
            yield from (name for name, pool in self._pools.items() if record.address in pool.ips)
        elif overlap is not None:
            yield from (*overlap.earlier, *overlap.later)

    def bring_up_to_date(self) -> frozenset[str]:
        """The pools for which it is not as it was when this was last called."""
        if not self._stale:
            return frozenset()
        before, self._overlaps = self._overlaps, overlaps(self._pools.values())
        self._stale = False
        names = before.keys() | self._overlaps.keys()
        return frozenset(name for name in names if before.get(name) != self._overlaps.get(name))
