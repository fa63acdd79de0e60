"""After a claim: does what the choice rested on still stand? Live reads, shared by all claims written before them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from allocator.runtime.shared import SharedRead
from allocator.runtime.tasks import both

if TYPE_CHECKING:
    from collections.abc import Iterable

    from allocator.domain.basis import Basis
    from allocator.domain.pool import Edition
    from allocator.ports import Pools, Reservations


class Confirmation:
    def __init__(self, pools: Pools, reservations: Reservations) -> None:
        self._pools = pools
        self._reservations = reservations
        self._pool_editions: dict[str, SharedRead[Edition | None]] = {}
        self._reservation_editions = SharedRead(reservations.editions)

    async def changed(self, names: Iterable[str], basis: Basis) -> str:
        """What is no longer as the plan saw it, or nothing: the pools of these names, and all reservations (I2).

        The controller scans a pool's records after it has seen a new generation of the pool. So either this read sees
        the change, or that scan sees the claim.
        """
        name, reservations = await both(self.changed_pool(names, basis), self._changed_reservations(basis))
        return f"SpiderIPPool {name}" if name else reservations

    async def _changed_reservations(self, basis: Basis) -> str:
        if await self._reservation_editions.after_now() != {(each.name, each.edition) for each in basis.reservations}:
            await self._reservations.reread()
            return "the SpiderReservedIPs"
        return ""

    async def changed_pool(self, names: Iterable[str], basis: Basis) -> str:
        """The first of the pools that is no longer as the plan saw it, or nothing. It is read again for the next."""
        for name in sorted(set(names)):
            read = self._pool_editions.setdefault(name, SharedRead(partial(self._pools.edition, name)))
            if await read.after_now() != basis.pools[name].edition:
                await self._pools.reread(name)
                return name
        self._keep_only(basis)
        return ""

    def _keep_only(self, basis: Basis) -> None:
        if len(self._pool_editions) > len(basis.pools):
            self._pool_editions = {name: read for name, read in self._pool_editions.items() if name in basis.pools}
