"""The loop that makes pools follow their applications, and keeps the accounts of the subnets that lend to them.

A turn looks at the applications and subnets that something was heard of, and once a minute at all of them, because an
event may get lost. What is heard of in one burst goes into one turn (round.py), so that none waits for the others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.kube.errors import ApiError, Unreachable
from allocator.runtime.logs import get_logger
from controller.desks import Desks
from controller.round import PARALLEL, Round
from controller.unserved import Unserved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from allocator.domain.addresses import Network
    from allocator.kube.events import Recorder
    from allocator.runtime.clock import Clock
    from controller.applications import Applications, Demand
    from controller.auto_pools import AutoPools
    from controller.books import Books
    from controller.subnets import Subnets

_log = get_logger(__name__)

TICK_S: Final = 0.1
# After a refusal, or an answer that did not come.
RETRY_S: Final = 2.0
# One that is slow to read keeps the others waiting no longer than this.
PATIENCE_S: Final = 2.0
# Applications in one turn: what it works out between two awaits keeps everything else waiting.
MOST: Final = 500
# Everything is looked at so often, whatever was heard.
SWEEP_S: Final = 60.0


class Lending:
    """One term of leadership. `attach` gives it its hands, which tell it what they hear: `on_application`, `on_subnet`
    and `on_pool`. `applications` is None where no pools are made: the accounts are kept all the same.
    """

    def __init__(self, books: Books, recorder: Recorder, *, may_act: Callable[[], bool], clock: Clock) -> None:
        self._books = books
        self._may_act = may_act
        self._clock = clock
        self._unserved = Unserved(recorder)
        # What to look at, and not before which time.
        self._texts: dict[str, float] = {}
        self._names: dict[str, float] = {}
        self._swept_at = float("-inf")
        # By subnet: which text of its spec was looked at last, and how many addresses it could lend then.
        self._editions: dict[str, tuple[object, object]] = {}
        self._rooms: dict[str, int] = {}
        books.on_reservation.append(self._look_at_everything)

    def attach(self, subnets: Subnets, pools: AutoPools, applications: Applications | None) -> None:
        self._subnets = subnets
        self._pools = pools
        self._applications = applications

    def on_application(self, text: str) -> None:
        self._texts.setdefault(text, 0.0)

    def on_subnet(self, name: str) -> None:
        self._names.setdefault(name, 0.0)

    def on_pool(self, text: str, network: Network | None) -> None:
        """A pool was changed: of the application, or of nobody (empty), and in a network whose subnet has to follow."""
        if text:
            self.on_application(text)
        for raw in self._subnets.with_network(network) if network is not None else ():
            name = raw["metadata"]["name"]
            self.on_subnet(name)
            if not text:
                # What people give their pools, an automatic one may have to give back.
                for each in self._pools.applications_of(name):
                    self.on_application(each)

    async def run(self) -> None:
        while True:
            try:
                await self.turn()
            except Exception:  # noqa: BLE001 - the border of the loop
                _log.exception("lending_turn_failed")
            await self._clock.sleep(TICK_S)

    async def turn(self) -> None:
        if not self._is_ready():
            return
        self._subnets.bring_up_to_date()
        now = self._clock.monotonic()
        if now >= self._swept_at + SWEEP_S:
            self._swept_at = now
            self._look_at_everything()
        names = _due(self._names, now)
        self._look_at_those_of(names)
        texts = _due(self._texts, now, most=MOST)
        if not names and not texts:
            return
        desks = Desks(self._books, self._subnets, self._pools)
        for name in names:
            desks.at(name)
        round_ = Round(
            desks,
            self._subnets,
            self._pools,
            self._applications,
            self._unserved,
            may_act=self._may_act,
            again=self._again,
        )
        await round_.run(await self._wanted(texts))
        self._note_room(desks)

    def _is_ready(self) -> bool:
        applications = self._applications
        is_synced = self._books.synced and self._subnets.cache.synced and (applications is None or applications.synced)
        return is_synced and self._may_act()

    def _again(self, text: str, subnet: str, is_failure: bool) -> None:  # noqa: FBT001 - a value
        at = self._clock.monotonic() + RETRY_S if is_failure else 0.0
        if text:
            self._texts[text] = at
        if subnet:
            self._names[subnet] = at

    async def _wanted(self, texts: Iterable[str]) -> dict[str, tuple[Demand, ...]]:
        """What each of the applications asks for; those of which nobody can tell stay as they are."""
        wanted: dict[str, tuple[Demand, ...]] = {}
        applications, places = self._applications, asyncio.Semaphore(PARALLEL)
        if applications is None:
            return wanted

        async def ask(text: str) -> None:
            try:
                async with places, asyncio.timeout(PATIENCE_S):
                    wanted[text] = await applications.demands(text)
            except errors.Invalid as error:
                self._refuse(text, error.reason, str(error))
            except (ApiError, Unreachable, TimeoutError) as error:
                why = str(error) or f"no answer within {PATIENCE_S:.0f} s"
                self._refuse(text, "ApplicationUnreadable", f"what it asks for cannot be read: {why}")
                self._again(text, "", True)

        async with asyncio.TaskGroup() as group:
            for text in texts:
                group.create_task(ask(text))
        # In the order in which they were heard of: who came first has the last addresses.
        return {text: wanted[text] for text in texts if text in wanted}

    def _refuse(self, text: str, reason: str, why: str) -> None:
        if self._applications is not None and (application := self._applications.named(text)) is not None:
            self._unserved.refuse(text, application, self._applications.subnets(text), reason, why)

    def _look_at_everything(self) -> None:
        self._look_at_all_subnets()
        if self._applications is not None:
            for text in self._applications.texts() | self._pools.applications():
                self.on_application(text)

    def _look_at_all_subnets(self) -> None:
        for raw in self._subnets.cache.items():
            self.on_subnet(raw["metadata"]["name"])

    def _look_at_those_of(self, names: Iterable[str]) -> None:
        """A subnet with another text, or one that is being deleted, is news for all applications that use it."""
        for name in names:
            raw = self._subnets.get(name)
            meta = {} if raw is None else raw["metadata"]
            edition = meta.get("generation"), meta.get("deletionTimestamp")
            if self._editions.get(name) != edition:
                self._editions[name] = edition
                for text in (*self._pools.applications_of(name), *self._unserved.listing(name)):
                    self.on_application(text)

    def _note_room(self, desks: Desks) -> None:
        """Who waits is looked at again where there is more room than before."""
        for desk in desks.opened():
            if desk.room > self._rooms.get(desk.name, 0):
                for text in self._unserved.listing(desk.name):
                    self.on_application(text)
            self._rooms[desk.name] = desk.room


def _due(keys: dict[str, float], now: float, *, most: int | None = None) -> list[str]:
    """Those whose time has come, in the order in which they were heard of; they are forgotten."""
    due = [key for key, at in keys.items() if at <= now][:most]
    for key in due:
        del keys[key]
    return due
