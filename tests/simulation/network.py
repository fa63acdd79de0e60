"""Between the product's API client and the simulated server: requests, answers and watches on their way.

The client is the product's own, down to where aiohttp would take over. What the weather does to a request happens here:
it is refused, its answer is lost, it takes effect when the caller has long given up.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Self, cast
from urllib.parse import unquote

import aiohttp
import msgspec

from allocator.kube import wire
from allocator.kube.client import NO_TIMEOUT, KubeClient
from devcluster.plane.problems import Problem
from tests.simulation.apiserver import Feed, Reply, Request

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Mapping

    from allocator.kube.access import Access
    from devcluster.plane.problems import Object
    from tests.simulation.apiserver import ApiServer
    from tests.simulation.faults import Fate, Weather
    from tests.simulation.loop import Process, VirtualLoop

BOOKMARK_S: Final = 60.0


class Delivery:
    """One request on the server: who sent it, and whether somebody still waits for the answer."""

    def __init__(self, process: Process, request: Request, sent_at: float) -> None:
        self.process = process
        self.request = request
        self.sent_at = sent_at
        self.is_stray = False


class Network:
    """`on_sent` hears of each request as it leaves its process, `on_arrival` of each one that takes effect."""

    def __init__(self, loop: VirtualLoop, server: ApiServer, weather: Weather, server_process: Process) -> None:
        self.loop = loop
        self.weather = weather
        self.on_sent: Callable[[Delivery, Fate], None] = lambda _delivery, _fate: None
        self.on_arrival: Callable[[Delivery, Fate], None] = lambda _delivery, _fate: None
        self.on_reply: Callable[[Delivery, Reply], None] = lambda _delivery, _reply: None
        # Called once a request has taken effect.
        self.ambush: Callable[[Delivery], None] | None = None
        # Whose request is taking effect just now.
        self.at_work: Delivery | None = None
        self._server = server
        self._context = server_process.context
        self.streams: list[WatchStream] = []

    async def send(self, process: Process, request: Request, idle_s: float | None) -> SimResponse:
        if process.is_dead:
            raise aiohttp.ClientConnectionError("the process is dead")
        loop = self.loop
        delivery = Delivery(process, request, loop.time())
        fate = self.weather.fate(process, request)
        self.on_sent(delivery, fate)
        answered: asyncio.Future[SimResponse] = loop.create_future()
        if fate.breaks_s is not None:
            reset = aiohttp.ClientOSError("connection reset")
            loop.call_later(fate.breaks_s, _fail, answered, reset, context=self._context)
        if fate.there_s is None:
            refusal = aiohttp.ClientConnectionError("connection refused")
            loop.call_later(fate.back_s or 0.0, _fail, answered, refusal, context=self._context)
        else:
            loop.call_later(fate.there_s, self._arrive, delivery, fate, answered, idle_s, context=self._context)
        return await answered

    def cut_watches(self, name: str = "") -> None:
        """Every watch ends, or all of one process."""
        for stream in list(self.streams):
            if not name or stream.process.name == name:
                stream.fail(aiohttp.ClientPayloadError("the connection was cut"))

    def _arrive(
        self, delivery: Delivery, fate: Fate, answered: asyncio.Future[SimResponse], idle_s: float | None
    ) -> None:
        delivery.is_stray = answered.done() or delivery.process.is_dead
        request = delivery.request
        self.on_arrival(delivery, fate)
        if request.is_watch:
            self._watch(delivery, answered, idle_s)
            return
        if fate.kind == "conflict":
            self._server.touch(request)
        if fate.takes_effect:
            self.at_work = delivery
            partial = self.weather.leaving_out(delivery.process, request)
            reply = self._server.answer(request, leaving_out=partial)
            self.at_work = None
            if self.ambush is not None:
                self.ambush(delivery)
        else:
            reply = _refusal(fate)
        if fate.status == 504:
            reply = _refusal(fate)
        if fate.back_s is None:
            return
        if fate.status == -1:
            lost = aiohttp.ClientOSError("connection reset")
            self.loop.call_later(fate.back_s, _fail, answered, lost, context=self._context)
        else:
            self.loop.call_later(fate.back_s, self._answer, delivery, answered, reply, context=self._context)

    def _answer(self, delivery: Delivery, answered: asyncio.Future[SimResponse], reply: Reply) -> None:
        if not answered.done():
            if delivery.process.name in self.weather.cut_off:
                answered.set_exception(aiohttp.ClientOSError("connection reset"))
                return
            self.on_reply(delivery, reply)
            answered.set_result(SimResponse(reply.status, reply.headers, reply.payload))

    def _watch(self, delivery: Delivery, answered: asyncio.Future[SimResponse], idle_s: float | None) -> None:
        if delivery.is_stray:
            return
        if self.weather.strikes("expired watch"):
            self._server.store.compact()
        target = self._server.target(delivery.request.path)
        assert target is not None, delivery.request.path
        try:
            stream = WatchStream(self, delivery, self._server, target, idle_s or 1e9)
        except Problem as problem:
            answered.set_result(SimResponse(problem.code, {}, msgspec.json.encode(problem.status())))
            return
        self.streams.append(stream)
        answered.set_result(SimResponse(200, {}, b"", stream))

    def forget(self, stream: WatchStream) -> None:
        if stream in self.streams:
            self.streams.remove(stream)


def _refusal(fate: Fate) -> Reply:
    reasons = {429: "TooManyRequests", 503: "ServiceUnavailable", 504: "Timeout"}
    problem = Problem(fate.status, reasons.get(fate.status, "InternalError"), f"the weather: {fate.kind}")
    headers = {"Retry-After": str(fate.retry_after_s)} if fate.retry_after_s else {}
    return Reply(fate.status, msgspec.json.encode(problem.status()), headers)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


class WatchStream:
    """The body of a watch's answer: events in order, each after its latency, or later when the watch is stuck."""

    def __init__(self, network: Network, delivery: Delivery, server: ApiServer, target: Any, idle_s: float) -> None:
        self.process = delivery.process
        self._path = delivery.request.path
        self._network = network
        self._loop = network.loop
        self._context = network._context  # noqa: SLF001 - the server's
        self._idle_s = idle_s
        self._chunks: deque[bytes] = deque()
        self._wanted: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._is_over = False
        self._heard_at = self._last_at = self._loop.time()
        self._timeout_s = float(delivery.request.query.get("timeoutSeconds", "300"))
        self._feed = Feed(server.store, target, delivery.request, self._send)
        self._feed.begin()
        self._loop.call_later(BOOKMARK_S, self._bookmark, context=self._context)
        self._loop.call_later(self._timeout_s, self._end, context=self._context)
        self._loop.call_later(self._idle_s, self._look_for_silence, context=self._context)

    async def iter_any(self) -> AsyncIterator[bytes]:
        while True:
            while self._chunks:
                yield self._chunks.popleft()
            if self._error is not None:
                raise self._error
            if self._is_over:
                return
            self._wanted = self._loop.create_future()
            await self._wanted

    def is_of(self, path: str) -> bool:
        return self._path == path

    def stick(self, for_s: float) -> None:
        self._last_at = max(self._last_at, self._loop.time() + for_s)

    def close(self) -> None:
        """By the client, or by either end after an error."""
        self._is_over = True
        self._feed.close()
        self._feed.close = lambda: None
        self._network.forget(self)

    def fail(self, error: Exception) -> None:
        if not self._is_over:
            self._error = error
            self.close()
            self._wake()

    def _send(self, kind: str, obj: Object) -> None:
        weather = self._network.weather
        if kind != "BOOKMARK" and weather.loses(self._path):
            return
        chunk = msgspec.json.encode({"type": kind, "object": obj}) + b"\n"
        self._last_at = max(self._last_at, self._loop.time() + weather.latency_s()) + weather.stuck_s()
        self._loop.call_at(self._last_at, self._arrive, chunk, context=self._context)

    def _arrive(self, chunk: bytes) -> None:
        if self._is_over or self.process.name in self._network.weather.cut_off:
            return
        if self._network.weather.strikes("cut watch"):
            self.fail(aiohttp.ClientPayloadError("the connection was cut"))
            return
        self._heard_at = self._loop.time()
        self._chunks.append(chunk)
        self._wake()

    def _wake(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    def _bookmark(self) -> None:
        if not self._is_over:
            self._feed.bookmark()
            self._loop.call_later(BOOKMARK_S, self._bookmark, context=self._context)

    def _end(self) -> None:
        """The server ends the watch in order, once all has been delivered."""
        if self._is_over:
            return
        if self._last_at > self._loop.time():
            self._loop.call_at(self._last_at, self._end, context=self._context)
            return
        self.close()
        self._wake()

    def _look_for_silence(self) -> None:
        silent_s = self._loop.time() - self._heard_at
        if self._is_over:
            return
        if silent_s >= self._idle_s:
            self.fail(aiohttp.ServerTimeoutError("Timeout on reading data from socket"))
        else:
            self._loop.call_later(self._idle_s - silent_s, self._look_for_silence, context=self._context)


class SimResponse:
    """As much of aiohttp's response as the client uses."""

    def __init__(
        self, status: int, headers: Mapping[str, str], payload: bytes, content: WatchStream | None = None
    ) -> None:
        self.status = status
        self.headers = headers
        self.content = content
        self.content_type = wire.JSON
        self._payload = payload

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def read(self) -> bytes:
        return self._payload

    def close(self) -> None:
        if self.content is not None:
            self.content.close()


class SimClient(KubeClient):
    """The product's client of one process, on the simulated network."""

    def __init__(self, network: Network, process: Process, *, user_agent: str) -> None:
        nothing = cast("Access", None), cast("aiohttp.ClientSession", None)
        super().__init__(*nothing, user_agent=user_agent, timeout_s=10.0)
        self._network = network
        self._process = process

    async def _open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str],
        headers: dict[str, str],
        data: bytes | None = None,
        timeout: aiohttp.ClientTimeout = NO_TIMEOUT,  # noqa: ASYNC109 - aiohttp's settings, not a deadline
    ) -> aiohttp.ClientResponse:
        request = Request(
            method,
            unquote(path),
            params,
            as_metadata="PartialObjectMetadata" in headers["Accept"],
            content_type=headers.get("Content-Type", ""),
            body=None if data is None else msgspec.json.decode(data),
        )
        response = await self._network.send(self._process, request, timeout.sock_read)
        return cast("aiohttp.ClientResponse", response)
