"""The cluster's pools as values, as the watch shows them: for advice to pods, which may be wrong tomorrow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.kube.codec import Malformed, decode_edition, decode_pool, is_unadopted, unreadable_pool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocator.domain.pool import Pool
    from allocator.kube.cache import Change
    from allocator.kube.resources import Object


class KnownPools:
    def __init__(self) -> None:
        self._pools: dict[str, Pool] = {}
        self._free: dict[str, int | None] = {}

    @property
    def all(self) -> Mapping[str, Pool]:
        """By name; those that cannot be read have their `problem`."""
        return self._pools

    def free(self, name: str) -> int | None:
        """`status.freeIPCount`; None when there is no such pool or nobody has counted yet."""
        return self._free.get(name)

    def note(self, change: Change) -> None:
        raw = change.new or change.old
        if raw is None:
            return
        name = raw["metadata"]["name"]
        if change.new is None:
            self._pools.pop(name, None)
            self._free.pop(name, None)
            return
        self._free[name] = (raw.get("status") or {}).get("freeIPCount")
        known = self._pools.get(name)
        # Its status changes all the time, and is no reason to read the spec again.
        if known is None or known.edition != decode_edition(raw) or known.unadopted != is_unadopted(raw):
            self._pools[name] = _read(raw)


def _read(raw: Object) -> Pool:
    try:
        return decode_pool(raw)
    except Malformed as error:
        return unreadable_pool(raw, str(error))
