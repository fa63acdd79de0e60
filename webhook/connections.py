"""Connections that keep the server waiting are closed, and there are never more than it has descriptors for.

aiohttp bounds how long a connection is idle, not how long the head of a request takes: whoever sends half of one on
many connections would use up all descriptors, and the API server could open none.
"""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# From the handshake, or the first byte of a further request, to the end of its headers: milliseconds, usually.
HEAD_S: Final = 5.0
# Three API servers with 200 changes each under way, three times.
MOST: Final = 2048


def default_limit() -> int:
    """A quarter of the descriptors is left for handshakes, files and our own requests."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else min(MOST, soft * 3 // 4)


class Connections:
    """All connections of a listener. `middleware` has to be the outermost of its application."""

    def __init__(self, *, head_s: float = HEAD_S, limit: int | None = None) -> None:
        self.head_s = head_s
        self._limit = default_limit() if limit is None else limit
        self._open: dict[web.RequestHandler, _Connection] = {}

    def factory(self, server: web.Server) -> Callable[[], asyncio.Protocol]:
        """What asyncio makes the protocol of each connection with."""
        return lambda: _Connection(self, server())

    @web.middleware
    async def middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        connection = self._open.get(request.protocol)
        if connection is None:  # it was closed meanwhile
            return await handler(request)
        connection.head_is_whole()
        try:
            return await handler(request)
        finally:
            connection.is_answering = False

    def opened(self, connection: _Connection) -> None:
        """When there are too many, the one goes that has kept us waiting longest; the new one if none does."""
        if len(self._open) >= self._limit:
            waiting = (each for each in self._open.values() if each.is_waiting)
            next(waiting, connection).close()
        self._open[connection.handler] = connection

    def closed(self, connection: _Connection) -> None:
        self._open.pop(connection.handler, None)


class _Connection(asyncio.Protocol):
    """aiohttp's handler of one connection, and a timer for each head."""

    def __init__(self, all_of_them: Connections, handler: web.RequestHandler) -> None:
        self.handler = handler
        self.is_answering = False
        self._all = all_of_them
        self._transport: asyncio.BaseTransport | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_waiting(self) -> bool:
        return self._timer is not None

    def head_is_whole(self) -> None:
        self.is_answering = True
        self._stop_timer()

    def close(self) -> None:
        self._stop_timer()
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()  # no farewell: the other side may not even read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._start_timer()
        self.handler.connection_made(transport)
        self._all.opened(self)

    def data_received(self, data: bytes) -> None:
        if not self.is_answering and not self.is_waiting:
            self._start_timer()
        self.handler.data_received(data)

    def eof_received(self) -> bool | None:
        self.handler.eof_received()
        return None

    def pause_writing(self) -> None:
        self.handler.pause_writing()

    def resume_writing(self) -> None:
        self.handler.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_timer()
        self._all.closed(self)
        self.handler.connection_lost(error)

    def _start_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._all.head_s, self.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
