"""Lending without one of its safeguards, as `weakened.py` has it for the rest of the product."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from allocator.domain.lending import decode_accounts, lent
from allocator.domain.overlap import extent_of
from allocator.kube.resources import SPIDER_IP_POOLS
from controller import auto_pools
from controller.auto_pools import AutoPools
from controller.round import Round
from controller.subnets import Subnets

if TYPE_CHECKING:
    from collections.abc import Callable

    from allocator.domain.addresses import IntervalSet
    from allocator.domain.desk import Desk
    from allocator.kube.resources import Object


def _birth_without_addresses() -> None:
    """A pool is born with what it is about to be lent."""
    empty_pool: Any = vars(auto_pools)["empty_pool"]

    def filled(name: str, purpose: Any, subnet: Object, number: str) -> Object:
        raw, extent = empty_pool(name, purpose, subnet, number), extent_of({**subnet, "kind": "SpiderSubnet"})
        assert extent is not None
        free = extent.ips - lent(decode_accounts(subnet.get("status") or {}, 4), 4)
        return {**raw, "spec": {**raw["spec"], "ips": free.head(min(2, free.size)).texts()}}

    vars(auto_pools)["empty_pool"] = filled


def _accounts_first() -> None:
    """The pool offers before the accounts say that it may."""
    write = Round._write  # noqa: SLF001 - nobody else does it

    async def late(self: Round, desk: Desk) -> None:
        self._written.add(desk.name)
        for offer in self._offers:
            if offer.desk is desk:
                await self._offer(offer)
        await write(self, desk)

    Round._write = late  # type: ignore[method-assign]  # noqa: SLF001


def _live_look() -> None:
    """What is taken back is idle by the cache."""

    async def by_cache(self: AutoPools, name: str, target: IntervalSet) -> bool:
        return bool(self.in_use(name) - target)

    AutoPools.uses_outside = by_cache  # type: ignore[method-assign]


def _own_write_of_pool() -> None:
    """Taken back is also from a pool that somebody else wrote last, or a write that was given up."""
    AutoPools.is_ours = lambda self, name: True  # type: ignore[method-assign]  # noqa: ARG005


def _own_write_of_accounts() -> None:
    """A pool is given more by accounts that somebody else wrote last, or a write that was given up."""
    Subnets.is_kept_by_us = lambda self, raw: True  # type: ignore[method-assign]  # noqa: ARG005


def _revision_of_pool() -> None:
    """Writes of pools do not say what they have read."""

    async def blind(self: AutoPools, raw: Object, body: dict[str, Any]) -> None:
        meta = raw["metadata"]
        body = {**body, "metadata": {**body["metadata"], "uid": meta["uid"]}}
        self._wrote(await self._client.patch(SPIDER_IP_POOLS, meta["name"], body))

    AutoPools._patch = blind  # type: ignore[method-assign]  # noqa: SLF001


# Each with the invariants by which its absence shows.
SAFEGUARDS: Final[dict[str, tuple[Callable[[], None], frozenset[str]]]] = {
    "pools are born empty": (_birth_without_addresses, frozenset({"S1", "S2"})),
    "accounts come first": (_accounts_first, frozenset({"S1", "S2"})),
    "a live look before taking back": (_live_look, frozenset({"S4"})),
    "an own write of the pool before taking back": (_own_write_of_pool, frozenset({"S1", "S2"})),
    "an own write of the accounts before giving more": (_own_write_of_accounts, frozenset({"S1", "S2"})),
    "pools are written as they were read": (_revision_of_pool, frozenset({"S1", "S2"})),
}
