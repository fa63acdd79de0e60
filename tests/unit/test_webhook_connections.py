"""Connections that keep the server waiting, on real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
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
from webhook.listener import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE_S = 1.0
REQUEST = b"GET / HTTP/1.1\r\nHost: w\r\n\r\n"


class Listener:
    """A server with an application that answers at `/` at once, and at `/slow` when `go_on` is set."""

    def __init__(self, port: int, ca: str, wanted: int) -> None:
        self.port = port
        self.asked_for_body = asyncio.Event()
        self.busy = asyncio.Event()
        self.go_on = asyncio.Event()
        self.gave_up = asyncio.Event()
        self._wanted = wanted
        self._writers: list[asyncio.StreamWriter] = []
        self._trusting = ssl.create_default_context(cadata=ca)

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return self._kept(*await asyncio.open_connection("127.0.0.1", self.port, ssl=self._trusting))

    async def dial_without_tls(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return self._kept(*await asyncio.open_connection("127.0.0.1", self.port))

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _kept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._writers.append(writer)
        return reader, writer

    def slow_begun(self) -> None:
        self._wanted -= 1
        if self._wanted <= 0:
            self.busy.set()


@asynccontextmanager
async def serving(
    *, patience_s: float = PATIENCE_S, unused_s: float = 30, limit: int = 100, wanted: int | None = None
) -> AsyncIterator[Listener]:
    material = authority.renewed(None, ["127.0.0.1"], datetime.now(UTC))
    live = LiveContext()
    live.use(material)
    listener: Listener

    async def at_once(_request: web.Request) -> web.Response:
        return web.Response(text="done")

    async def slow(_request: web.Request) -> web.Response:
        listener.slow_begun()
        await listener.go_on.wait()
        return web.Response(text="done")

    async def body(request: web.Request) -> web.Response:
        listener.asked_for_body.set()
        await request.read()
        return web.Response(text="done")

    async def huge(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            for _ in range(1000):
                await answer.write(b"x" * 1_000_000)
        finally:
            listener.gave_up.set()
        return answer

    app = web.Application()
    app.router.add_get("/", at_once)
    app.router.add_get("/slow", slow)
    app.router.add_post("/body", body)
    app.router.add_get("/huge", huge)
    connections = Connections(patience_s=patience_s, unused_s=unused_s, limit=limit)
    async with listening(app, HostPort("127.0.0.1", 0), live, connections) as port:
        listener = Listener(port, material.ca, wanted or limit)
        try:
            yield listener
        finally:
            listener.hang_up()


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


@pytest.mark.parametrize("sent", [b"G", b"POST / HTTP/1.1\r\nHost: w\r\nX-Half:"], ids=["byte", "half"])
async def test_half_a_request_is_not_waited_for(sent: bytes) -> None:
    async with serving() as listener:
        both = [await listener.dial() for _ in range(20)]
        for _, writer in both:
            writer.write(sent)
        assert [await is_closed(reader) for reader, _ in both] == [True] * 20


async def test_a_connection_that_is_never_used_ends_too() -> None:
    async with serving(patience_s=30, unused_s=PATIENCE_S) as listener:
        reader, _ = await listener.dial()
        assert await is_closed(reader)


async def test_a_head_that_comes_byte_by_byte_is_not_waited_for_either() -> None:
    async with serving() as listener:
        reader, writer = await listener.dial()
        writer.write(b"GET / HTTP/1.1\r\nX: ")

        async def dribble() -> None:
            while not reader.at_eof():
                writer.write(b"x")
                await asyncio.sleep(PATIENCE_S / 5)

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


async def test_idle_and_unused_connections_and_long_answers_are_left_alone() -> None:
    async with serving(wanted=1) as listener:
        idle, unused, busy, half = [await listener.dial() for _ in range(4)]
        assert b"200" in await answered(*idle)
        async with asyncio.TaskGroup() as group:
            long = group.create_task(answered(*busy, REQUEST.replace(b"/ ", b"/slow ", 1)))
            await listener.busy.wait()
            half[1].write(REQUEST[:10])
            # When its patience with this one is over, the others have been there for longer.
            assert await is_closed(half[0])
            listener.go_on.set()
        assert b"200" in long.result()
        for connection in (idle, unused, busy):
            assert b"200" in await answered(*connection)


async def test_one_too_many_takes_the_place_of_one_that_waits() -> None:
    async with serving(patience_s=30, limit=3) as listener:
        answering = await listener.dial()
        assert b"200" in await answered(*answering)
        first, second = await listener.dial(), await listener.dial()
        newcomer = await listener.dial()
        assert await is_closed(first[0])
        for connection in (answering, second, newcomer):
            assert b"200" in await answered(*connection)


async def test_where_nobody_waits_the_one_that_was_idle_longest_makes_room() -> None:
    async with serving(patience_s=30, limit=3) as listener:
        idle = [await listener.dial() for _ in range(3)]
        for connection in (idle[1], idle[2], idle[0]):
            assert b"200" in await answered(*connection)
        newcomer = await listener.dial()
        assert await is_closed(idle[1][0])
        for connection in (idle[0], idle[2], newcomer):
            assert b"200" in await answered(*connection)


async def test_a_body_that_trickles_makes_room_too() -> None:
    async with serving(patience_s=30, limit=2) as listener:
        answering, trickling = await listener.dial(), await listener.dial()
        assert b"200" in await answered(*answering)
        trickling[1].write(b"POST /body HTTP/1.1\r\nHost: w\r\nContent-Length: 10\r\n\r\n12345")
        await listener.asked_for_body.wait()
        newcomer = await listener.dial()
        assert await is_closed(trickling[0])
        for connection in (answering, newcomer):
            assert b"200" in await answered(*connection)


async def test_whoever_is_being_answered_is_left_alone_and_one_too_many_turned_away() -> None:
    async with serving(limit=2) as listener:
        busy = [await listener.dial() for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            answers = [
                group.create_task(answered(*connection, REQUEST.replace(b"/ ", b"/slow ", 1))) for connection in busy
            ]
            await listener.busy.wait()
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await answered(*await listener.dial())
            listener.go_on.set()
        assert all(b"200" in answer.result() for answer in answers)


async def test_silence_before_tls_is_bounded_in_time_and_number() -> None:
    async with serving(limit=50) as listener:
        silent = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(200)]
        # The handshake of somebody else is not one of those that have to go.
        connection = await listener.dial()
        assert b"200" in await answered(*connection)
        for each in silent:
            each.setblocking(False)
            loop = asyncio.get_running_loop()
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(loop.sock_recv(each, 1), 10) == b""
            each.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: w\r\n\r\n",
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
        b"\x16\x03\x01\xff\xff" + b"\x00" * 100,
        b"\x16\x03\x00\x00\x05\x01\x00\x00\x01\x00",
    ],
    ids=["plain HTTP", "SSLv2 hello", "endless record", "SSLv3 hello"],
)
async def test_what_is_no_tls_is_closed(sent: bytes) -> None:
    async with serving() as listener:
        reader, writer = await listener.dial_without_tls()
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            answer = await asyncio.wait_for(reader.read(), 10)
            assert not answer.startswith(b"HTTP")
        assert b"200" in await answered(*await listener.dial())


async def test_an_answer_that_nobody_takes_is_not_kept_for_ever() -> None:
    async with serving() as listener:
        reader, writer = await listener.dial()
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001 - nobody reads here
        writer.write(REQUEST.replace(b"/ ", b"/huge ", 1))
        await asyncio.wait_for(listener.gave_up.wait(), 10)


async def test_running_out_of_descriptors_is_survived() -> None:
    async with serving(limit=10_000) as listener:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        held = [await listener.dial() for _ in range(3)]
        taken = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - their number only
        silent = [socket.socket() for _ in range(20)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 21, hard))
        try:
            for each in silent:
                each.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    each.connect(("127.0.0.1", listener.port))
            assert await is_closed(held[0][0])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in silent:
                each.close()
        assert b"200" in await answered(*await listener.dial())
