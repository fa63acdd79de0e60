"""One turn of lending: from what applications ask for to the writes, in the order that domain/lending.py tells of."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from allocator.domain import errors, lending
from allocator.domain.applications import parse_application
from allocator.kube.errors import ApiError, Conflict, NotFound, Unreachable
from allocator.runtime.logs import get_logger
from controller.subnets import Entry, may_go

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping

    from allocator.domain.addresses import IntervalSet
    from allocator.domain.desk import Desk
    from allocator.domain.lending import Holding
    from controller.applications import Applications, Demand
    from controller.auto_pools import AutoPools
    from controller.desks import Desks
    from controller.subnets import Subnets
    from controller.unserved import Unserved

_log = get_logger(__name__)

# Calls at once.
PARALLEL: Final = 8


@dataclass(frozen=True, slots=True)
class _Offer:
    text: str
    pool: str
    ips: IntervalSet
    demand: Demand
    desk: Desk


@dataclass(frozen=True, slots=True)
class _Taking:
    """What the accounts may be cut down to."""

    text: str
    pool: str
    ips: IntervalSet
    desk: Desk


class Round:
    """`again` is told of an application (Application.text) and of a subnet that another look is due at, and whether
    that had better wait: something has failed.
    """

    def __init__(  # noqa: PLR0913 - the hands of a turn
        self,
        desks: Desks,
        subnets: Subnets,
        pools: AutoPools,
        applications: Applications | None,
        unserved: Unserved,
        *,
        may_act: Callable[[], bool],
        again: Callable[[str, str, bool], None],
    ) -> None:
        self._desks = desks
        self._subnets = subnets
        self._pools = pools
        self._applications = applications
        self._unserved = unserved
        self._may_act = may_act
        self._again = again
        self._offers: list[_Offer] = []
        self._takings: list[_Taking] = []
        self._written: set[str] = set()
        self._superfluous: list[tuple[str, str]] = []
        # Why writes were refused that another try soon would not change: by application, and by subnet.
        self._refused: dict[str, str] = {}
        self._places = asyncio.Semaphore(PARALLEL)

    async def run(self, wanted: Mapping[str, tuple[Demand, ...]]) -> None:
        """`wanted` is what each of the applications in question asks for: nothing, where it is gone."""
        await self._bear(wanted)
        for text, demands in wanted.items():
            self._share_out(text, demands)
        for name in self._unserved.touched():
            self._desks.at(name)
        desks = self._desks.opened()
        await _all(self._drop(stray, desk) for desk in desks for stray in desk.strays)
        await _all(map(self._take_back, self._takings))
        await _all(map(self._write, desks))
        await _all(map(self._offer, self._offers))
        ending = [("", pool) for desk in desks if desk.is_terminating for pool in self._desks.automatic(desk)]
        await _all(self._retire(*each) for each in {pool: text for text, pool in (*ending, *self._superfluous)}.items())
        if self._applications is not None:
            await _all(self._adopt(name, desk) for desk in desks for name in self._desks.handmade(desk))

    async def _bear(self, wanted: Mapping[str, tuple[Demand, ...]]) -> None:
        """A pool for each demand that has none where there is room. The accounts give them addresses afterwards."""
        planned: dict[str, int] = {}
        births = []
        for text, demands in wanted.items():
            for demand in demands:
                room = {name: free - planned.get(name, 0) for name, free in self._desks.room(demand).items()}
                found = self._desks.shares(demand, room)
                if found.birth is not None:
                    planned[found.birth] = planned.get(found.birth, 0) + found.rest
                    births.append(self._give_birth(text, demand, found.birth))
        if births:
            await _all(births)
            self._desks.open_anew()

    async def _give_birth(self, text: str, demand: Demand, subnet: str) -> None:
        desk = self._desks.at(subnet)
        if desk is not None:
            raw = self._desks.raw(desk)
            await self._try("pool_not_born", text, subnet, lambda: self._pools.bear(demand, raw))

    def _share_out(self, text: str, demands: Iterable[Demand]) -> None:
        """Every pool of the application takes one step; those that nobody asks for are to go."""
        kept: set[str] = set()
        refusals: dict[Demand, str] = {}
        reason = "SubnetExhausted"
        for demand in demands:
            holdings = self._desks.holdings(demand)
            room = self._desks.room(demand)
            found = self._desks.shares(demand, room)
            if found.missing:
                refusals[demand] = self._why(demand, found.missing, room)
            elif found.birth is not None:
                # It was refused a moment ago, or the room went to somebody else: another turn decides.
                self._again(text, found.birth, True)
                if why := self._refused.get(text):
                    refusals[demand], reason = f"no pool can be made for it: {why}", "PoolRefused"
            for nth, holding in enumerate(holdings):
                share = found.by_pool[holding.pool]
                if share or nth == 0:
                    kept.add(holding.pool)
                desk = self._desks.at(holding.subnet)
                if desk is not None:
                    self._step(text, demand, holding, share, desk)
        self._tell(text, reason, refusals)
        for name in self._pools.of_application(text):
            if name not in kept:
                self._superfluous.append((text, name))
                self._finish(text, name)

    def _tell(self, text: str, reason: str, refusals: Mapping[Demand, str]) -> None:
        if not refusals:
            self._unserved.forgive(text)
            return
        listed = {name for demand in refusals for name in demand.subnets}
        application = next(iter(refusals)).application
        self._unserved.refuse(text, application, listed, reason, "; ".join(refusals.values()))

    def _finish(self, text: str, pool: str) -> None:
        """What a pool had begun to give back is given back, also when its application asks for it no longer."""
        desk = self._desks.of_pool(pool)
        if desk is None or desk.is_terminating or self._pools.is_terminating(pool) or self._pools.is_unadopted(pool):
            return
        holding = self._pools.holding(pool, desk.name, desk.recorded(pool))
        if holding.is_observed and holding.offered <= holding.recorded and holding.offered != holding.recorded:
            self._takings.append(_Taking(text, pool, holding.offered, desk))

    def _why(self, demand: Demand, missing: int, room: Mapping[str, int]) -> str:
        if room:
            return lending.told(missing, demand.size, room)
        names = ", ".join(demand.subnets)
        return (
            f"there is no IPv{demand.version} SpiderSubnet {names}, or it is being deleted: create it, or list another"
        )

    def _step(self, text: str, demand: Demand, holding: Holding, share: int, desk: Desk) -> None:
        if self._pools.is_unadopted(holding.pool):
            # It grows, and gives nothing back.
            share = max(share, holding.recorded.size)
        step = desk.resize(holding, share, demand.application.text)
        self._offers.append(_Offer(text, holding.pool, step.offered, demand, desk))
        if step.settled is not None:
            self._takings.append(_Taking(text, holding.pool, step.settled, desk))
        if step.recorded.size == share:
            self._pools.waiting.discard(holding.pool)
        elif holding.pool not in self._pools.waiting:
            self._pools.waiting.add(holding.pool)
            _log.info("pool_must_wait", pool=holding.pool, has=step.recorded.size, wants=share)

    async def _drop(self, pool: str, desk: Desk) -> None:
        """An entry without pool: that is gone for good, which only the API server knows, or not shown to us yet."""

        async def act() -> None:
            if await self._pools.is_gone(pool, desk.subnet.subnet):
                desk.drop(pool)

        await self._try("account_not_dropped", "", desk.name, act)

    async def _take_back(self, taking: _Taking) -> None:
        async def act() -> None:
            if not self._pools.is_ours(taking.pool):
                await self._pools.touch(taking.pool)
                self._again(taking.text, taking.desk.name, False)
            elif not await self._pools.uses_outside(taking.pool, taking.ips):
                taking.desk.settle(taking.pool, taking.ips)
                self._pools.waiting.discard(taking.pool)

        await self._try("addresses_not_taken_back", taking.text, taking.desk.name, act)

    async def _write(self, desk: Desk) -> None:
        """The subnet's status; what is to be offered waits for it."""
        raw = self._desks.raw(desk)
        entry = Entry(accounts=desk.accounts, free=desk.free, unserved=self._unserved.of(desk.name))

        async def act() -> None:
            mine = [each for each in self._offers if each.desk is desk]
            grows = any(not each.ips <= self._pools.extent(each.pool).ips for each in mine)
            is_forced = grows and not self._subnets.is_kept_by_us(raw)
            written = await self._subnets.write(raw, entry, is_forced=is_forced)
            self._written.add(desk.name)
            if may_go(written):
                await self._subnets.let_go(written)

        await self._try("subnet_status_not_written", "", desk.name, act)

    async def _offer(self, offer: _Offer) -> None:
        if offer.desk.name not in self._written:
            self._again(offer.text, "", offer.desk.name in self._refused)
            return
        await self._try(
            "pool_not_resized",
            offer.text,
            offer.desk.name,
            lambda: self._pools.offer(offer.pool, offer.ips, offer.demand, offer.desk.name),
        )

    async def _retire(self, pool: str, text: str) -> None:
        """A pool that its application asks for no longer goes: at once with the application, else when nobody uses it.

        One that is not to be reclaimed stays, unless its subnet goes.
        """
        purpose, applications = self._pools.purpose(pool), self._applications
        if purpose is None or self._pools.is_terminating(pool):
            return
        desk = self._desks.of_pool(pool)
        ends = desk is None or desk.is_terminating
        if (not purpose.is_reclaimed and not ends) or self._pools.is_unadopted(pool):
            return
        loan = None if desk is None else desk.accounts.get(pool)
        # Labels cut long names.
        full = parse_application(loan.application) if loan is not None else None
        application = replace(full or purpose.application, uid=purpose.application.uid)

        async def act() -> None:
            is_gone = True if ends else applications and await applications.is_gone(application)
            if is_gone or (is_gone is False and not self._pools.in_use(pool)):
                await self._pools.delete(pool)
                self._pools.waiting.discard(pool)
            elif is_gone is False:
                self._pools.waiting.add(pool)

        await self._try("pool_not_deleted", text, "", act)

    async def _adopt(self, pool: str, desk: Desk) -> None:
        async def act() -> None:
            if not self._pools.is_terminating(pool) and not self._pools.is_of(pool, desk.name):
                await self._pools.adopt(pool, self._desks.raw(desk))

        if not desk.is_terminating:
            await self._try("pool_not_adopted", "", desk.name, act)

    async def _try(self, event: str, text: str, subnet: str, act: Callable[[], Awaitable[object]]) -> None:
        """One thing of many: when it fails the others go on, and it is looked at again."""
        try:
            async with self._places:
                if self._may_act():
                    await act()
        except (Conflict, NotFound):
            # Somebody wrote in between: the watch brings what.
            self._again(text, subnet, False)
        except (ApiError, Unreachable, errors.IpamError) as error:
            _log.warning(event, application=text, subnet=subnet, why=str(error))
            self._refused[text or subnet] = str(error)
            self._again(text, subnet, True)


async def _all(jobs: Iterable[Coroutine[None, None, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(job)
