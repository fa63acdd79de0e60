"""What the pools and subnets that stand already forbid, each confirmed by a live read before it refuses anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from allocator.domain import fields, usage, validation
from allocator.domain.overlap import (
    crossed,
    extent_of,
    newly_taken,
    owner_clashes,
    pool_clashes,
    subnet_clashes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from allocator.domain.addresses import IntervalSet
    from allocator.domain.errors import FieldError
    from allocator.domain.overlap import Clash, Extent
    from webhook.neighbours import Neighbours
    from webhook.review import Object, Request


# Of the neighbours that something new clashes with, in one answer. Each is read live first.
NAMED: Final = 10


class SideBySide:
    """`subnets` is None where the feature is switched off (enableSpiderSubnet)."""

    def __init__(self, pools: Neighbours, subnets: Neighbours | None) -> None:
        self._pools = pools
        self._subnets = subnets

    def pools(self) -> Sequence[Extent]:
        return self._pools.all()

    async def owner_of(self, pool: Object) -> Object | None:
        """The stored SpiderSubnet that has the pool's network; the one made first, should there be more.

        One that is being deleted takes no more pools.
        """
        extent = extent_of(pool)
        if extent is None or self._subnets is None:
            return None
        # People apply a subnet and its pools in one file: then the cache does not have the subnet yet.
        found = [
            self._subnets.stored(name) or await self._subnets.read_stored(name)
            for name in self._with_network_of(extent)
        ]
        owner = _oldest(found)
        return None if owner is None or owner["metadata"].get("deletionTimestamp") else owner

    def _with_network_of(self, extent: Extent) -> set[str]:
        """Names of the SpiderSubnets that have its network."""
        near = [] if self._subnets is None else self._subnets.near(extent.subnet)
        return {subnet.name for subnet in near if subnet.subnet == extent.subnet}

    async def is_taken(self, request: Request) -> bool:
        """Whether there is an object of this kind and name."""
        known = self._known(request.kind)
        return known is not None and known.is_named(request.name) and await known.read(request.name) is not None

    async def problems(self, request: Request, new: Object) -> list[FieldError]:
        """Nothing is awaited after the last look at the neighbours: who calls `admitted` at once has seen them all."""
        mine = extent_of({**new, "kind": request.kind})
        if mine is None or self._known(request.kind) is None:
            return []
        is_new = request.operation == "CREATE"
        if not is_new:
            mine = newly_taken(request.old, mine)
        is_automatic = validation.is_automatic(new)
        problems = await self._of_automatic(new, mine) if is_automatic else []
        lent = {} if is_automatic else await self._lent(mine)
        live: dict[Extent, Extent | None] = {}
        clashes: list[Clash] = []
        # While one suspect is read, another may be admitted: nothing is let in before every suspect of the last look
        # has been read. To refuse, a few are enough: there may be thousands in a network that is too large.
        while len(clashes) < NAMED and (unread := self._unread(mine, live, is_new=is_new)):
            for other in unread[:NAMED]:
                live[other] = await self._live(other)
            found = {extent for extent in live.values() if extent is not None}
            clashes = self._compare(mine, sorted(found, key=_title), is_new=is_new)
        # Of what a pool offers that the accounts have lent to it, the clash tells.
        pools = [clash.neighbour for clash in clashes if clash.neighbour.kind == "SpiderIPPool"]
        told = {pool.name: pool.ips for pool in pools}
        hidden = {name: ranges - told[name] if name in told else ranges for name, ranges in lent.items()}
        return [*problems, *(clash.problem for clash in clashes), *usage.taken_from_applications(hidden)]

    def warnings(self, request: Request) -> list[str]:
        """What may stand, but hardly as it was meant."""
        mine = extent_of({**request.new, "kind": request.kind})
        if request.kind != "SpiderIPPool" or mine is None or self._subnets is None:
            return []
        return [*self._put_back(request, mine), *self._crossed(mine, self._subnets)]

    def _put_back(self, request: Request, mine: Extent) -> Iterator[str]:
        is_shrunk = request.operation == "UPDATE" and usage.taken_away(request.old, request.new)
        if is_shrunk and validation.is_automatic(request.new) and self._with_network_of(mine):
            yield usage.PUT_BACK

    @staticmethod
    def _crossed(mine: Extent, subnets: Neighbours) -> Iterator[str]:
        for other in crossed(mine, subnets.near(mine.subnet)):
            yield (
                f"spec.subnet {mine.subnet} crosses {other.subnet} of {other.title}: the subnet does not account for "
                "this pool; write the same network to have it do so"
            )

    def admitted(self, request: Request) -> None:
        """Count the object, which is about to be stored, as standing."""
        if (known := self._known(request.kind)) is not None:
            known.admitted({**request.new, "kind": request.kind})

    def forget(self, request: Request) -> None:
        """The object is about to be deleted: what was admitted of it no longer counts."""
        if (known := self._known(request.kind)) is not None:
            known.forget(request.name)

    async def _of_automatic(self, pool: Object, mine: Extent) -> list[FieldError]:
        """A pool that was made for an application takes only what its subnet's accounts lend it."""
        owner = await self.owner_of(pool) if mine.ips else None
        if self._subnets is None or owner is None:
            return []
        live = await self._subnets.read_stored(owner["metadata"]["name"])
        return [] if live is None else usage.beside_the_accounts(mine, fields.mapping_at(live, "status"))

    async def _lent(self, mine: Extent) -> dict[str, IntervalSet]:
        """What the pool takes of what is lent to automatic pools, by their names."""
        lent: dict[str, IntervalSet] = {}
        if self._subnets is None or mine.kind != "SpiderIPPool" or not mine.ips:
            return lent
        for name in sorted(self._with_network_of(mine)):
            stored = self._subnets.stored(name) or {}
            if not usage.lent_to_others(mine, fields.mapping_at(stored, "status")):
                continue
            live = await self._subnets.read_stored(name) or {}
            lent |= usage.lent_to_others(mine, fields.mapping_at(live, "status"))
        return lent

    def _unread(self, mine: Extent, live: Mapping[Extent, Extent | None], *, is_new: bool) -> list[Extent]:
        unread = [other for other in self._suspects(mine, is_new=is_new) if other not in live]
        return sorted(unread, key=_title)  # equal questions, equal answers

    def _suspects(self, mine: Extent, *, is_new: bool) -> list[Extent]:
        subnets = [] if self._subnets is None else self._subnets.near(mine.subnet)
        if self._subnets is not None and mine.kind == "SpiderIPPool":
            owner = _oldest(self._subnets.stored(name) for name in self._with_network_of(mine))
            subnets = [subnet for subnet in subnets if owner is None or subnet.name == owner["metadata"]["name"]]
        near = [*self._pools.near(mine.subnet), *subnets]
        return [clash.neighbour for clash in self._compare(mine, near, is_new=is_new)]

    @staticmethod
    def _compare(mine: Extent, others: Iterable[Extent], *, is_new: bool) -> list[Clash]:
        others = list(others)
        pools = [other for other in others if other.kind == "SpiderIPPool"]
        subnets = [other for other in others if other.kind == "SpiderSubnet"]
        if mine.kind == "SpiderIPPool":
            clashes = [*pool_clashes(mine, pools), *owner_clashes(mine, subnets)]
            # The network of a stored pool cannot change, so an edit of it is no occasion to complain about that.
            return [clash for clash in clashes if is_new or clash.problem.field != "spec.subnet"]
        return subnet_clashes(mine, subnets, pools) if is_new else []

    async def _live(self, neighbour: Extent) -> Extent | None:
        """The neighbour as it stands now. What was admitted a moment ago may not be stored yet, and counts as it is."""
        known = self._known(neighbour.kind)
        return neighbour if known is None or known.is_unsettled(neighbour) else await known.read(neighbour.name)

    def _known(self, kind: str) -> Neighbours | None:
        return {"SpiderIPPool": self._pools, "SpiderSubnet": self._subnets}.get(kind)


def _title(extent: Extent) -> tuple[str, str]:
    return extent.kind, extent.name


def _oldest(stored: Iterable[Object | None]) -> Object | None:
    return min((raw for raw in stored if raw is not None), key=_age, default=None)


def _age(stored: Object) -> tuple[str, str]:
    metadata = stored["metadata"]
    return str(metadata.get("creationTimestamp")), str(metadata.get("uid"))
