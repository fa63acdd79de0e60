"""The pools and reservations that a plan is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.domain.pool import reserved_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from allocator.domain.addresses import IntervalSet, Version
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

    def usable(self, pool: Pool) -> IntervalSet:
        """What the pool may hand out, taken or not (invariant I2). The same object for the same pool."""
        if pool.name not in self._usable:
            if pool.version not in self._reserved:
                self._reserved[pool.version] = reserved_of(pool.version, self.reservations)
            usable = pool.usable(self._reserved[pool.version])
            self._usable[pool.name] = usable if self._limit is None else usable.head(self._limit)
        return self._usable[pool.name]

    def is_of(self, pools: Mapping[str, Pool], reservations: Sequence[Reservation]) -> bool:
        """Whether this is still the newest: neither has been read again since."""
        return self.pools is pools and self.reservations is reservations
