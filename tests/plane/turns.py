"""The leader's loops without its process, for tests that move the clock themselves."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from allocator.domain.reclaim import Rules
from allocator.domain.slots import KNOWN
from allocator.kube.events import Recorder
from allocator.kube.ledger import KubeLedger
from allocator.kube.slots import Slots
from allocator.kube.stores import KubeEndpoints
from controller.books import Books
from controller.metrics import Metrics
from controller.receipts import Receipts
from controller.reclaim import Hands, Reclaim, ReclaimConfig
from controller.witness import Witness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from allocator.kube.client import KubeClient
    from tests.unit.fake_clock import FakeClock

T = TypeVar("T")

GRACE_S = 20.0
CONFIG = ReclaimConfig(
    grace_s=GRACE_S, sweep_interval_s=1, reuse_delay=timedelta(seconds=30), renew_deadline_s=10, rules=Rules()
)


@asynccontextmanager
async def leading(
    kube: KubeClient,
    clock: FakeClock,
    build: Callable[[Books, Hands], T],
    *,
    may_act: Callable[[], bool] = lambda: True,
    deaf_to: str = "",
) -> AsyncIterator[T]:
    """What `build` makes, once the caches are complete. The cache `deaf_to` hears nothing more from then on."""
    books = Books(kube, clock=clock, kept=KNOWN)
    rng = random.Random(1)  # noqa: S311 - jitter
    ledger = KubeLedger(kube, books.addresses, clock=clock, rng=rng)
    hands = Hands(
        ledger=ledger,
        witness=Witness(kube, books, Slots(kube, KNOWN, clock=clock, rng=rng), ledger, clock=clock, rng=rng),
        endpoints=KubeEndpoints(kube, clock=clock, rng=rng),
        receipts=Receipts(Recorder(kube, component="test", clock=clock), Metrics(), namespace="default", lease="none"),
        may_act=may_act,
        clock=clock,
    )
    built = build(books, hands)
    async with asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(cache.run()) for name, cache in books.caches.items()}
        tasks["machines"] = group.create_task(books.machines.run())
        await books.wait_synced()
        if deaf_to:
            tasks[deaf_to].cancel()
        yield built
        for task in tasks.values():
            task.cancel()


def reclaim(books: Books, hands: Hands) -> Reclaim:
    return Reclaim(books, hands, CONFIG)


async def two_sightings(loop: Reclaim, clock: FakeClock) -> None:
    await loop.turn()
    clock.advance(GRACE_S)
    await loop.turn()
