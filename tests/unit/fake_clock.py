"""A clock that stands still until a test moves it."""

import asyncio
from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class FakeClock:
    """`auto` lets time jump to the end of every sleep at once; without it `advance` wakes who is due.

    `slept` is what was asked for, in order.
    """

    def __init__(self, *, auto: bool = False) -> None:
        self.slept: list[float] = []
        self._auto = auto
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        due = self._elapsed + max(seconds, 0.0)
        if self._auto:
            self._elapsed = max(self._elapsed, due)
            await asyncio.sleep(0)
            return
        sleeper = (due, asyncio.Event())
        self._sleepers.append(sleeper)
        try:
            await sleeper[1].wait()
        finally:
            if sleeper in self._sleepers:  # cancelled
                self._sleepers.remove(sleeper)

    def advance(self, seconds: float) -> None:
        self._elapsed += seconds
        waiting = self._sleepers
        self._sleepers = [(due, wake) for due, wake in waiting if due > self._elapsed]
        for due, wake in waiting:
            if due <= self._elapsed:
                wake.set()

    @property
    def sleepers(self) -> int:
        """How many sleep right now: a test waits for one before it moves the time on."""
        return len(self._sleepers)
