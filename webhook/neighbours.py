"""The pools or subnets that a new one must fit beside: the cache, and what was admitted a moment ago.

Between an admission and the event of the cache lie some milliseconds, in which two requests would not see each other.
Two replicas still can miss each other; the controller reports that as the condition Overlapping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from allocator.domain.overlap import extent_of
from allocator.kube import errors
from allocator.kube.cache import Cache, Change

if TYPE_CHECKING:
    from collections.abc import Callable

    from allocator.domain.overlap import Extent
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource
    from allocator.runtime.clock import Clock

# Admitted objects are stored within milliseconds, or never.
RECENT_S: Final = 2.0
# Twice the time after which a silent watch is opened anew, and a little.
STALE_S: Final = 200.0


class NotReadyError(Exception):
    """The cache cannot tell yet, or no longer, what there is; the API server may ask again."""


class Neighbours:
    """`on_change` hears of what the cache shows, after this."""

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        clock: Clock,
        *,
        on_change: Callable[[Change], None] | None = None,
    ) -> None:
        self._client = client
        self._tell = on_change
        self._resource = resource
        self._clock = clock
        self._extents: dict[str, Extent] = {}
        self._recent: dict[str, tuple[float, Extent]] = {}
        self.cache = Cache(client, resource, clock=clock, on_change=self._on_change)

    @property
    def is_ready(self) -> bool:
        return self.cache.synced and self.cache.staleness_s() < STALE_S

    def all(self) -> list[Extent]:
        """What stands, and what was admitted a moment ago. NotReadyError when that is not known."""
        if not self.is_ready:
            raise NotReadyError(f"the {self._resource.plural} are not known yet: try again")
        now = self._clock.monotonic()
        self._recent = {name: entry for name, entry in self._recent.items() if now - entry[0] < RECENT_S}
        # Both the stored and the admitted form of an object stand: which of them will stay is not known yet.
        return [*self._extents.values(), *(extent for _, extent in self._recent.values())]

    def admitted(self, obj: Object) -> None:
        """Count the object, which is about to be stored, as standing."""
        extent = extent_of(obj)
        if extent is not None and extent.name:
            self._recent[extent.name] = (self._clock.monotonic(), extent)

    def forget(self, name: str) -> None:
        """The object is about to be deleted: what was admitted of it no longer counts."""
        self._recent.pop(name, None)

    def is_recent(self, extent: Extent) -> bool:
        entry = self._recent.get(extent.name)
        return entry is not None and entry[1] == extent

    def stored(self, name: str) -> Object | None:
        """The object as the cache shows it."""
        return self.cache.get(name)

    async def read(self, name: str) -> Extent | None:
        """What stands now, by a live read."""
        live = await self.read_stored(name)
        return None if live is None else extent_of(live)

    async def read_stored(self, name: str) -> Object | None:
        try:
            return await self._client.get(self._resource, name)
        except errors.NotFound:
            return None

    def _on_change(self, change: Change) -> None:
        self._learn(change)
        if self._tell is not None:
            self._tell(change)

    def _learn(self, change: Change) -> None:
        obj = change.new or change.old
        if obj is None:
            return
        name = obj["metadata"]["name"]
        self._recent.pop(name, None)
        extent = extent_of(change.new) if change.new is not None else None
        if extent is None:
            self._extents.pop(name, None)
        else:
            self._extents[name] = extent
