"""The pools or subnets that a new one must fit beside: the cache, and what was admitted a moment ago.

Between an admission and the event of the cache lie some milliseconds, in which two requests would not see each other.
Two replicas still can miss each other; the controller reports that as the condition Overlapping.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from allocator.domain.extents import Extents
from allocator.domain.overlap import extent_of
from allocator.kube import errors
from allocator.kube.cache import Cache, Change

if TYPE_CHECKING:
    from collections.abc import Callable

    from allocator.domain.addresses import Network
    from allocator.domain.overlap import Extent
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource
    from allocator.runtime.clock import Clock

# Admitted objects are stored within milliseconds, or never: somebody after us may refuse them.
SETTLED_S: Final = 0.5
# The event of the cache comes a little later.
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
        self._stored = Extents()
        self._admitted = Extents()
        self._since: dict[str, float] = {}  # when it was admitted, in this order
        self.cache = Cache(client, resource, clock=clock, on_change=self._on_change)

    @property
    def is_ready(self) -> bool:
        return self.cache.synced and self.cache.staleness_s() < STALE_S

    def near(self, network: Network) -> list[Extent]:
        """What stands, or was admitted a moment ago, with a network that shares an address with the given one.

        Both the stored and the admitted form of an object stand: which of them will stay is not known yet.
        NotReadyError when nobody knows.
        """
        self._check()
        return [*self._stored.near(network), *self._admitted.near(network)]

    def all(self) -> list[Extent]:
        """What stands. NotReadyError as of `near`."""
        self._check()
        return list(self._stored)

    def is_named(self, name: str) -> bool:
        """Whether something of this name stands, or was admitted a moment ago. NotReadyError as of `near`."""
        self._check()
        return self._stored.get(name) is not None or self._admitted.get(name) is not None

    def admitted(self, obj: Object) -> None:
        """Count the object, which is about to be stored, as standing."""
        extent = extent_of(obj)
        if extent is not None and extent.name:
            self.forget(extent.name)
            self._admitted.put(extent)
            self._since[extent.name] = self._clock.monotonic()

    def forget(self, name: str) -> None:
        """The object is about to be deleted, or stored by now: what was admitted of it no longer counts."""
        self._admitted.drop(name)
        self._since.pop(name, None)

    def is_unsettled(self, extent: Extent) -> bool:
        """Whether it was admitted so short a time ago that a live read may not show it yet."""
        age_s = self._clock.monotonic() - self._since.get(extent.name, -math.inf)
        return self._admitted.get(extent.name) == extent and age_s < SETTLED_S

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
        name, uid = obj["metadata"]["name"], obj["metadata"].get("uid")
        admitted = self._admitted.get(name)
        # What comes late of a deleted one tells nothing of its successor, which had no uid yet when it was admitted.
        if admitted is not None and (admitted.uid == uid or (not admitted.uid and change.kind == "added")):
            self.forget(name)
        extent = extent_of(change.new) if change.new is not None else None
        if extent is None:
            self._stored.drop(name)
        else:
            self._stored.put(extent)

    def _check(self) -> None:
        if not self.is_ready:
            raise NotReadyError(f"the {self._resource.plural} are not known yet: try again")
        now = self._clock.monotonic()
        # The oldest comes first.
        while self._since and now - self._since[next(iter(self._since))] >= RECENT_S:
            self.forget(next(iter(self._since)))
