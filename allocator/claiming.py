"""Choosing and claiming an address of one pool, on one agent.

No agent watches all addresses. This one remembers what it saw taken and walks the pool's usable addresses from a place
of its own; that an object exists already is how it learns of others. Only after two such misses in a row, or when
nothing seems free, it lists the pool's objects and starts again from the truth. So a claim costs one write in a pool
that has room, whatever the pool's size, and the API server alone decides who holds an address (KEP-1880).
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.domain.addresses import IntervalSet, to_address
from allocator.domain.record import State, claimed, reclaimed
from allocator.runtime.shared import SharedRead

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from allocator.attempts import Attempt
    from allocator.domain.addresses import Address
    from allocator.domain.pool import Edition, Pool
    from allocator.domain.record import Holder, Record, Slot
    from allocator.ports import Ledger
    from allocator.runtime.clock import Clock

# Two misses may be bad luck; more mean that the memory is out of date, and a list costs less than guessing on.
MISSES_BEFORE_LIST: Final = 2
# Claims that fail together in one pool share a list; the next is begun this much later at the earliest.
LIST_SPACING_S: Final = 0.2
# A pool that a list showed to be exhausted is not asked again for so long: pods that wait retry all the time.
EXHAUSTED_S: Final = 1.0


class PoolClaims:
    """What one agent remembers of one pool. `node` makes agents start in different places."""

    def __init__(self, pool: Pool, *, node: str, ledger: Ledger, clock: Clock, rng: random.Random) -> None:
        self._pool = pool.name
        self._version = pool.version
        self._network = IntervalSet.network(pool.subnet)
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._start = int.from_bytes(hashlib.sha256(f"{node}/{pool.name}".encode()).digest()[:8], "big")
        self._next: int | None = None
        self._taken: set[int] = set()
        self._cooled: dict[int, Record] = {}
        self._missed: set[int] = set()
        self._in_flight: set[int] = set()
        self._landed = asyncio.Event()
        # Whether others hold addresses of this pool through pools that overlap it.
        self._is_shared = False
        self._listed_at = float("-inf")
        self._listing = SharedRead(self._list)
        self._exhausted: tuple[float, Edition, str] | None = None

    async def claim(
        self, pool: Pool, usable: IntervalSet, holder: Holder, slot: Slot | None, attempt: Attempt
    ) -> Record:
        """Claim an address out of `usable` for the holder; `attempt` always knows which one is being tried.

        errors.Exhausted when a list that was begun after the call, or in the last second, shows none to be had.
        """
        claim = _Claim(pool, holder, slot, attempt)
        if (record := await self._resume(claim, usable)) is not None:
            return record
        self._refuse_if_just_exhausted(pool.edition)
        misses = 0
        choice = self._walk(usable)
        while True:
            if choice is None or misses >= MISSES_BEFORE_LIST:
                records = await self._listing.after_now()
                choice, misses = self._jump(usable), 0
                if choice is None:
                    record = await self._take_cooling(records, claim, usable)
                    if record is not None:
                        return record
                    continue
            record = await self._try(choice, self._cooled.pop(choice, None), claim)
            if record is not None:
                return record
            misses += 1
            choice = self._walk(usable)

    def forget(self, address: Address) -> None:
        """The address was given back or its claim undone: ask the API server again before refusing a pod."""
        if address.version == self._version and address in self._network:
            self._taken.discard(int(address))
            self._exhausted = None

    async def _resume(self, claim: _Claim, usable: IntervalSet) -> Record | None:
        """After a try with an unknown outcome: the same address again.

        A write that still is on its way to the API server then meets this one, instead of making a second record.
        """
        address = claim.attempt.address
        if address is None or address not in usable:
            return None
        found = await self._ledger.read(address)
        if found is None or found.is_free(self._clock.now()):
            found = await self._try(int(address), found, claim) or await self._ledger.read(address)
        holder = claim.holder
        return found if found is not None and found.is_of(holder.pod_uid, holder.interface) else None

    async def _try(self, value: int, cooled: Record | None, claim: _Claim) -> Record | None:
        """Claim this very address: create its object, or take over the one whose cooling is over. None: others won."""
        claim.attempt.address = to_address(self._version, value)
        self._in_flight.add(value)
        try:
            record = await self._write(claim.attempt.address, cooled, claim)
        finally:
            self._in_flight.discard(value)
            self._landed.set()
            self._landed = asyncio.Event()
        self._taken.add(value)
        self._next = value + 1
        if record is None:
            claim.attempt.address = None
            self._missed.add(value)
        return record

    async def _write(self, address: Address, cooled: Record | None, claim: _Claim) -> Record | None:
        now = self._clock.now()
        if cooled is None:
            return await self._ledger.create(claimed(address, claim.pool.name, claim.holder, claim.slot, now))
        try:
            return await self._ledger.replace(reclaimed(cooled, claim.pool.name, claim.holder, claim.slot, now))
        except errors.Conflict:
            return None

    async def _take_cooling(self, records: Sequence[Record], claim: _Claim, usable: IntervalSet) -> Record | None:
        """The address that has cooled longest, now that a list shows no other (invariant I9).

        None when it is worth another look: others took those that cooled, or a claim of this agent was still after
        the last address. errors.Exhausted when there is nothing to wait for.
        """
        now = self._clock.now()
        cooling = [each for each in records if each.state is State.COOLING and each.address in usable]
        for old in sorted(cooling, key=lambda record: record.until or now):
            if int(old.address) not in self._in_flight:
                record = await self._try(int(old.address), old, claim)
                if record is not None:
                    return record
        if self._in_flight:
            await self._landed.wait()
            return None
        if cooling:
            return None
        why = f"{self._pool}: no free address, {_census(records, usable, self._pool)}"
        self._exhausted = (self._clock.monotonic() + EXHAUSTED_S, claim.pool.edition, why)
        raise errors.Exhausted(why)

    def _refuse_if_just_exhausted(self, edition: Edition) -> None:
        if self._exhausted is not None:
            until, exhausted_edition, why = self._exhausted
            if self._clock.monotonic() < until and edition == exhausted_edition:
                raise errors.Exhausted(why, remembered=True)

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
        """List who holds addresses of the pool, and begin the memory anew from that."""
        wait = self._listed_at + LIST_SPACING_S - self._clock.monotonic()
        if wait > 0:
            await self._clock.sleep(wait)
        self._listed_at = self._clock.monotonic()
        missed, self._missed = self._missed, set()
        records = list(await self._ledger.in_pool(self._pool))
        if self._is_shared or await self._any_stranger(missed - {int(record.address) for record in records}):
            everything = await self._ledger.everything()
            strangers = [each for each in everything if each.pool != self._pool and each.address in self._network]
            self._is_shared = bool(strangers)
            records += strangers
        self._taken, self._cooled = _sorted(records, self._clock.now())
        return records

    async def _any_stranger(self, values: set[int]) -> bool:
        """Whether an address that others took, but not through this pool, is still theirs."""
        for value in values:
            record = await self._ledger.read(to_address(self._version, value))
            if record is not None and record.pool != self._pool:
                return True
        return False


@dataclass(frozen=True, slots=True)
class _Claim:
    """Who claims, and through which pool."""

    pool: Pool
    holder: Holder
    slot: Slot | None
    attempt: Attempt


class Memories:
    """What the agent remembers of each pool; a pool made anew under its name starts without a memory."""

    def __init__(self, *, node: str, ledger: Ledger, clock: Clock, rng: random.Random) -> None:
        self._node = node
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._claims: dict[str, PoolClaims] = {}

    def of(self, pool: Pool) -> PoolClaims:
        uid = pool.edition.uid
        if uid not in self._claims:
            self._claims[uid] = PoolClaims(pool, node=self._node, ledger=self._ledger, clock=self._clock, rng=self._rng)
        return self._claims[uid]

    def forget(self, address: Address) -> None:
        for claims in self._claims.values():
            claims.forget(address)

    def keep_only(self, pools: Mapping[str, Pool]) -> None:
        """Drop the memory of pools that are gone."""
        if len(self._claims) > len(pools):
            uids = {pool.edition.uid for pool in pools.values()}
            self._claims = {uid: claims for uid, claims in self._claims.items() if uid in uids}


def _sorted(records: Sequence[Record], now: datetime) -> tuple[set[int], dict[int, Record]]:
    taken: set[int] = set()
    cooled: dict[int, Record] = {}
    for record in records:
        if record.is_free(now):
            cooled[int(record.address)] = record
        else:
            taken.add(int(record.address))
    return taken, cooled


def _census(records: Sequence[Record], usable: IntervalSet, pool: str) -> str:
    """What has become of the usable addresses, for the refusal: by state, and by pool where it is another."""
    counts: dict[str, int] = {}
    for record in records:
        if record.address in usable:
            what = record.state.value if record.pool == pool else f"through pool {record.pool}"
            counts[what] = counts.get(what, 0) + 1
    shares = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    return f"{usable.size} usable ({shares})" if shares else f"{usable.size} usable"
