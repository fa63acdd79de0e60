"""One resource kept in memory by list and watch."""

import asyncio
import math
import random
from collections.abc import Callable, Iterator
from contextlib import aclosing

from allocator.kube.client import IDLE_S, KubeClient
from allocator.kube.errors import ApiError, Gone, Unreachable
from allocator.kube.resources import Object, Objects, Resource
from allocator.kube.view import Change, View
from allocator.runtime import backoff, logs
from allocator.runtime.clock import Clock

__all__ = ["Cache", "Change"]

log = logs.get_logger(__name__)

BACKOFF_BASE_S = 0.5
BACKOFF_CAP_S = 30.0
WATCH_S = 300
# After so long without contact (a frozen process, a cut) a watch that is opened again proves nothing until its first
# bookmark, a minute later; a list proves everything at once.
LOST_S = 120.0
# A watch that ends sooner with nothing to tell is a refusal by a proxy, not a watch: without this bound it would
# be opened again as fast as the network allows.
SHORT_WATCH_S = 1.0


class Cache:
    """`run` keeps it up to date; everything else may be asked at any time from the same event loop.

    The objects are the cache's own and must not be edited. `on_change` is called at once, in order, by whatever
    made the change (`run`, `note` or `note_deleted`); when it raises, that is a bug and comes out of there. `keep` cuts
    each object down to what is to be remembered of it: metadata with name, namespace, uid and resourceVersion at least.
    """

    def __init__(  # noqa: PLR0913 - what a list takes, and how to follow it
        self,
        client: KubeClient,
        resource: Resource,
        *,
        clock: Clock,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        keep: Callable[[Object], Object] | None = None,
        on_change: Callable[[Change], None] | None = None,
        watch_s: int = WATCH_S,
        idle_s: float = IDLE_S,
        rng: backoff.Random | None = None,
    ) -> None:
        self._client = client
        self._resource = resource
        self._clock = clock
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._metadata_only = metadata_only
        self._keep = keep or _whole
        self._watch_s = watch_s
        self._idle_s = idle_s
        self._rng = rng or random.SystemRandom()
        self._view = View(on_change or _ignore, selects=bool(label_selector or field_selector))
        self._version = ""  # to watch from; "" means list first
        self._synced = asyncio.Event()
        self._contact = -math.inf
        self._delays: Iterator[float] | None = None

    @property
    def synced(self) -> bool:
        """True from the first complete list on; it stays true, `staleness_s` tells how old the picture is."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        await self._synced.wait()

    def staleness_s(self) -> float:
        """Seconds since the server last proved that we see everything (list, event, bookmark, watch that ended in
        order); infinite before the first list. On a quiet resource about 60 s is normal: bookmarks are that rare.
        """
        return self._clock.monotonic() - self._contact

    def get(self, name: str, namespace: str | None = None) -> Object | None:
        return self._view.objects.get((namespace or "", name))

    def items(self) -> Objects:
        return list(self._view.objects.values())

    def note(self, obj: Object) -> None:
        """Show what this process just wrote, as the server answered it, before the watch does.

        Events of that name are ignored until the watch shows this very version, or a list begun later is in, or
        the watch has proven that it never will. A note that comes after the watch's own event changes nothing.
        """
        if self._metadata_only:
            obj = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": obj["metadata"]}
        self._view.note(self._keep(obj), self._clock.monotonic())

    def note_deleted(self, name: str, uid: str, namespace: str | None = None) -> None:
        """Drop what this process just deleted for good (not one that finalizers still keep): events of that uid
        are ignored from now on.
        """
        self._view.note_deleted((namespace or "", name), uid, self._clock.monotonic())

    async def run(self) -> None:
        """List, then watch, until cancelled. Whatever the server answers is waited out."""
        while True:
            try:
                if not self._version:
                    await self._list()
                began = self._clock.monotonic()
                told = await self._watch()
                if not told and self._clock.monotonic() - began < SHORT_WATCH_S:
                    await self._pause("watch_too_short", None)
            except Gone as error:
                self._version = ""
                await self._pause("watch_expired", error)
            except (ApiError, Unreachable) as error:
                if self.staleness_s() > LOST_S:
                    self._version = ""
                await self._pause("watch_failed", error)

    async def _list(self) -> None:
        turn = self._view.begin_list()
        items, version = await self._client.list_all(
            self._resource,
            namespace=self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            metadata_only=self._metadata_only,
        )
        self._view.replace_all(map(self._keep, items), turn)
        self._version = version
        self._touch()
        if not self.synced:
            log.info("cache_synced", resource=self._resource.plural, items=len(items))
            self._synced.set()

    async def _watch(self) -> bool:
        """Follow one watch to its end in order. False when it told nothing."""
        told = False
        # Spread over time, or all watches of a cluster that started together end together.
        timeout_s = max(1, round(self._watch_s * self._rng.uniform(0.8, 1.2)))
        events = self._client.watch(
            self._resource,
            namespace=self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            resource_version=self._version,
            metadata_only=self._metadata_only,
            timeout_s=timeout_s,
            idle_s=self._idle_s,
        )
        async with aclosing(events):
            async for kind, obj in events:
                told = True
                self._delays = None
                self._touch()
                if kind == "BOOKMARK":
                    self._view.settle(self._clock.monotonic())
                else:
                    self._view.show(kind, self._keep(obj), self._clock.monotonic())
                self._version = obj["metadata"]["resourceVersion"]
        self._touch()
        self._view.settle(self._clock.monotonic())
        return told

    def _touch(self) -> None:
        self._contact = self._clock.monotonic()

    async def _pause(self, event: str, error: ApiError | Unreachable | None) -> None:
        if self._delays is None:
            self._delays = backoff.delays(base_s=BACKOFF_BASE_S, cap_s=BACKOFF_CAP_S, rng=self._rng)
        delay = next(self._delays)
        asked = error.retry_after if isinstance(error, ApiError) else None
        if asked is not None:
            # On top, not instead: everybody who was refused at once was told the same number.
            delay += min(asked, BACKOFF_CAP_S)
        log.warning(event, resource=self._resource.plural, error=str(error or ""), retry_in_s=round(delay, 3))
        await self._clock.sleep(delay)


def _whole(obj: Object) -> Object:
    return obj


def _ignore(_change: Change) -> None:
    pass
