"""A proxy between a process and the API server that does to single calls what a test says; the rest passes as it is.

`network.py` holds up bytes, this one speaks HTTP: it can refuse, lose an answer, hide objects or play with a watch.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
from aiohttp import web
from yarl import URL

from allocator.kube.access import Access, find_access
from tests.plane.controllers import Controller, running_controller
from tests.unit.scripted_server import kubeconfig as kubeconfig_for
from tests.unit.scripted_server import refuses

if TYPE_CHECKING:
    from pathlib import Path

# What passes through unchanged; the rest belongs to one connection or to the proxy itself.
_HEADERS = ("Accept", "Content-Type", "User-Agent")

Lines: TypeAlias = Callable[[bytes], Awaitable[Sequence[bytes]]]


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way. `of` is the plural of its resource."""

    between: Between
    request: web.BaseRequest
    payload: bytes

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def of(self) -> str:
        parts = self.request.path.split("/")[2:] if self.request.path.startswith("/api/") else []
        parts = parts or self.request.path.split("/")[3:]
        rest = parts[1:]
        if rest[:1] == ["namespaces"] and len(rest) > 2:
            rest = rest[2:]
        return rest[0] if rest else ""

    @property
    def name(self) -> str:
        """Of the object; empty for a list, a watch or a creation."""
        parts = self.request.path.rstrip("/").split("/")
        return parts[parts.index(self.of) + 1] if self.of in parts[:-1] else ""

    @property
    def is_watch(self) -> bool:
        return "watch" in self.request.query

    @property
    def is_list(self) -> bool:
        return self.method == "GET" and not self.name and not self.is_watch

    @property
    def is_write(self) -> bool:
        return self.method != "GET" and "dryRun" not in self.request.query

    @property
    def body(self) -> Any:
        return json.loads(self.payload) if self.payload else None

    async def passes(self, *, lines: Lines | None = None, body: Any = None) -> web.StreamResponse:
        """What the API server answers. `lines` makes of each line of a watch the lines that are passed on."""
        payload = self.payload if body is None else json.dumps(body).encode()
        async with self.between.forward(self, payload) as answer:
            if not self.is_watch:
                kind = answer.headers.get("Content-Type", "application/json")
                return web.Response(status=answer.status, body=await answer.read(), headers={"Content-Type": kind})
            return await self._streamed(answer, lines)

    async def _streamed(self, answer: aiohttp.ClientResponse, lines: Lines | None) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
        await response.prepare(self.request)
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            async for line in answer.content:
                for each in [line] if lines is None else await lines(line):
                    await response.write(each)
        return response

    async def refused(self, status: int, reason: str, *, retry_after: int | None = None) -> web.StreamResponse:
        return await refuses(status, reason, "refused by the test", retry_after=retry_after)(self.request)

    async def hidden(self) -> web.StreamResponse:
        """The object is not there, in the API server's words; a list is empty, at the true version."""
        if self.name:
            details = {"name": self.name, "kind": self.of}
            said = {"kind": "Status", "apiVersion": "v1", "code": 404, "reason": "NotFound", "details": details}
            return web.json_response(said, status=404)
        answer = await self.passes()
        assert isinstance(answer, web.Response)
        assert isinstance(answer.body, bytes)
        return web.json_response({**json.loads(answer.body), "items": []})

    def cut(self) -> web.StreamResponse:
        """No answer at all: the connection breaks."""
        if self.request.transport is not None:
            self.request.transport.abort()
        return web.Response()


Meddle: TypeAlias = Callable[[Call], Awaitable[web.StreamResponse]]


async def untouched(call: Call) -> web.StreamResponse:
    return await call.passes()


@dataclass(slots=True)
class Between:
    """`kubeconfig` leads here. `calls` are those that came, in order; `meddle` answers them."""

    kubeconfig: Path
    access: Access
    session: aiohttp.ClientSession
    meddle: Meddle = untouched
    calls: list[Call] = field(default_factory=list)

    def forward(self, call: Call, payload: bytes) -> Any:
        headers = {name: call.request.headers[name] for name in _HEADERS if name in call.request.headers}
        url = URL(self.access.server + call.request.path_qs, encoded=True)
        return self.session.request(
            call.method, url, headers=headers, data=payload or None, ssl=self.access.tls or True, allow_redirects=False
        )

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = Call(self, request, await request.read())
        self.calls.append(call)
        try:
            return await self.meddle(call)
        except (aiohttp.ClientError, ConnectionError):
            return call.cut()

    def writes(self, of: str) -> list[Call]:
        return [call for call in self.calls if call.is_write and call.of == of]


@asynccontextmanager
async def between(kubeconfig: Path, directory: Path, *, user: dict[str, Any] | None = None) -> AsyncIterator[Between]:
    """The proxy in front of the API server of the kubeconfig; it has that kubeconfig's rights."""
    access = await find_access(kubeconfig)
    headers = {}
    if authorization := await access.credentials.authorization():
        headers["Authorization"] = authorization
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
        made = Between(kubeconfig, access, session)
        runner = web.ServerRunner(web.Server(made.handle), handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        folder = directory / "between"
        await asyncio.to_thread(folder.mkdir)
        made.kubeconfig = kubeconfig_for(folder, f"http://{host}:{port}", user=user)
        try:
            yield made
        finally:
            await runner.cleanup()


@asynccontextmanager
async def controller_behind(api: Between, namespace: str, directory: Path) -> AsyncIterator[Controller]:
    """A controller whose calls come by here. Its end is waited for in a thread: it has calls to make then too."""
    running = running_controller(api.kubeconfig, namespace, directory)
    controller = running.__enter__()
    try:
        yield controller
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)
