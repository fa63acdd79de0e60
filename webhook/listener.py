"""A web application on an address: sockets, and aiohttp's runner with the limits of this process."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from aiohttp import web

from webhook.connections import Connections

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from allocator.runtime.flags import HostPort

BACKLOG: Final = 1024
# kubelet and Prometheus; the descriptors are for API servers.
MOST_WITHOUT_TLS: Final = 64
# Longer than kube-apiserver keeps idle connections (90 s), so that it is the one to close them.
KEEPALIVE_S: Final = 120.0
# Who was refused before his body was whole has as long to send the rest: cut off at once, he might not see the answer.
LINGERING_S: Final = 2.0
SHUTDOWN_S: Final = 5.0


@asynccontextmanager
async def listening(
    app: web.Application, listen: HostPort, tls: ssl.SSLContext | None, connections: Connections | None = None
) -> AsyncIterator[int]:
    """Serve within the block; gives the port, which the system chose when `listen` has 0.

    OSError when the address cannot be had.
    """
    connections = connections or (Connections() if tls is not None else Connections(limit=MOST_WITHOUT_TLS))
    app.middlewares.insert(0, connections.middleware)
    # Nobody compresses reviews; a body of Content-Encoding is refused instead of unpacked.
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=KEEPALIVE_S,
        lingering_time=LINGERING_S,
        shutdown_timeout=SHUTDOWN_S,
    )
    await runner.setup()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        if runner.server is None:
            raise RuntimeError("aiohttp made no server")
        listeners = await _listeners(listen, stack)
        await stack.enter_async_context(connections.accepted(listeners, runner.server, tls))
        yield listeners[0].getsockname()[1]


async def _listeners(listen: HostPort, stack: AsyncExitStack) -> list[socket.socket]:
    if not listen.host and socket.has_dualstack_ipv6():
        both = socket.create_server(("", listen.port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
        return [stack.enter_context(both)]
    found = await asyncio.get_running_loop().getaddrinfo(
        listen.host or None, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    addresses = dict.fromkeys((family, address) for family, _, _, _, address in found)
    return [
        stack.enter_context(socket.create_server(address, family=family, backlog=BACKLOG))
        for family, address in addresses
    ]
