"""ADDs that wait for the controller: it makes an application's pools, fills them and lets them grow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from allocator.domain import errors
from allocator.domain.fields import some_of
from allocator.runtime.logs import get_logger
from allocator.runtime.tasks import is_done_within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from allocator.ports import News, Pools
    from allocator.runtime.clock import Clock

T = TypeVar("T")

_log = get_logger(__name__)

# Before the deadline, at which nobody could be told any more what was waited for.
MARGIN_S: Final = 1.0
# The controller lets a pool grow within a second of a scale-up, or a few where it is busy. Most full pools have a fixed
# size, and then the pod's error should not be held back any longer.
GROWTH_S: Final = 5.0


class Awaiting:
    def __init__(self, pools: Pools, clock: Clock) -> None:
        self._pools = pools
        self._clock = clock

    async def served(self, allocate: Callable[[], Awaitable[T]], deadline: float) -> T:
        """What `allocate` gives, called anew whenever there is news of the pools that it lacks, until the deadline (of
        the clock's `monotonic`) is near. Then its refusal.
        """
        try:
            return await allocate()
        except (errors.PoolPending, errors.Exhausted) as refusal:
            if refusal.application is None:
                raise
            if isinstance(refusal, errors.PoolPending):
                await self._check_subnets(refusal)
            application = refusal.application
            _log.info("pool_awaited", application=str(application), why=str(refusal))
        with self._pools.news_of(application) as news:
            # What came before this is seen by the next try, and what comes after it is heard.
            return await self._served_in_time(allocate, news, deadline - MARGIN_S)

    async def _served_in_time(self, allocate: Callable[[], Awaitable[T]], news: News, end: float) -> T:
        began, full_since = self._clock.monotonic(), None
        while True:
            try:
                return await allocate()
            except errors.PoolPending as refusal:
                if not await self._heard(news, end):
                    waited = f"waited {self._clock.monotonic() - began:.0f} s"
                    raise errors.PoolPending(f"{waited}: {refusal}", refusal.application, refusal.subnets) from None
            except errors.Exhausted:
                full_since = self._clock.monotonic() if full_since is None else full_since
                if not await self._heard(news, min(end, full_since + GROWTH_S)):
                    raise

    async def _heard(self, news: News, end: float) -> bool:
        return await is_done_within(end - self._clock.monotonic(), news.next(), self._clock)

    async def _check_subnets(self, refusal: errors.PoolPending) -> None:
        """errors.NoPool when there is nothing that a pool could be made of: nobody knows when there will be."""
        for version, names in refusal.subnets.items():
            if not await self._has_any(names):
                raise errors.NoPool(
                    f"there is no SpiderSubnet {some_of(names)}, from which {refusal.application} is to have "
                    f"IPv{version} addresses: create it, or correct what asks for it"
                ) from None

    async def _has_any(self, subnets: Sequence[str]) -> bool:
        for name in subnets:
            if await self._pools.has_subnet(name):
                return True
        return False
