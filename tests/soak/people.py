"""People who edit and delete by hand what they had better leave alone."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.kube.errors import ApiError, NotFound, Unreachable
from allocator.kube.resources import SPIDER_ENDPOINTS, SPIDER_IP_POOLS, SPIDER_RESERVED_IPS
from tests.plane.controllers import API

if TYPE_CHECKING:
    import random
    from collections import Counter
    from collections.abc import Awaitable, Callable

    from allocator.kube.resources import Object, Resource
    from tests.crash.stage import Cluster

FORCE: Final = "ipam.spidernet.io/force-in-use"


@dataclass(slots=True)
class People:
    """`pool` is theirs to play with: its addresses are PREFIX.1 to PREFIX.250."""

    cluster: Cluster
    rng: random.Random
    pool: Object
    prefix: str
    counts: Counter[str]

    async def run(self, *, pause_s: tuple[float, float]) -> None:
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            "endpoint deleted by hand": self._delete_endpoint,
            "pool edited": self._edit_ranges,
            "pool edited by force": self._edit_by_force,
            "addresses reserved": self._reserve,
            "pool made and deleted": self._make_and_delete,
        }
        while True:
            await asyncio.sleep(self.rng.uniform(*pause_s))
            kind = self.rng.choice(list(acts))
            try:
                await acts[kind]()
                self.counts[kind] += 1
            except (ApiError, Unreachable):
                # By the webhook, because of who uses the addresses; or nobody answered.
                self.counts[f"{kind}: refused"] += 1

    async def _delete_endpoint(self) -> None:
        found = await self.cluster.api.items(SPIDER_ENDPOINTS)
        if found:
            await self.cluster.api.delete(SPIDER_ENDPOINTS, self.rng.choice(found))

    def _ranges(self) -> list[str]:
        first = self.rng.randint(1, 60)
        return [f"{self.prefix}.{first}-{self.prefix}.{self.rng.randint(first + 60, 250)}"]

    async def _edit_ranges(self) -> None:
        excluded = [f"{self.prefix}.{self.rng.randint(1, 250)}"] if self.rng.random() < 0.5 else []
        await self._patch({"spec": {"ips": self._ranges(), "excludeIPs": excluded}})

    async def _edit_by_force(self) -> None:
        """Who has what goes keeps it."""
        await self._patch({"metadata": {"annotations": {FORCE: "true"}}, "spec": {"ips": self._ranges()}})
        await self._patch({"metadata": {"annotations": {FORCE: None}}})

    async def _patch(self, body: Object) -> None:
        await self.cluster.api.kube.patch(SPIDER_IP_POOLS, self.pool["metadata"]["name"], body)

    async def _reserve(self) -> None:
        meta = {"name": f"reserved-{next(self.cluster.stage.numbers)}"}
        spec = {"ipVersion": 4, "ips": [f"{self.prefix}.{self.rng.randint(1, 250)}"]}
        body = {"apiVersion": API, "kind": "SpiderReservedIP", "metadata": meta, "spec": spec}
        made = await self.cluster.api.kube.create(SPIDER_RESERVED_IPS, body)
        await self._later(SPIDER_RESERVED_IPS, made)

    async def _make_and_delete(self) -> None:
        number = next(self.cluster.stage.numbers) % 250
        await self._later(SPIDER_IP_POOLS, await self.cluster.pool_of(f"10.99.{number}.0/24", f"10.99.{number}.1"))

    async def _later(self, resource: Resource, made: Object) -> None:
        try:
            await asyncio.sleep(self.rng.uniform(0, 2))
        finally:
            with suppress(NotFound):
                await self.cluster.api.delete(resource, made)
