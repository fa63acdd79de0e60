"""Connections that keep the server waiting are closed, and there are never more than it has memory and descriptors for.

asyncio and aiohttp bound neither how many connections there are, nor how long the head of a request may take: whoever
opens many, and sends nothing or half of a request, would use everything up, and the API server could open none. So
connections are accepted here, and counted before TLS has cost anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import resource
import socket
from asyncio import sslproto
from typing import TYPE_CHECKING, Final

from aiohttp import web

from allocator.runtime import logs

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

log = logs.get_logger(__name__)

# For the handshake, for the head of a request from its first byte on: milliseconds, usually. And for a client to take
# its answer.
PATIENCE_S: Final = 5.0
# For the first byte. kube-apiserver dials more than it needs when it is busy, and keeps what it did not need for 90 s;
# when such a connection is closed under its first request, Go does not try again, and somebody's change is refused.
UNUSED_S: Final = 120.0
# Three API servers with 200 changes each under way, and half as many again. Each costs 60 KiB.
MOST: Final = 1024
# asyncio has a buffer of 256 KiB for each connection with TLS, for idle ones too; records have at most 16 KiB.
TLS_BUFFER_BYTES: Final = 32 * 1024
# As many are accepted before it is somebody else's turn.
AT_ONCE: Final = 64
# Without descriptors nothing can be accepted for a while.
PAUSE_S: Final = 0.2


def default_limit() -> int:
    """A quarter of the descriptors is left for files and our own requests."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else min(MOST, soft * 3 // 4)


class Connections:
    """All connections of a listener. `middleware` has to be the outermost of its application."""

    def __init__(self, *, patience_s: float = PATIENCE_S, unused_s: float = UNUSED_S, limit: int | None = None) -> None:
        self.patience_s = patience_s
        self.unused_s = unused_s
        self._limit = default_limit() if limit is None else limit
        # Those that did something last are at the end.
        self._open: dict[_Connection, None] = {}
        self._with_head: dict[web.RequestHandler, _Connection] = {}

    @contextlib.asynccontextmanager
    async def accepted(
        self, listeners: Sequence[socket.socket], server: web.Server, tls: ssl.SSLContext | None
    ) -> AsyncIterator[None]:
        """Serve, within the block, whoever connects to one of the listeners, which are closed at its end."""
        sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
        async with asyncio.TaskGroup() as group:
            acceptors = [_Acceptor(self, listener, server, tls, group) for listener in listeners]
            try:
                yield
            finally:
                for acceptor in acceptors:
                    acceptor.close()
                for connection in [each for each in self._open if each.is_new]:
                    connection.close()

    @web.middleware
    async def middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        connection = self._with_head.get(request.protocol)
        if connection is None:  # it was closed meanwhile
            return await handler(request)
        connection.begin_answer(request)
        try:
            return await handler(request)
        finally:
            connection.end_answer()
            if connection in self._open:
                self._open[connection] = self._open.pop(connection)

    def make_room(self) -> bool:
        """Close the one that has kept us waiting longest, else the one that has been idle longest."""
        waiting = (each for each in self._open if each.is_waiting)
        idle = (each for each in self._open if each.is_idle)
        victim = next(itertools.chain(waiting, idle), None)
        if victim is None:
            return False
        self.closed(victim)
        victim.close()
        return True

    def opened(self, connection: _Connection) -> bool:
        """Whether there is room for one more."""
        if len(self._open) >= self._limit and not self.make_room():
            return False
        self._open[connection] = None
        return True

    def made(self, connection: _Connection) -> None:
        self._with_head[connection.handler] = connection

    def closed(self, connection: _Connection) -> None:
        self._open.pop(connection, None)
        self._with_head.pop(connection.handler, None)


class _Acceptor:
    """Takes connections from a listener, and begins TLS with each in a task of its own."""

    def __init__(
        self,
        connections: Connections,
        listener: socket.socket,
        server: web.Server,
        tls: ssl.SSLContext | None,
        group: asyncio.TaskGroup,
    ) -> None:
        self._connections = connections
        self._listener = listener
        self._server = server
        self._tls = tls
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._resume()

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("connection_not_accepted", error=str(error))
                self._connections.make_room()
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(PAUSE_S, self._resume)
                return
            connection = _Connection(self._connections, self._server(), sock)
            if self._connections.opened(connection):
                self._group.create_task(self._begin(connection, sock))
            else:
                connection.close()
                sock.close()

    async def _begin(self, connection: _Connection, sock: socket.socket) -> None:
        patience_s = self._connections.patience_s if self._tls is not None else None
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=self._tls,
                ssl_handshake_timeout=patience_s,
                ssl_shutdown_timeout=patience_s,
            )
        except OSError as error:  # no TLS, a wrong certificate, nothing at all
            log.debug("handshake_failed", error=str(error))
            # Its frames refer to the error again, and to asyncio's buffers: that would stay until a collection.
            error.__traceback__ = None
            self._connections.closed(connection)
            connection.close()
        except Exception:  # of one connection: the others go on
            log.exception("connection_failed")
            self._connections.closed(connection)
            connection.close()


class _Connection(asyncio.Protocol):
    """aiohttp's handler of one connection, and a timer for whatever the other side has to do."""

    def __init__(self, all_of_them: Connections, handler: web.RequestHandler, sock: socket.socket) -> None:
        self.handler = handler
        self._all = all_of_them
        self._sock = sock
        self._transport: asyncio.BaseTransport | None = None
        self._request: web.Request | None = None
        self._is_unused = True
        self._timer: asyncio.TimerHandle | None = None
        self._start_timer(all_of_them.patience_s)

    @property
    def is_new(self) -> bool:
        """Whether the handshake is still under way."""
        return self._transport is None

    @property
    def is_waiting(self) -> bool:
        """Whether the other side owes us the rest of a handshake or of a request, or has to take its answer."""
        return self._timer is not None or (self._request is not None and not self._request.content.is_eof())

    @property
    def is_idle(self) -> bool:
        return self._request is None

    def begin_answer(self, request: web.Request) -> None:
        self._request = request
        self._stop_timer()

    def end_answer(self) -> None:
        self._request = None

    def close(self) -> None:
        self._stop_timer()
        if self._transport is None:
            # It belongs to a handshake, which ends when nothing more can come.
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        elif isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()  # no farewell: the other side may not even read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._start_timer(self._all.unused_s)
        self._all.made(self)
        self.handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._request is None and (self._timer is None or self._is_unused):
            self._start_timer(self._all.patience_s)
        self._is_unused = False
        self.handler.data_received(data)

    def eof_received(self) -> bool | None:
        self.handler.eof_received()
        return None

    def pause_writing(self) -> None:
        self._start_timer(self._all.patience_s)
        self.handler.pause_writing()

    def resume_writing(self) -> None:
        self._stop_timer()
        self.handler.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_timer()
        self._all.closed(self)
        self.handler.connection_lost(error)

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
