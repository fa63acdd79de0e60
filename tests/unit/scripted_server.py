"""An HTTP server on a real socket that answers as a test tells it to, and remembers what it was asked."""

import asyncio
import json
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from allocator.kube.client import KubeClient

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any  # decoded JSON, None without a body


@dataclass(slots=True)
class ScriptedServer:
    """Each request takes the next answer of the script; beyond its end `otherwise` answers, without one a request
    hangs until the server stops.
    """

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    script: deque[Answer] = field(default_factory=deque)
    otherwise: Answer | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def then(self, *answers: Answer) -> None:
        self.script.extend(answers)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        payload = await request.read()
        body = json.loads(payload) if payload else None
        self.asked.append(Asked(request.method, request.path, dict(request.query), dict(request.headers), body))
        if self.script:
            return await self.script.popleft()(request)
        if self.otherwise is None:
            await self.stopping.wait()
            return web.Response(status=503)
        return await self.otherwise(request)


def says(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return answer


def refuses(status: int, reason: str, message: str = "", *, retry_after: int | None = None) -> Answer:
    body = {"kind": "Status", "apiVersion": "v1", "code": status, "reason": reason, "message": message}
    headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
    return says(body, status=status, headers=headers)


def says_text(text: str, *, status: int = 200, content_type: str = "text/plain") -> Answer:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=text, status=status, content_type=content_type)

    return answer


def cuts(payload: bytes = b"", *, announced: int = 0) -> Answer:
    """Cut the connection: before the headers, or after `payload` of an announced length."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        if announced:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            response.content_length = announced
            await response.prepare(request)
            await response.write(payload)
        transport.close()
        return web.Response()

    return answer


def hangs(server: ScriptedServer) -> Answer:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        await server.stopping.wait()
        return web.Response(status=503)

    return answer


class Stream:
    """A watch that a test feeds while it runs."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self._feed: asyncio.Queue[bytes | None] = asyncio.Queue()

    def event(self, kind: str, obj: Mapping[str, Any]) -> None:
        self._feed.put_nowait(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

    def write(self, raw: bytes) -> None:
        self._feed.put_nowait(raw)

    def end(self) -> None:
        self._feed.put_nowait(None)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self.opened.set()
        while (chunk := await self._feed.get()) is not None:
            await response.write(chunk)
        return response


@asynccontextmanager
async def serve(tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer()
    runner = web.ServerRunner(web.Server(server.handle), handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"{'https' if tls else 'http'}://{host}:{port}"
    try:
        yield server
    finally:
        server.stopping.set()
        await runner.cleanup()


def kubeconfig(
    directory: Path,
    server: str,
    *,
    user: Mapping[str, Any] | None = None,
    cluster: Mapping[str, Any] | None = None,
) -> Path:
    path = directory / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "one", "user": "me"}}],
        "clusters": [{"name": "one", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": "me", "user": dict(user or {})}],
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@asynccontextmanager
async def connected(directory: Path, *, timeout_s: float = 5.0) -> AsyncIterator[tuple[ScriptedServer, KubeClient]]:
    async with (
        serve() as server,
        KubeClient.connect(
            kubeconfig=kubeconfig(directory, server.url), user_agent="spiderpool-test/1", timeout_s=timeout_s
        ) as client,
    ):
        yield server, client


async def eventually(condition: Callable[[], bool], *, within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s")
        await asyncio.sleep(0.005)
