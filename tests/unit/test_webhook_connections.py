"""Connections that keep the server waiting, on real TLS."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from allocator.runtime.flags import HostPort
from certs import authority
from certs.tls import LiveContext
from webhook.connections import Connections
from webhook.server import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HEAD_S = 0.3
REQUEST = b"GET / HTTP/1.1\r\nHost: w\r\n\r\n"


class Listener:
    """A server with an application that answers at `/` at once, and at `/slow` after longer than a head may take."""

    def __init__(self, port: int, ca: str) -> None:
        self._port = port
        self._trusting = ssl.create_default_context(cadata=ca)

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, ssl=self._trusting)


@asynccontextmanager
async def serving(*, head_s: float = HEAD_S, limit: int = 100) -> AsyncIterator[Listener]:
    material = authority.renewed(None, ["127.0.0.1"], datetime.now(UTC))
    live = LiveContext()
    live.use(material)

    async def at_once(_request: web.Request) -> web.Response:
        return web.Response(text="done")

    async def slow(_request: web.Request) -> web.Response:
        await asyncio.sleep(3 * head_s)
        return web.Response(text="done")

    app = web.Application()
    app.router.add_get("/", at_once)
    app.router.add_get("/slow", slow)
    connections = Connections(head_s=head_s, limit=limit)
    async with listening(app, HostPort("127.0.0.1", 0), live, connections) as port:
        yield Listener(port, material.ca)


async def is_closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), 10) == b""
    except ConnectionError:
        return True


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes = REQUEST) -> bytes:
    writer.write(request)
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(4) == b"done"
    return head


@pytest.mark.parametrize("sent", [b"", b"G", b"POST / HTTP/1.1\r\nHost: w\r\nX-Half:"], ids=["silence", "byte", "half"])
async def test_half_a_request_is_not_waited_for(sent: bytes) -> None:
    async with serving() as listener:
        both = [await listener.dial() for _ in range(20)]
        for _, writer in both:
            writer.write(sent)
        assert [await is_closed(reader) for reader, _ in both] == [True] * 20


async def test_a_head_that_comes_byte_by_byte_is_not_waited_for_either() -> None:
    async with serving() as listener:
        reader, writer = await listener.dial()
        writer.write(b"GET / HTTP/1.1\r\nX: ")

        async def dribble() -> None:
            while not reader.at_eof():
                writer.write(b"x")
                await asyncio.sleep(HEAD_S / 5)

        async with asyncio.TaskGroup() as group:
            dribbling = group.create_task(dribble())
            assert await is_closed(reader)
            dribbling.cancel()


async def test_half_of_a_second_request_is_not_waited_for() -> None:
    async with serving() as listener:
        reader, writer = await listener.dial()
        assert b"200" in await answered(reader, writer)
        writer.write(REQUEST[:10])
        assert await is_closed(reader)


async def test_idle_connections_and_long_answers_are_left_alone() -> None:
    async with serving() as listener:
        idle, busy, half = await listener.dial(), await listener.dial(), await listener.dial()
        assert b"200" in await answered(*idle)
        assert b"200" in await answered(*busy, REQUEST.replace(b"/ ", b"/slow ", 1))
        # By now one that has sent nothing has been closed.
        assert await is_closed(half[0])
        assert b"200" in await answered(*idle)
        assert b"200" in await answered(*busy)


async def test_one_too_many_takes_the_place_of_one_that_waits() -> None:
    async with serving(head_s=30, limit=3) as listener:
        answering = await listener.dial()
        assert b"200" in await answered(*answering)
        first, second = await listener.dial(), await listener.dial()
        newcomer = await listener.dial()
        assert await is_closed(first[0])
        for connection in (answering, second, newcomer):
            assert b"200" in await answered(*connection)
        # Nobody keeps the server waiting now, so whoever comes last goes.
        late = await listener.dial()
        assert await is_closed(late[0])
        assert b"200" in await answered(*second)
