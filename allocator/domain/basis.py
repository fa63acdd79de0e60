"""The pools and reservations that a plan is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.domain.overlapping import overlaps, usable
from allocator.domain.pool import reserved_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from allocator.domain.addresses import IntervalSet, Version
    from allocator.domain.overlapping import Overlap
    from allocator.domain.pool import Pool, Reservation


class Basis:
    """As they were read at one moment; what a pool may hand out is worked out once, however many plans ask.

    `limit` caps each pool: only its first so many addresses are handed out (None: all). A window and not a count, so
    that agents need not agree on one.
    """

    def __init__(
        self, pools: Mapping[str, Pool], reservations: Sequence[Reservation], *, limit: int | None = None
    ) -> None:
        self.pools = pools
        self.reservations = reservations
        self._limit = limit
        self._reserved: dict[Version, IntervalSet] = {}
        self._usable: dict[str, IntervalSet] = {}
        self._overlaps: Mapping[str, Overlap] | None = None

    def usable(self, pool: Pool) -> IntervalSet:
        """What the pool may hand out, taken or not. The same object for the same pool."""
        if pool.name not in self._usable:
            if pool.version not in self._reserved:
                self._reserved[pool.version] = reserved_of(pool.version, self.reservations)
            found = usable(pool, self._reserved[pool.version], self.overlap(pool))
            self._usable[pool.name] = found if self._limit is None else found.head(self._limit)
        return self._usable[pool.name]

    def overlap(self, pool: Pool) -> Overlap | None:
        """None when the pool overlaps no other."""
        if self._overlaps is None:
            self._overlaps = overlaps(self.pools.values())
        return self._overlaps.get(pool.name)

    def is_of(self, pools: Mapping[str, Pool], reservations: Sequence[Reservation]) -> bool:
        """Whether this is still the newest: neither has been read again since."""
        return self.pools is pools and self.reservations is reservations
