"""One read for many callers, each of whom is promised a result that was begun after it asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class SharedRead(Generic[T]):
    """Reads one after the other; who asks while a read runs shares the next one with all others who wait.

    A caller that is cancelled leaves the read to the next in line. A failing read fails only the caller who ran it.
    """

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._turn = asyncio.Lock()
        self._begun = 0
        self._waiting = 0
        self._latest: tuple[int, T] | None = None

    async def after_now(self) -> T:
        """The result of a read that begins, or began, after this call."""
        wanted = self._begun + 1
        self._waiting += 1
        try:
            async with self._turn:
                if self._latest is not None and self._latest[0] >= wanted:
                    return self._latest[1]
                self._begun += 1
                number = self._begun
                value = await self._read()
                self._latest = (number, value)
                return value
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._latest = None  # whoever comes now wants a newer one; a list may be large
