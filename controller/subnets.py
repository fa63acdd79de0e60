"""SpiderSubnets as the leader keeps them: which overlap what, their status, and the end of those that were deleted.

The webhook lets no overlap in, but it may have been away. It puts our finalizer on subnets, so that none goes while
pools have ranges of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain.addresses import AddressError, parse_network
from allocator.domain.overlap import extent_of
from allocator.domain.subnet_overlaps import Subnet, subnet_overlaps
from allocator.domain.subnet_status import CONDITIONS, SubnetStatus, subnet_status
from allocator.kube.cache import Cache
from allocator.kube.codec import created_at, encode_time
from allocator.kube.conditions import decode_conditions, encode_conditions
from allocator.kube.fences import no_fence
from allocator.kube.resources import SPIDER_SUBNETS
from controller import marks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from allocator.domain.addresses import IntervalSet, Network
    from allocator.domain.conditions import Condition
    from allocator.domain.lending import Accounts
    from allocator.domain.subnet_overlaps import SubnetOverlap
    from allocator.kube.client import KubeClient
    from allocator.kube.fences import Fence
    from allocator.kube.resources import Object
    from allocator.kube.view import Change
    from allocator.runtime.clock import Clock
    from controller.books import Books

# Beside what the original has in a status: who wrote the accounts last, and when.
_KEPT_BY: Final = "accountsKeptBy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a subnet's status is to say."""

    accounts: Accounts
    free: IntervalSet
    unserved: Mapping[str, str]


class Subnets:
    """One term of leadership. Its cache is its own: where nobody installed the kind, everything else goes on.

    `on_change` hears of the names of subnets whose status may be another. `fence` as in KubeLedger.
    """

    def __init__(
        self,
        books: Books,
        client: KubeClient,
        *,
        identity: str,
        clock: Clock,
        on_change: Callable[[str], None],
        fence: Fence = no_fence,
    ) -> None:
        self._books = books
        self._client = client
        self._fence = fence
        self._identity = identity
        self._clock = clock
        self._tell = on_change
        self._pools: dict[str, tuple[str, Network | None]] = {}
        self._stale = True
        self._overlaps: Mapping[str, SubnetOverlap] = {}
        # UIDs of those whose status this process wrote last, as far as anybody can know.
        self._mine: set[str] = set()
        self._is_noting = False
        self.cache = Cache(client, SPIDER_SUBNETS, clock=clock, on_change=self._on_subnet)
        books.on_pool.append(self._on_pool)

    def get(self, name: str) -> Object | None:
        return self.cache.get(name)

    def with_network(self, network: Network) -> list[Object]:
        """The oldest first."""
        found = [raw for raw in self.cache.items() if _network(str((raw.get("spec") or {}).get("subnet"))) == network]
        return sorted(found, key=lambda raw: (created_at(raw), raw["metadata"]["uid"]))

    def bring_up_to_date(self) -> None:
        """Find the overlaps, when what they depend on has changed, and tell whose are others now."""
        if not self._stale:
            return
        networks = {name: network for name, (_, network) in self._pools.items() if network is not None}
        before, self._overlaps = self._overlaps, subnet_overlaps(_readable(self.cache.items()), networks)
        self._stale = False
        for name in before.keys() | self._overlaps.keys():
            if before.get(name) != self._overlaps.get(name):
                self._tell(name)

    def stands_back(self, name: str) -> bool:
        """Whether one made earlier overlaps it: that lends what they share, and this one nothing."""
        overlap = self._overlaps.get(name)
        return overlap is not None and bool(overlap.earlier)

    def is_kept_by_us(self, raw: Object) -> bool:
        """Whether this process wrote the status last. Only then may a pool be given more of what the accounts say: a
        write of somebody else, or one of ours that was given up, may still be under way and take it away again.
        """
        return raw["metadata"]["uid"] in self._mine

    async def write(self, raw: Object, entry: Entry, *, is_forced: bool = False) -> Object:
        """The subnet with this status, which is written when it differs or `is_forced`. Raises what the client raises;
        Conflict when the subnet is not as it was read.
        """
        meta, status = raw["metadata"], raw.get("status") or {}
        extent = extent_of(raw)
        if extent is None:
            return raw
        before = decode_conditions(status, CONDITIONS)
        wanted = subnet_status(
            extent.ips,
            entry.free,
            entry.accounts,
            generation=int(meta.get("generation", 0)),
            is_terminating=bool(meta.get("deletionTimestamp")),
            overlap=self._overlaps.get(meta["name"]),
            unserved=entry.unserved,
            before=before,
            now=self._clock.now(),
        )
        if wanted == _decoded(status, before) and not is_forced:
            return raw
        kept_by = f"{self._identity} {encode_time(self._clock.now())}"
        body = {**raw, "status": _encoded(status, wanted) | {_KEPT_BY: kept_by}}
        self._fence()
        self._mine.discard(meta["uid"])
        written = await self._client.replace(SPIDER_SUBNETS, body, subresource="status")
        self._mine.add(meta["uid"])
        self._is_noting = True
        try:
            self.cache.note(written)
        finally:
            self._is_noting = False
        return written

    async def let_go(self, raw: Object) -> None:
        self._fence()
        await marks.remove_finalizer(self._client, SPIDER_SUBNETS, raw)

    def _on_subnet(self, change: Change) -> None:
        raw = change.new or change.old
        if raw is None or self._is_noting:
            # What this process has just written is no news to it.
            return
        if change.old is None or change.new is None or change.old.get("spec") != change.new.get("spec"):
            self._stale = True
        self._tell(raw["metadata"]["name"])

    def _on_pool(self, name: str) -> None:
        """Most changes of a pool are of its status."""
        raw = self._books.pools.get(name)
        text = None if raw is None else str((raw.get("spec") or {}).get("subnet"))
        known = self._pools.get(name)
        if text == (known and known[0]):
            return
        self._stale = True
        if text is None:
            del self._pools[name]
        else:
            self._pools[name] = text, _network(text)


def may_go(raw: Object) -> bool:
    lent = (raw.get("status") or {}).get("controlledIPPools")
    # The original writes no text when no pool is left; an empty one says the same.
    return bool(raw["metadata"].get("deletionTimestamp")) and marks.has_finalizer(raw) and lent in (None, "", "{}")


def _decoded(status: Object, conditions: tuple[Condition, ...]) -> SubnetStatus:
    return SubnetStatus(
        accounts=status.get("controlledIPPools"),
        total=int(status.get("totalIPCount") or 0),
        allocated=int(status.get("allocatedIPCount") or 0),
        free=int(status.get("freeIPCount") or 0),
        observed_generation=int(status.get("observedGeneration") or 0),
        conditions=conditions,
    )


def _encoded(before: Object, status: SubnetStatus) -> Object:
    accounts = {} if status.accounts is None else {"controlledIPPools": status.accounts}
    return {
        **{key: value for key, value in before.items() if key != "controlledIPPools"},
        **accounts,
        "totalIPCount": status.total,
        "allocatedIPCount": status.allocated,
        "freeIPCount": status.free,
        "observedGeneration": status.observed_generation,
        "conditions": encode_conditions(before, status.conditions, CONDITIONS),
    }


def _readable(raws: Iterable[Object]) -> Iterator[Subnet]:
    for raw in raws:
        meta = raw["metadata"]
        if (network := _network(str((raw.get("spec") or {}).get("subnet")))) is not None:
            yield Subnet(meta["name"], meta["uid"], created_at(raw), network)


def _network(text: str) -> Network | None:
    try:
        return parse_network(text)
    except AddressError:
        return None
