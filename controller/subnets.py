"""SpiderSubnets: tells which overlap what, and lets those go that were deleted.

The webhook lets no overlap in, but it may have been away. It puts our finalizer on subnets, so that none goes while
pools have ranges of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from allocator.domain.addresses import AddressError, parse_network
from allocator.domain.conditions import conditions
from allocator.domain.subnet_overlaps import Subnet, finding, subnet_overlaps
from allocator.kube.cache import Cache
from allocator.kube.codec import created_at
from allocator.kube.conditions import decode_conditions, encode_conditions
from allocator.kube.errors import ApiError, Conflict, NotFound, Unreachable
from allocator.kube.resources import SPIDER_SUBNETS
from allocator.runtime.logs import get_logger
from controller import marks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

    from allocator.domain.addresses import Network
    from allocator.domain.subnet_overlaps import SubnetOverlap
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from allocator.kube.view import Change
    from allocator.runtime.clock import Clock
    from controller.books import Books

_log = get_logger(__name__)

TICK_S: Final = 1.0
# After a refusal.
RETRY_S: Final = 30.0
_OUR_CONDITIONS: Final = ("Overlapping",)


class Subnets:
    """One term of leadership. Its cache is its own: where nobody installed the kind, everything else goes on."""

    def __init__(self, books: Books, client: KubeClient, *, may_act: Callable[[], bool], clock: Clock) -> None:
        self._books = books
        self._client = client
        self._may_act = may_act
        self._clock = clock
        self._pools: dict[str, tuple[str, Network | None]] = {}
        self._stale = True
        self._overlaps: Mapping[str, SubnetOverlap] = {}
        self.cache = Cache(client, SPIDER_SUBNETS, clock=clock, on_change=self._on_subnet)
        books.on_pool.append(self._on_pool)

    async def run(self) -> None:
        while True:
            done = False
            try:
                done = await self.turn()
            except Exception:  # noqa: BLE001 - the border of the loop
                _log.exception("subnets_turn_failed")
            await self._clock.sleep(TICK_S if done else RETRY_S)

    async def turn(self) -> bool:
        """Whether nothing was refused."""
        if self._stale and self.cache.synced and self._books.synced:
            networks = {name: network for name, (_, network) in self._pools.items() if network is not None}
            self._overlaps = subnet_overlaps(_readable(self.cache.items()), networks)
            self._stale = False
        done = True
        for raw in self.cache.items():
            if _may_go(raw):
                done &= await self._try("finalizer_not_removed", raw, self._let_go)
            elif raw["metadata"]["name"] in self._overlaps:
                done &= await self._try("subnet_status_not_written", raw, self._tell)
        return done

    def _on_subnet(self, _change: Change) -> None:
        self._stale = True

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

    async def _try(self, event: str, raw: Object, act: Callable[[Object], Awaitable[None]]) -> bool:
        """False when it was refused, and another try soon would be too."""
        if not self._may_act():
            return True
        try:
            await act(raw)
        except (Conflict, NotFound):
            # Changed, or gone: the watch brings it. What a pool took of a deleted one meanwhile keeps it.
            return True
        except (ApiError, Unreachable) as error:
            _log.warning(event, kind=SPIDER_SUBNETS.kind, name=raw["metadata"]["name"], why=str(error))
            return False
        return True

    async def _let_go(self, raw: Object) -> None:
        await marks.remove_finalizer(self._client, SPIDER_SUBNETS, raw)

    async def _tell(self, raw: Object) -> None:
        meta, status = raw["metadata"], raw.get("status") or {}
        generation = int(meta.get("generation", 0))
        before = decode_conditions(status, _OUR_CONDITIONS)
        findings = {"Overlapping": finding(self._overlaps[meta["name"]])}
        after = conditions(findings, generation=generation, before=before, now=self._clock.now())
        if (after, generation) == (before, status.get("observedGeneration")):
            return
        wanted = {
            "conditions": encode_conditions(status, after, _OUR_CONDITIONS),
            "observedGeneration": generation,
        }
        precondition = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        patch = {"metadata": precondition, "status": wanted}
        self.cache.note(await self._client.patch(SPIDER_SUBNETS, meta["name"], patch, subresource="status"))


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


def _may_go(raw: Object) -> bool:
    lent = (raw.get("status") or {}).get("controlledIPPools")
    # The original writes no text when no pool is left; an empty one says the same.
    return bool(raw["metadata"].get("deletionTimestamp")) and marks.has_finalizer(raw) and lent in (None, "", "{}")
