"""A client that costs little: it shares the machine with what it measures.

Requests are bytes made beforehand, connections are kept, answers are not decoded.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from allocator.kube.access import find_access

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from pathlib import Path

    from allocator.kube.access import Access
    from allocator.kube.resources import Object

_SHOWN: Final = 300


@dataclass(frozen=True, slots=True)
class Sent:
    """How long each request took, refused or not, and what was refused."""

    took_ms: list[float] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sender:
    """Connections to the API server, each with one request on its way at most."""

    access: Access
    authorization: str | None
    connections: Sequence[_Connection]

    @classmethod
    @asynccontextmanager
    async def connect(cls, kubeconfig: Path, connections: int) -> AsyncIterator[Sender]:
        access = await find_access(kubeconfig)
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(_connection(access)) for _ in range(connections)]
            yield cls(access, await access.credentials.authorization(), opened)

    def request(self, method: str, path: str, body: Object | None = None, content: str = "application/json") -> bytes:
        encoded = b"" if body is None else json.dumps(body).encode()
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {urlsplit(self.access.server).netloc}",
            "Accept: application/json",
        ]
        lines += [f"Content-Type: {content}", f"Content-Length: {len(encoded)}"]
        if self.authorization:
            lines.append(f"Authorization: {self.authorization}")
        return "\r\n".join([*lines, "", ""]).encode() + encoded

    async def send_all(self, requests: Iterable[bytes]) -> Sent:
        """Every request, as many at a time as there are connections."""
        left = iter(requests)
        sent = Sent()

        async def work(connection: _Connection) -> None:
            for request in left:
                began = time.perf_counter()
                refusal = await connection.send(request)
                sent.took_ms.append((time.perf_counter() - began) * 1000)
                if refusal:
                    sent.refusals.append(refusal)

        async with asyncio.TaskGroup() as group:
            for connection in self.connections:
                group.create_task(work(connection))
        return sent


@dataclass(frozen=True, slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, request: bytes) -> str:
        """Why it was refused; nothing when it was not."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head[:-4].split(b"\r\n")[1:])
        if b"content-length" in fields:
            body = await self.reader.readexactly(int(fields[b"content-length"]))
        else:  # in chunks; JSON has no bare line break, so this is their end
            body = await self.reader.readuntil(b"\r\n0\r\n\r\n")
        return "" if head.startswith(b"HTTP/1.1 2") else body[:_SHOWN].decode(errors="replace")


@asynccontextmanager
async def _connection(access: Access) -> AsyncIterator[_Connection]:
    url = urlsplit(access.server)
    reader, writer = await asyncio.open_connection(
        url.hostname, url.port, ssl=access.tls, server_hostname=access.server_name if access.tls else None
    )
    try:
        yield _Connection(reader, writer)
    finally:
        writer.close()
