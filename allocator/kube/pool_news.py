"""Who waits for the pools of an application, and is told as soon as the watch shows a change of one."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from allocator.domain.auto_pools import labelled
from allocator.kube.codec import decode_edition, decode_purpose

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.domain.applications import Application
    from allocator.domain.auto_pools import Purpose
    from allocator.domain.pool import Edition
    from allocator.kube.resources import Object
    from allocator.kube.view import Change


class PoolNews:
    def __init__(self) -> None:
        self._listeners: dict[Application, list[_Listener]] = {}

    @property
    def is_idle(self) -> bool:
        return not self._listeners

    @contextmanager
    def of(self, application: Application) -> Iterator[_Listener]:
        # Labels are all that the watch shows.
        key, listener = labelled(application), _Listener()
        self._listeners.setdefault(key, []).append(listener)
        try:
            yield listener
        finally:
            self._listeners[key].remove(listener)
            if not self._listeners[key]:
                del self._listeners[key]

    def tell(self, change: Change) -> None:
        """Only of what a plan looks at: the status of a pool changes with every pod that it serves."""
        purpose = None if change.new is None else decode_purpose(change.new)
        if purpose is not None and _gist(change.old) != _gist(change.new):
            self.tell_of(purpose)

    def tell_of(self, purpose: Purpose) -> None:
        for listener in self._listeners.get(purpose.application, ()):
            listener.tell()


class _Listener:
    def __init__(self) -> None:
        self._told = asyncio.Event()

    def tell(self) -> None:
        self._told.set()

    async def next(self) -> None:
        await self._told.wait()
        self._told.clear()


def _gist(raw: Object | None) -> tuple[Edition, Purpose | None] | None:
    return None if raw is None else (decode_edition(raw), decode_purpose(raw))
