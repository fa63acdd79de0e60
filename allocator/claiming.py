"""Choosing and claiming an address of one pool, on one agent.

No agent watches all addresses. This one remembers what it saw taken and walks the pool's usable addresses from a place
of its own; that an object exists already is how it learns of others. Only after two such misses in a row, or when
nothing seems free, it lists the pool's objects and starts again from the truth. So a claim costs one write in a pool
that has room, whatever the pool's size, and the API server alone decides who holds an address (KEP-1880).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.domain.addresses import IntervalSet, to_address
from allocator.domain.record import State, claimed, reclaimed
from allocator.runtime.shared import SharedRead

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence
    from datetime import datetime

    from allocator.domain.addresses import Address
    from allocator.domain.pool import Pool
    from allocator.domain.record import Holder, Record, Slot
    from allocator.ports import Ledger
    from allocator.runtime.clock import Clock

# Two misses may be bad luck; more mean that the memory is out of date, and a list costs less than guessing on.
MISSES_BEFORE_LIST: Final = 2
# Claims that fail together in one pool share a list; the next is begun this much later at the earliest.
LIST_SPACING_S: Final = 0.2
# A pool that a list showed to be exhausted is not asked again for so long: pods that wait retry all the time.
EXHAUSTED_S: Final = 1.0
# How long an address that was found taken through another (overlapping) pool is left alone.
FOREIGN_S: Final = 30.0
# Cut-off claims to remember; their pods come back within seconds, or never.
UNKNOWN_REMEMBERED: Final = 1000


class PoolClaims:
    """What one agent remembers of one pool. `node` makes agents start in different places."""

    def __init__(self, pool: Pool, *, node: str, ledger: Ledger, clock: Clock, rng: random.Random) -> None:
        self._pool = pool.name
        self._version = pool.version
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._start = int.from_bytes(hashlib.sha256(f"{node}/{pool.name}".encode()).digest()[:8], "big")
        self._next: int | None = None
        self._taken: set[int] = set()
        self._in_flight: set[int] = set()
        self._missed: set[int] = set()
        self._foreign: dict[int, float] = {}
        self._cooled: dict[int, Record] = {}
        self._listed_at = float("-inf")
        self._listing = SharedRead(self._list)
        self._exhausted: tuple[float, str] = (float("-inf"), "")
        # Claims that were cut off before their outcome was known, by pod UID and interface.
        self._unknown: dict[tuple[str, str], int] = {}

    async def claim(self, pool: Pool, usable: IntervalSet, holder: Holder, slot: Slot | None) -> Record:
        """Claim an address out of `usable` for the holder. errors.Exhausted when a fresh list shows none to be had."""
        if (record := await self._finish_cut_off(pool, usable, holder, slot)) is not None:
            return record
        until, why = self._exhausted
        if self._clock.monotonic() < until:
            raise errors.Exhausted(why)
        misses = 0
        choice = self._walk(usable)
        while True:
            if choice is None or misses >= MISSES_BEFORE_LIST:
                records = await self._listing.after_now()
                choice, misses = self._jump(usable), 0
                if choice is None:
                    record = await self._take_cooling(records, pool, usable, holder, slot)
                    if record is not None:
                        return record
                    continue
            record = await self._try(choice, self._cooled.pop(choice, None), pool, holder, slot)
            if record is not None:
                return record
            misses += 1
            choice = self._walk(usable)

    def forget(self, address: Address) -> None:
        """A claim was undone or an address was given back: ask the API server again before refusing a pod."""
        self._taken.discard(int(address))
        self._exhausted = (float("-inf"), "")

    async def _try(
        self, value: int, cooled: Record | None, pool: Pool, holder: Holder, slot: Slot | None
    ) -> Record | None:
        """Claim this very address: create its object, or take over the one whose cooling is over. None: others won."""
        key = holder.pod_uid, holder.interface
        self._in_flight.add(value)
        if len(self._unknown) >= UNKNOWN_REMEMBERED:
            self._unknown.clear()
        self._unknown[key] = value
        try:
            record = await self._write(value, cooled, pool, holder, slot)
        finally:
            self._in_flight.discard(value)
        self._unknown.pop(key, None)
        self._taken.add(value)
        self._next = value + 1
        if record is None:
            self._missed.add(value)
        return record

    async def _finish_cut_off(
        self, pool: Pool, usable: IntervalSet, holder: Holder, slot: Slot | None
    ) -> Record | None:
        """After a try whose outcome is unknown: the record that it made, or else a claim of the same address.

        A claim that still is on its way to the API server then meets this one, instead of making a second.
        """
        key = holder.pod_uid, holder.interface
        value = self._unknown.get(key)
        if value is None:
            return None
        address = to_address(self._version, value)
        found = await self._ledger.read(address)
        if found is None and address in usable:
            found = await self._try(value, None, pool, holder, slot) or await self._ledger.read(address)
        self._unknown.pop(key, None)
        return found if found is not None and found.is_of(*key) else None

    async def _write(
        self, value: int, cooled: Record | None, pool: Pool, holder: Holder, slot: Slot | None
    ) -> Record | None:
        now = self._clock.now()
        if cooled is None:
            return await self._ledger.create(claimed(to_address(pool.version, value), pool.name, holder, slot, now))
        try:
            return await self._ledger.replace(reclaimed(cooled, pool.name, holder, slot, now))
        except errors.Conflict:
            return None

    async def _take_cooling(
        self, records: Sequence[Record], pool: Pool, usable: IntervalSet, holder: Holder, slot: Slot | None
    ) -> Record | None:
        """The address that has cooled longest, now that a list shows no other (invariant I9).

        None when a claim of this agent is still after one: then it is worth another look. errors.Exhausted otherwise.
        """
        now = self._clock.now()
        cooling = [each for each in records if each.state is State.COOLING and each.address in usable]
        for old in sorted(cooling, key=lambda record: record.until or now):
            if int(old.address) not in self._in_flight:
                record = await self._try(int(old.address), old, pool, holder, slot)
                if record is not None:
                    return record
        if self._in_flight or cooling:
            return None
        why = f"{pool.name}: no free address, {_census(records, usable)}"
        self._exhausted = (self._clock.monotonic() + EXHAUSTED_S, why)
        raise errors.Exhausted(why)

    def _walk(self, usable: IntervalSet) -> int | None:
        """The next address, from where the last claim ended, that this agent does not know to be taken."""
        if not usable:
            return None
        start = self._next if self._next is not None else int(usable.nth(self._start % usable.size))
        after = [(max(first, start), last) for first, last in usable.spans if last >= start]
        before = [(first, min(last, start - 1)) for first, last in usable.spans if first < start]
        for first, last in (*after, *before):
            for value in range(first, last + 1):
                if value not in self._taken and value not in self._in_flight:
                    return value
        return None

    def _jump(self, usable: IntervalSet) -> int | None:
        """A random address among the free ones, so that agents which all just listed do not meet at the first."""
        blocked = IntervalSet.of(usable.version, ((value, value) for value in self._taken | self._in_flight))
        free = usable - blocked
        return int(free.nth(self._rng.randrange(free.size))) if free else None

    async def _list(self) -> Sequence[Record]:
        """List the pool's objects and begin the memory anew from them."""
        wait = self._listed_at + LIST_SPACING_S - self._clock.monotonic()
        if wait > 0:
            await self._clock.sleep(wait)
        self._listed_at = self._clock.monotonic()
        missed, self._missed = self._missed, set()
        records = await self._ledger.in_pool(self._pool)
        now = self._clock.now()
        self._taken, self._cooled = _sorted(records, now)
        await self._look_at_strangers(missed - self._taken - self._cooled.keys(), now)
        self._taken |= self._foreign.keys()
        return records

    async def _look_at_strangers(self, values: set[int], now: datetime) -> None:
        """Addresses that somebody holds, though not through this pool: pools overlap, or a claim was just undone."""
        monotonic = self._clock.monotonic()
        self._foreign = {value: until for value, until in self._foreign.items() if until > monotonic}
        for value in values:
            record = await self._ledger.read(to_address(self._version, value))
            if record is None:
                continue
            if record.is_free(now):
                self._cooled[value] = record
            else:
                self._foreign[value] = monotonic + FOREIGN_S


def _sorted(records: Sequence[Record], now: datetime) -> tuple[set[int], dict[int, Record]]:
    taken: set[int] = set()
    cooled: dict[int, Record] = {}
    for record in records:
        if record.is_free(now):
            cooled[int(record.address)] = record
        else:
            taken.add(int(record.address))
    return taken, cooled


def _census(records: Sequence[Record], usable: IntervalSet) -> str:
    counts = {state: sum(record.state is state for record in records) for state in State}
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f"{usable.size} usable ({states})" if states else f"{usable.size} usable"
