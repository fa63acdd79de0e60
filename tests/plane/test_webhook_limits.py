"""Who sends too much, too slowly or nothing at all, to a real process on real TLS: others do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import shutil
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.plane.support import eventually
from tests.plane.webhooks import Webhook, pool, review, running_webhook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from devcluster.plane import Plane

VALIDATE = "/validate-spiderpool-spidernet-io-v2beta1-spiderippool"
REVIEW = json.dumps(review(pool("p", subnet="10.0.0.0/24", ipVersion=4), dryRun=True)).encode()
HEAD = f"POST {VALIDATE} HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
# 1,024 connections of 60 KiB and a process of 100 MiB make 160; the allocator keeps some of what was freed.
MEMORY_LIMIT_KIB: Final = 300 * 1024


@pytest.fixture(scope="module")
def server(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    with running_webhook(plane.kubeconfig, tmp_path_factory.mktemp("webhook"), "--register", "none") as running:
        yield running


async def is_answered(webhook: Webhook) -> bool:
    """Whether a new client gets an answer to a review in the time that the API server has."""
    headers = {"Content-Type": "application/json"}
    async with (
        asyncio.timeout(2),
        webhook.session() as session,
        session.post(VALIDATE, data=REVIEW, headers=headers) as response,
    ):
        return response.status == 200


@contextlib.asynccontextmanager
async def descriptors(number: int) -> AsyncIterator[None]:
    """At least so many for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        pytest.skip(f"needs {number} descriptors, and the hard limit (ulimit -Hn) is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory_kib(webhook: Webhook) -> int:
    lines = Path(f"/proc/{webhook.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


@pytest.mark.parametrize(
    ("number", "has_tls"),
    # A handshake costs both sides some ms: fewer of them do, as long as they are more than are let in.
    [(10_000, False), (2_000, True)],
    ids=["before TLS", "after the handshake"],
)
async def test_ten_thousand_idle_connections_keep_nobody_else_waiting(
    server: Webhook, number: int, *, has_tls: bool
) -> None:
    await eventually(lambda: is_answered(server))
    async with descriptors(number + 1000):
        idle: list[socket.socket] = []
        tls = ssl.create_default_context(cadata=server.ca_bundle)

        def dial() -> None:
            sock = socket.create_connection(("127.0.0.1", server.port))
            idle.append(sock)
            if has_tls:
                # Whoever is turned away in the middle of it does not matter here.
                with contextlib.suppress(OSError):
                    idle[-1] = tls.wrap_socket(sock, server_hostname="127.0.0.1")

        try:
            for _ in range(number):
                await asyncio.to_thread(dial)
                if len(idle) % 500 == 0:
                    assert await is_answered(server)
            assert await is_answered(server)
            assert memory_kib(server) < MEMORY_LIMIT_KIB
        finally:
            for sock in idle:
                sock.close()
    assert await is_answered(server)


async def opened(webhook: Webhook) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    tls = ssl.create_default_context(cadata=webhook.ca_bundle)
    return await asyncio.open_connection("127.0.0.1", webhook.port, ssl=tls)


async def status_of(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(15):
        return int((await reader.readline()).split()[1])


async def test_bodies_that_trickle_are_the_senders_fault_and_nobody_elses_problem(server: Webhook) -> None:
    await eventually(lambda: is_answered(server))
    slow = [await opened(server) for _ in range(50)]
    for _, writer in slow:
        writer.write((HEAD % len(REVIEW)).encode() + REVIEW[:10])

    async def trickle(writer: asyncio.StreamWriter) -> None:
        for byte in REVIEW[10:-1]:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        tricklers = [group.create_task(trickle(writer)) for _, writer in slow]
        assert await is_answered(server)
        assert [await status_of(reader) for reader, _ in slow] == [408] * 50
        for trickler in tricklers:
            trickler.cancel()
    for _, writer in slow:
        writer.transport.abort()
    assert not server.lines("request_failed")


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 100\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\nfff\r\nabc"],
    ids=["length", "chunked"],
)
async def test_a_body_that_is_cut_off_is_no_trouble_of_ours(server: Webhook, framing: bytes) -> None:
    _, writer = await opened(server)
    head = (HEAD % 0).encode().replace(b"Content-Length: 0\r\n\r\n", b"")
    writer.write(head + framing)
    await writer.drain()
    writer.transport.abort()
    await eventually(lambda: is_answered(server))
    assert not server.lines("request_failed")


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"zz\r\nabc\r\n0\r\n\r\n", 400), (b"ffffffffffffffffffff\r\n", 400), (b"3\r\nabcdef\r\n0\r\n\r\n", 400)],
    ids=["no number", "a huge number", "longer than it says"],
)
async def test_chunks_that_are_none_are_refused(server: Webhook, body: bytes, status: int) -> None:
    reader, writer = await opened(server)
    head = (HEAD % 0).encode().replace(b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n")
    writer.write(head + body)
    assert await status_of(reader) == status
    writer.transport.abort()
    assert not server.lines("request_failed")


@pytest.mark.parametrize("size", [8 * 1024, 64 * 1024, 1024 * 1024], ids=["8 KiB", "64 KiB", "1 MiB"])
async def test_a_head_that_is_too_long_is_refused(server: Webhook, size: int) -> None:
    reader, writer = await opened(server)
    writer.write(b"GET / HTTP/1.1\r\nHost: w\r\nX-Long: " + b"x" * size + b"\r\n\r\n")
    assert await status_of(reader) == 400
    writer.transport.abort()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1.* is deprecated")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=["1.0", "1.1"])
async def test_tls_before_1_2_is_refused(server: Webhook, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cadata=server.ca_bundle)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", server.port, ssl=context)


@pytest.mark.parametrize(
    "cipher",
    ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "DHE-RSA-AES128-GCM-SHA256", "NULL"],
)
async def test_weak_ciphers_are_refused(server: Webhook, cipher: str) -> None:
    context = ssl.create_default_context(cadata=server.ca_bundle)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", server.port, ssl=context)


async def test_renegotiation_is_refused(server: Webhook, tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("needs openssl, since Python's ssl cannot ask for a renegotiation")
    ca = tmp_path / "ca.crt"
    ca.write_text(server.ca_bundle)
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_2", "-CAfile", str(ca)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    async with asyncio.timeout(20):
        await process.stdout.readuntil(b"Extended master secret")
        process.stdin.write(b"R\n")
        out = await process.stdout.read()
        await process.wait()
    assert b"RENEGOTIATING" in out
    assert b"no renegotiation" in out
    await eventually(lambda: is_answered(server))
