"""Pools whose gateway or routes are others than those of their SpiderSubnet: told, and taken over where asked for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from allocator.domain import drift
from allocator.domain.defaulting import OWNER_LABEL
from allocator.kube.codec import is_unadopted
from allocator.kube.errors import ApiError, BadRequest, Conflict, Forbidden, Invalid, NotFound, Unreachable
from allocator.kube.resources import SPIDER_IP_POOLS
from allocator.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from allocator.domain.conditions import Finding
    from allocator.kube.cache import Cache
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from allocator.runtime.clock import Clock
    from controller.books import Books

_log = get_logger(__name__)

TICK_S: Final = 1.0
# After a refusal.
RETRY_S: Final = 30.0


class Drift:
    """One term of leadership. `may_act` as for reclaim.

    Who is in `on_drift` hears of all findings by pool: first once they are known, then whenever one changes. Where
    SpiderSubnet is not installed, its cache is never complete, and nobody hears anything.
    """

    def __init__(
        self, books: Books, subnets: Cache, client: KubeClient, *, may_act: Callable[[], bool], clock: Clock
    ) -> None:
        self._books = books
        self._subnets = subnets
        self._client = client
        self._may_act = may_act
        self._clock = clock
        self._changed: set[str] = set()
        self._editions: Mapping[str, tuple[str, int]] | None = None
        self._findings: dict[str, Finding] = {}
        self._following: set[str] = set()
        self._refusals: dict[str, str] = {}
        self._not_before: dict[str, float] = {}
        self.on_drift: list[Callable[[Mapping[str, Finding]], None]] = []
        books.on_pool.append(self._changed.add)

    async def run(self) -> None:
        while True:
            try:
                await self.turn()
            except Exception:  # noqa: BLE001 - the border of the loop
                _log.exception("drift_turn_failed")
            await self._clock.sleep(TICK_S)

    async def turn(self) -> None:
        if not (self._subnets.synced and self._books.synced):
            return
        self._look()
        now = self._clock.monotonic()
        for name in sorted(self._following):
            if now >= self._not_before.get(name, -math.inf):
                await self._follow(name)

    def _look(self) -> None:
        """At the pools that have changed, and at all when a subnet has."""
        editions = {raw["metadata"]["name"]: _edition(raw) for raw in self._subnets.items()}
        is_first = self._editions is None
        if editions != self._editions:
            self._changed.update(raw["metadata"]["name"] for raw in self._books.pools.items())
            self._editions = editions
            self._not_before.clear()
        before = dict(self._findings)
        while self._changed:
            self._look_at(self._changed.pop())
        if is_first or before != self._findings:
            for listener in self.on_drift:
                listener(self._findings)

    def _look_at(self, name: str) -> None:
        raw = self._books.pools.get(name)
        subnet = None if raw is None else self._subnet_of(raw)
        is_apart = raw is not None and subnet is not None and bool(drift.taken_over(raw, subnet))
        if not is_apart:
            self._refusals.pop(name, None)
            self._not_before.pop(name, None)
        if raw is None or subnet is None:
            self._findings.pop(name, None)
        else:
            self._findings[name] = drift.finding(raw, subnet, self._refusals.get(name, ""))
        if raw is not None and is_apart and _may_follow(raw):
            self._following.add(name)
        else:
            self._following.discard(name)

    def _subnet_of(self, pool: Object) -> Object | None:
        label = (pool["metadata"].get("labels") or {}).get(OWNER_LABEL)
        if not label:
            return None
        # The label has the name, which only a long one is not.
        named = self._subnets.get(label)
        candidates = self._subnets.items() if named is None else [named]
        return next((raw for raw in candidates if drift.is_of(pool, raw)), None)

    async def _follow(self, name: str) -> None:
        raw = self._books.pools.get(name)
        subnet = None if raw is None else self._subnet_of(raw)
        if raw is None or subnet is None or not self._may_act():
            return
        meta, spec = raw["metadata"], drift.taken_over(raw, subnet)
        body = {"metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}, "spec": spec}
        try:
            written = await self._client.patch(SPIDER_IP_POOLS, name, body)
        except (Conflict, NotFound):
            # Changed, or gone: the watch brings it.
            return
        except (ApiError, Unreachable) as error:
            _log.warning("pool_does_not_follow", pool=name, subnet=subnet["metadata"]["name"], why=str(error))
            self._not_before[name] = self._clock.monotonic() + RETRY_S
            if isinstance(error, (Forbidden, Invalid, BadRequest)):
                self._refusals[name] = str(error)
                self._changed.add(name)
            return
        _log.info("pool_follows_subnet", pool=name, subnet=subnet["metadata"]["name"], changed=sorted(spec))
        self._books.pools.note(written)


def _edition(raw: Object) -> tuple[str, int]:
    return raw["metadata"]["uid"], int(raw["metadata"].get("generation", 0))


def _may_follow(pool: Object) -> bool:
    return drift.follows(pool) and not pool["metadata"].get("deletionTimestamp") and not is_unadopted(pool)
