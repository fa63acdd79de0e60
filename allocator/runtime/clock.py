"""Time as a port: whoever needs the time is given a Clock, so that tests own it."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Wall clock, aware, in UTC. For what people read; it may jump."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back. For deadlines and ages."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds of `monotonic`; zero or less yields once."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0.0))
