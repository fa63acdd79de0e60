"""Events about objects (events.k8s.io/v1): what `kubectl describe` shows a person. Never in anybody's way."""

import asyncio
import contextlib
import random
import socket
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from allocator.kube.client import KubeClient
from allocator.kube.errors import AlreadyExists, ApiError, NotFound, ServerError, TooManyRequests, Unreachable
from allocator.kube.resources import EVENTS, Object
from allocator.runtime import backoff, logs
from allocator.runtime.clock import Clock

log = logs.get_logger(__name__)

QUEUE_LIMIT = 1000  # different events that wait to be written; the oldest goes first
SERIES_LIMIT = 4096  # written events that a repeat is added to
SERIES_S = 360.0  # client-go's: a repeat after six quiet minutes is a new event
SERIES_PAUSE_S = 10.0  # between two writes of one series, however often it happens
POLL_S = 1.0  # how often a series that has to wait is looked at
RATE_PER_S = 5.0
BURST = 50
# Bounds of events.k8s.io/v1: the server refuses longer ones
NOTE_LIMIT = 1024
WORD_LIMIT = 128
NAME_LIMIT = 253

Type = Literal["Normal", "Warning"]
Key = tuple[str, str, str, str]  # uid of what it is about, reason, message, type


@dataclass(slots=True)
class _Waiting:
    """An event to write, and how often it happened since the last write."""

    number: int  # microseconds since 1970, made unique: part of the name
    first: datetime
    last: datetime
    count: int
    event: Object


@dataclass(slots=True)
class _Series:
    """An event on the server."""

    namespace: str
    name: str
    count: int
    at: float


class Recorder:
    """`emit` from anywhere on the event loop, while `run` writes. Repeats of an event within six minutes are counted
    on the first (`series.count`), so that a retry loop costs one object and few writes.
    """

    def __init__(self, client: KubeClient, *, component: str, clock: Clock, rng: backoff.Random | None = None) -> None:
        self.dropped = 0  # events that nobody will ever see
        self._client = client
        self._component = component
        self._instance = f"{component}-{socket.gethostname()}"[:WORD_LIMIT]
        self._clock = clock
        self._rng = rng or random.SystemRandom()
        self._waiting: OrderedDict[Key, _Waiting] = OrderedDict()
        self._series: OrderedDict[Key, _Series] = OrderedDict()
        self._wake = asyncio.Event()
        self._tokens = float(BURST)
        self._filled_at = clock.monotonic()
        self._is_failing = False
        self._number = 0

    def emit(
        self,
        *,
        regarding: Object,
        reason: str,
        message: str,
        action: str,
        type: Type = "Normal",  # noqa: A002 - its name in the API
        related: Object | None = None,
    ) -> None:
        """Say that something happened to `regarding`, a whole object or one with kind and metadata at least.

        `reason` and `action` are CamelCase words: why, and what was being done. Returns at once and raises nothing;
        what cannot be written is dropped and counted.
        """
        about = _reference(regarding)
        if not about.get("name"):
            self._drop("no object", 1)
            return
        now = self._clock.now()
        note = message if len(message) <= NOTE_LIMIT else message[: NOTE_LIMIT - 3] + "..."
        key = (about.get("uid") or f"{about.get('namespace', '')}/{about['name']}", reason, note, type)
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.count += 1
            waiting.last = now
            return
        event: Object = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "action": action[:WORD_LIMIT],
            "reason": reason[:WORD_LIMIT],
            "note": note,
            "type": type,
            "regarding": about,
            "reportingController": self._component,
            "reportingInstance": self._instance,
        }
        if related is not None:
            event["related"] = _reference(related)
        if len(self._waiting) >= QUEUE_LIMIT:
            _, oldest = self._waiting.popitem(last=False)
            self._drop("queue full", oldest.count)
        self._number = max(self._number + 1, round(now.timestamp() * 1e6))
        self._waiting[key] = _Waiting(self._number, now, now, 1, event)
        self._wake.set()

    async def run(self) -> None:
        """Write events until cancelled; what still waits then is lost."""
        delays = None
        while True:
            await self._wake.wait()
            if not self._waiting:
                self._wake.clear()
                continue
            key = self._next_due()
            if key is None:
                await self._clock.sleep(POLL_S)
                continue
            waiting = self._waiting.pop(key)
            await self._take_token()
            try:
                await self._write(key, waiting)
            except (TooManyRequests, ServerError, Unreachable) as error:
                self._failed(error)
                self._put_back(key, waiting)
                delays = delays or backoff.delays(base_s=1.0, cap_s=30.0, rng=self._rng)
                await self._clock.sleep(next(delays))
            except ApiError as error:  # a namespace that is being deleted, RBAC: it will not get better
                self._failed(error)
                self._drop("refused", waiting.count)
            else:
                self._is_failing = False
                delays = None

    def _next_due(self) -> Key | None:
        written_before = self._clock.monotonic() - SERIES_PAUSE_S
        for key in self._waiting:
            series = self._series.get(key)
            if series is None or series.at <= written_before:
                return key
        return None

    async def _write(self, key: Key, waiting: _Waiting) -> None:
        now = self._clock.monotonic()
        series = self._series.get(key)
        if series is not None and now - series.at < SERIES_S:
            count = series.count + waiting.count
            observed = {"count": count, "lastObservedTime": _micro_time(waiting.last)}
            try:
                await self._client.patch(EVENTS, series.name, {"series": observed}, namespace=series.namespace)
            except NotFound:  # events live for an hour or less
                del self._series[key]
            else:
                series.count, series.at = count, now
                self._series.move_to_end(key)
                return
        await self._create(key, waiting)

    async def _create(self, key: Key, waiting: _Waiting) -> None:
        about = waiting.event["regarding"]
        namespace = about.get("namespace") or "default"
        suffix = f".{waiting.number:x}"  # the same when the write is tried again
        meta = {"name": about["name"][: NAME_LIMIT - len(suffix)] + suffix, "namespace": namespace}
        event = {**waiting.event, "metadata": meta, "eventTime": _micro_time(waiting.first)}
        if waiting.count > 1:
            event["series"] = {"count": waiting.count, "lastObservedTime": _micro_time(waiting.last)}
        with contextlib.suppress(AlreadyExists):  # the try before this one did land
            await self._client.create(EVENTS, event)
        now = self._clock.monotonic()
        self._series[key] = _Series(namespace, meta["name"], waiting.count, now)
        self._series.move_to_end(key)
        while len(self._series) > SERIES_LIMIT or next(iter(self._series.values())).at < now - SERIES_S:
            self._series.popitem(last=False)

    async def _take_token(self) -> None:
        while True:
            now = self._clock.monotonic()
            self._tokens = min(float(BURST), self._tokens + (now - self._filled_at) * RATE_PER_S)
            self._filled_at = now
            if self._tokens >= 1:
                self._tokens -= 1
                return
            await self._clock.sleep((1 - self._tokens) / RATE_PER_S)

    def _put_back(self, key: Key, waiting: _Waiting) -> None:
        repeat = self._waiting.pop(key, None)
        if repeat is not None:
            waiting.count += repeat.count
            waiting.last = repeat.last
        self._waiting[key] = waiting
        self._waiting.move_to_end(key, last=False)

    def _failed(self, error: ApiError | Unreachable) -> None:
        if not self._is_failing:  # once for each outage: an event is not worth a line for each try
            log.warning("event_not_written", error=str(error))
        self._is_failing = True

    def _drop(self, why: str, count: int) -> None:
        if not self.dropped:
            log.warning("events_dropped", why=why)
        self.dropped += count


def _reference(obj: Mapping[str, Any]) -> Object:
    meta = obj.get("metadata") or {}
    reference = {
        "apiVersion": obj.get("apiVersion"),
        "kind": obj.get("kind"),
        "namespace": meta.get("namespace"),
        "name": meta.get("name"),
        "uid": meta.get("uid"),
        "resourceVersion": meta.get("resourceVersion"),
    }
    return {field: value for field, value in reference.items() if value}


def _micro_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
