"""Wait for a condition until a deadline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Value = TypeVar("Value")

PAUSE_S = 0.05


class WaitError(Exception):
    """What was waited for did not come in time."""


async def until(condition: Callable[[], Awaitable[Value | None]], *, within_s: float, what: str) -> Value:
    """The first true value of `condition`, which is asked at once and then every 50 ms.

    WaitError naming `what` when there is none `within_s` seconds from now.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        value = await condition()
        if value:
            return value
        if loop.time() > deadline:
            raise WaitError(f"waited {within_s:g} s for {what}")
        await asyncio.sleep(PAUSE_S)


async def until_true(condition: Callable[[], bool], *, within_s: float, what: str) -> None:
    """The same for a condition that does not wait itself."""

    async def ask() -> bool:
        return condition()

    await until(ask, within_s=within_s, what=what)
