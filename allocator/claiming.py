"""Choosing and claiming an address of one pool, on one agent.

No agent watches all addresses. This one remembers what it saw taken and walks the pool's usable addresses from a place
of its own; that an object exists already is how it learns of others, and it goes on elsewhere. Only when it meets
others twice in a row, or when nothing seems free, it lists the pool's objects and starts again from the truth. So a
claim costs one write in a pool that has room, whatever the pool's size, and the API server alone decides who holds an
address (KEP-1880).
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
from allocator.vacancies import Vacancies

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from allocator.attempts import Attempt
    from allocator.domain.addresses import Address
    from allocator.domain.pool import Edition, Pool
    from allocator.domain.record import Entry, Holder, Record, Slot
    from allocator.ports import Ledger
    from allocator.runtime.clock import Clock

# Claims of one pool under way at once: enough to keep an API server busy, few enough that little is lost where the way
# meets addresses that others hold.
CLAIMS_AT_ONCE: Final = 4
# One run that ends may be bad luck; a second one, with no claim won in between, means that the memory is out of date,
# and a list costs less than guessing on. In a small pool it costs no more than a single miss.
LOST_RUNS_BEFORE_LIST: Final = 2
SMALL: Final = 128
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
        self._hash = int.from_bytes(hashlib.sha256(f"{node}/{pool.name}".encode()).digest()[:8], "big")
        # The way through the vacancies: a run goes from `_next` upwards until it meets others.
        self._next: int | None = None
        self._run = 0
        self._lost_runs = 0
        self._usable = IntervalSet(pool.version)
        self._is_small = True
        # Usable, and neither taken (as far as is known) nor in flight.
        self._vacancies = Vacancies(self._usable)
        self._taken: set[int] = set()
        self._cooled: set[int] = set()
        # Since the last list was begun: what this agent took, and what it found taken by others.
        self._won: set[int] = set()
        self._missed: set[int] = set()
        self._in_flight: set[int] = set()
        self._landed = asyncio.Event()
        # Whether others hold addresses of this pool through pools that overlap it.
        self._is_shared = False
        self._places = asyncio.Semaphore(CLAIMS_AT_ONCE)
        self._relisting = asyncio.Lock()
        self._listed_at = float("-inf")
        self._listing = SharedRead(self._list)
        self._exhausted: tuple[float, Edition, str] | None = None

    async def claim(
        self, pool: Pool, usable: IntervalSet, holder: Holder, slot: Slot | None, attempt: Attempt
    ) -> Record:
        """Claim an address out of `usable` for the holder; `attempt` always knows which one is being tried.

        errors.Exhausted when a list that was begun after the call, or in the last second, shows none to be had.
        """
        claim = _Claim(pool, usable, holder, slot, attempt)
        async with self._places:
            self._offer(usable)
            if (why := self.exhausted(pool.edition)) is not None:
                raise errors.Exhausted(why, remembered=True)
            while True:
                if self._is_lost():
                    await self._list_once()
                if self._has_room(claim):
                    record = await self._walk(claim)
                else:
                    entries = await self._listing.after_now()
                    record = None if self._has_room(claim) else await self._take_cooling(entries, claim)
                if record is not None:
                    return record

    async def _list_once(self) -> None:
        """For all claims that wait here: whoever comes after the list has its result."""
        async with self._relisting:
            if self._is_lost():
                await self._listing.after_now()

    def _is_lost(self) -> bool:
        return self._lost_runs >= (1 if self._is_small else LOST_RUNS_BEFORE_LIST)

    def _has_room(self, claim: _Claim) -> bool:
        # Each time anew: another claim may have come with a newer or an older text of the pool.
        self._offer(claim.usable)
        return self._vacancies.size > 0

    async def _walk(self, claim: _Claim) -> Record | None:
        """Try the next vacant address, of which there is one; None when others hold it."""
        start = int(claim.usable.nth(self._hash % claim.usable.size)) if self._next is None else self._next
        choice = self._vacancies.next_from(start)
        run = self._run
        record = await self._try(choice, claim, cooled=choice in self._cooled)
        if record is not None:
            self._lost_runs = 0
        elif run == self._run:
            # The first of its run to learn that others are here. What comes next to it they take next: go elsewhere.
            self._lost_runs += 1
            self._begin_run()
        return record

    def _begin_run(self) -> None:
        """Go on from a random vacant address, so that agents which all just listed do not meet at the first."""
        self._run += 1
        size = self._vacancies.size
        self._next = self._vacancies.nth(self._rng.randrange(size)) if size else None

    def exhausted(self, edition: Edition) -> str | None:
        """Why the pool had no free address within the last second, while its text was this one."""
        if self._exhausted is not None:
            until, exhausted_edition, why = self._exhausted
            if self._clock.monotonic() < until and edition == exhausted_edition:
                return why
        return None

    def forget(self, address: Address) -> None:
        """The address was given back or its claim undone: ask the API server again before refusing a pod."""
        if address.version == self._version and address in self._network:
            self._exhausted = None
            self._taken.discard(int(address))
            self._won.discard(int(address))
            self._give(int(address))

    def _give(self, value: int) -> None:
        if value not in self._in_flight and to_address(self._version, value) in self._usable:
            self._vacancies.give(value)

    def _offer(self, usable: IntervalSet) -> None:
        """The pool's text or the reservations may have changed since the last claim."""
        if usable != self._usable:
            self._usable = usable
            self._is_small = usable.size <= SMALL
            self._exhausted = None
            self._look_anew()

    def _look_anew(self) -> None:
        blocked = IntervalSet.of(self._version, ((value, value) for value in self._taken | self._in_flight))
        self._vacancies = Vacancies(self._usable - blocked)

    async def claim_this(
        self, address: Address, pool: Pool, usable: IntervalSet, holder: Holder, slot: Slot | None, attempt: Attempt
    ) -> Record | None:
        """Claim this very address; None when it is not to be had.

        After a try with an unknown outcome a write that still is on its way to the API server then meets this one,
        instead of making a second record.
        """
        if address not in usable:
            return None
        found = await self._ledger.read(address)
        if found is None or found.is_free(self._clock.now()):
            claim = _Claim(pool, usable, holder, slot, attempt)
            record = await self._try(int(address), claim, cooled=found is not None)
            found = record or await self._ledger.read(address)
        if found is None or not found.is_of(holder.pod_uid, holder.interface):
            return None
        # Also where it was the earlier write that made it: until it is confirmed, nobody may answer it.
        attempt.address = address
        return found

    async def _try(self, value: int, claim: _Claim, *, cooled: bool, even_early: bool = False) -> Record | None:
        """Claim this very address: create its object, or take over the one that cooled. None: others won."""
        claim.attempt.address = to_address(self._version, value)
        self._in_flight.add(value)
        self._vacancies.take(value)
        self._next = value + 1
        try:
            if cooled:
                record = await self._take_over(claim.attempt.address, claim, even_early=even_early)
            else:
                record = await self._create(claim.attempt.address, claim)
        except BaseException:
            # Whether it was written is unknown; who meets it next finds out.
            self._land(value)
            self._give(value)
            raise
        self._land(value)
        self._cooled.discard(value)
        self._taken.add(value)
        if record is None:
            claim.attempt.address = None
            self._missed.add(value)
        else:
            self._won.add(value)
        return record

    def _land(self, value: int) -> None:
        self._in_flight.discard(value)
        self._landed.set()
        self._landed = asyncio.Event()

    async def _create(self, address: Address, claim: _Claim) -> Record | None:
        record = claimed(address, claim.pool.name, claim.holder, claim.slot, self._clock.now())
        return await self._ledger.create(record)

    async def _take_over(self, address: Address, claim: _Claim, *, even_early: bool) -> Record | None:
        now = self._clock.now()
        found = await self._ledger.read(address)
        if found is None:
            return await self._create(address, claim)
        if not found.is_free(now) and not (even_early and found.state is State.COOLING):
            return None
        try:
            return await self._ledger.replace(reclaimed(found, claim.pool.name, claim.holder, claim.slot, now))
        except errors.Conflict:
            return None

    async def _take_cooling(self, entries: Sequence[Entry], claim: _Claim) -> Record | None:
        """The address that has cooled longest, now that a list shows no other (invariant I9).

        None when it is worth another look: others took those that cooled, or a claim of this agent was still after
        the last address. errors.Exhausted when there is nothing to wait for.
        """
        now = self._clock.now()
        cooling = [each for each in entries if each.state is State.COOLING and each.address in claim.usable]
        for old in sorted(cooling, key=lambda entry: entry.until or now):
            if int(old.address) not in self._in_flight:
                record = await self._try(int(old.address), claim, cooled=True, even_early=True)
                if record is not None:
                    return record
        if self._in_flight:
            await self._landed.wait()
            return None
        if cooling:
            return None
        why = f"{self._pool}: no free address, {_census(entries, claim.usable, self._pool)}"
        self._exhausted = (self._clock.monotonic() + EXHAUSTED_S, claim.pool.edition, why)
        raise errors.Exhausted(why)

    async def _list(self) -> Sequence[Entry]:
        """List the pool's records, and begin the memory anew from that."""
        wait = self._listed_at + LIST_SPACING_S - self._clock.monotonic()
        if wait > 0:
            await self._clock.sleep(wait)
        self._listed_at = self._clock.monotonic()
        missed, self._missed, self._won = self._missed, set(), set()
        entries = list(await self._ledger.in_pool(self._pool))
        if self._is_shared or await self._any_stranger(missed - {int(entry.address) for entry in entries}):
            everything = await self._ledger.everything()
            strangers = [each for each in everything if each.pool != self._pool and each.address in self._network]
            self._is_shared = bool(strangers)
            entries += strangers
        now = self._clock.now()
        self._cooled = {int(entry.address) for entry in entries if entry.is_free(now)}
        # The list may be older than what was won meanwhile.
        self._taken = {int(entry.address) for entry in entries} - self._cooled | self._won
        self._look_anew()
        self._lost_runs = 0
        self._begin_run()
        return entries

    async def _any_stranger(self, values: set[int]) -> bool:
        """Whether an address that others took, but not through this pool, is still theirs."""
        for value in values:
            record = await self._ledger.read(to_address(self._version, value))
            if record is not None and record.pool != self._pool:
                return True
        return False


@dataclass(frozen=True, slots=True)
class _Claim:
    """Who claims, and through which pool: `usable` belongs to the same text of it."""

    pool: Pool
    usable: IntervalSet
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

    def exhausted(self, pools: Sequence[Pool]) -> bool:
        """Whether each of the pools was found without a free address within the last second."""
        return all(self.of(pool).exhausted(pool.edition) is not None for pool in pools)

    def forget(self, address: Address) -> None:
        for claims in self._claims.values():
            claims.forget(address)

    def keep_only(self, pools: Mapping[str, Pool]) -> None:
        """Drop the memory of pools that are gone."""
        if len(self._claims) > len(pools):
            uids = {pool.edition.uid for pool in pools.values()}
            self._claims = {uid: claims for uid, claims in self._claims.items() if uid in uids}


def _census(entries: Sequence[Entry], usable: IntervalSet, pool: str) -> str:
    """What has become of the usable addresses, for the refusal: by state, and by pool where it is another."""
    counts: dict[str, int] = {}
    for entry in entries:
        if entry.address in usable:
            what = entry.state.value if entry.pool == pool else f"through pool {entry.pool}"
            counts[what] = counts.get(what, 0) + 1
    shares = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    return f"{usable.size} usable ({shares})" if shares else f"{usable.size} usable"
