"""The pools of applications on the API server: born, given what they are lent, and deleted."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from allocator.domain.addresses import IntervalSet
from allocator.domain.applications import label_value
from allocator.domain.auto_pools import Purpose, empty_pool, labels_of, pool_name, purpose_of
from allocator.domain.defaulting import OWNER_LABEL, complete_pool
from allocator.domain.json_annotation import PREFIX
from allocator.domain.lending import Holding
from allocator.domain.overlap import extent_of
from allocator.domain.record import State
from allocator.domain.subnet_annotations import IP_NUMBER
from allocator.domain.validation import is_automatic
from allocator.kube.codec import encode_time, is_unadopted
from allocator.kube.errors import AlreadyExists, NotFound
from allocator.kube.fences import no_fence
from allocator.kube.resources import SPIDER_IP_POOLS
from allocator.runtime.logs import get_logger
from controller import marks

if TYPE_CHECKING:
    from collections.abc import Callable

    from allocator.domain.addresses import Network
    from allocator.domain.overlap import Extent
    from allocator.domain.record import Record
    from allocator.kube.client import KubeClient
    from allocator.kube.fences import Fence
    from allocator.kube.resources import Object
    from allocator.runtime.clock import Clock
    from controller.applications import Demand
    from controller.books import Books

_log = get_logger(__name__)

# Moved on so that writes of the pool that are still under way meet another resourceVersion, and fail.
CHECKED: Final = PREFIX + "accounts-checked"
# Of one application, for one interface and family: more than anybody lists subnets.
MOST_POOLS: Final = 64


class AutoPools:
    """One term of leadership. `on_change` hears of every pool that has become another: with the application that it is
    for, by `Application.text`, and with its network where the subnet's accounts may have to follow: when it was made by
    hand, or is gone. `fence` as in KubeLedger.
    """

    def __init__(
        self,
        books: Books,
        client: KubeClient,
        *,
        clock: Clock,
        on_change: Callable[[str, Network | None], None],
        fence: Fence = no_fence,
    ) -> None:
        self._books = books
        self._client = client
        self._fence = fence
        self._clock = clock
        self._tell = on_change
        self._known: dict[str, tuple[Extent, Purpose | None, Object]] = {}
        self._by_application: defaultdict[str, set[str]] = defaultdict(set)
        self._by_network: defaultdict[Network, set[str]] = defaultdict(set)
        # UIDs of those that this process wrote last, as far as anybody can know.
        self._mine: set[str] = set()
        # Names of those that wait for addresses to become idle: only of them records are news.
        self.waiting: set[str] = set()
        books.on_pool.append(self._on_pool)
        books.on_record.append(self._on_record)

    def get(self, name: str) -> Object | None:
        return self._books.pools.get(name)

    def purpose(self, name: str) -> Purpose | None:
        known = self._known.get(name)
        return None if known is None else known[1]

    def extent(self, name: str) -> Extent:
        return self._at(name)[0]

    def _at(self, name: str) -> tuple[Extent, Purpose | None, Object]:
        """NotFound when the pool has gone since it was looked for: between two awaits the watch may tell so."""
        if (known := self._known.get(name)) is None:
            raise NotFound(404, "NotFound", f"SpiderIPPool {name} is gone")
        return known

    def of_application(self, text: str) -> list[str]:
        return sorted(self._by_application.get(text, ()))

    def of_network(self, network: Network) -> list[str]:
        return sorted(self._by_network.get(network, ()))

    def is_terminating(self, name: str) -> bool:
        return bool(self._at(name)[2]["metadata"].get("deletionTimestamp"))

    def is_automatic(self, name: str) -> bool:
        """Whether it was made for an application, even if somebody has edited its labels since."""
        return is_automatic(self._at(name)[2])

    def is_unadopted(self, name: str) -> bool:
        """Whether its status has the original's records: the ledger does not know who uses what then."""
        return is_unadopted(self._at(name)[2])

    def is_of(self, name: str, subnet: str) -> bool:
        """Whether the pool has the label of this subnet."""
        labels = self._at(name)[2]["metadata"].get("labels") or {}
        return bool(labels.get(OWNER_LABEL) == label_value(subnet))

    def applications(self) -> set[str]:
        return set(self._by_application)

    def applications_of(self, subnet: str) -> set[str]:
        """Those that have pools of the subnet."""
        label = label_value(subnet)
        purposes = (purpose for _, purpose, _ in self._known.values() if purpose is not None)
        return {purpose.application.text for purpose in purposes if purpose.subnet == label}

    def in_use(self, name: str) -> IntervalSet:
        """What is not merely cooling."""
        version = self.extent(name).version
        records = (each for each in self._books.of_pool(name) if each.state is not State.COOLING)
        return IntervalSet.addresses(version, (each.address for each in records if each.address.version == version))

    def holding(self, name: str, subnet: str, recorded: IntervalSet) -> Holding:
        raw = self._at(name)[2]
        observed = int((raw.get("status") or {}).get("observedGeneration") or 0)
        return Holding(
            pool=name,
            subnet=subnet,
            recorded=recorded,
            offered=self.extent(name).ips,
            in_use=self.in_use(name),
            is_observed=observed == int(raw["metadata"].get("generation", 0)),
        )

    def is_ours(self, name: str) -> bool:
        """Whether this process wrote the pool last: nothing that could give it more is under way."""
        return self._at(name)[2]["metadata"]["uid"] in self._mine

    async def bear(self, demand: Demand, subnet: Object) -> str | None:
        """The name of a new pool without addresses; None when the API server would have none of it this time."""
        purpose = Purpose(
            demand.application,
            demand.interface,
            demand.version,
            subnet["metadata"]["name"],
            demand.is_reclaimed,
        )
        for nth in range(1, MOST_POOLS):
            name = pool_name(demand.application, demand.interface, demand.version, nth)
            if self.get(name) is not None:
                continue
            self._fence()
            try:
                born = await self._client.create(SPIDER_IP_POOLS, empty_pool(name, purpose, subnet, demand.number))
            except AlreadyExists:
                # Of another application by chance, or our own from a try whose answer got lost: the watch tells.
                continue
            self._wrote(born)
            _log.info("pool_born", pool=name, application=str(demand.application), subnet=purpose.subnet)
            return name
        return None

    async def offer(self, name: str, ips: IntervalSet, demand: Demand, subnet: str) -> None:
        """Let the pool offer this, in its owner's name. Conflict when it is not as it is known."""
        raw = self._at(name)[2]
        spec: dict[str, Any] = {"ips": ips.texts()}
        if (raw.get("spec") or {}).get("excludeIPs"):
            spec["excludeIPs"] = None
        purpose = Purpose(demand.application, demand.interface, demand.version, subnet, demand.is_reclaimed)
        metadata = {"labels": labels_of(purpose), "annotations": {IP_NUMBER.key: demand.number}}
        if _says(raw, {"metadata": metadata, "spec": spec}):
            return
        await self._patch(raw, {"metadata": metadata, "spec": spec})
        _log.info("pool_resized", pool=name, application=str(demand.application), addresses=ips.size)

    async def touch(self, name: str) -> None:
        """Write the pool and change nothing of it."""
        annotations = {CHECKED: encode_time(self._clock.now())}
        await self._patch(self._at(name)[2], {"metadata": {"annotations": annotations}})

    async def adopt(self, name: str, subnet: Object) -> None:
        """Give a pool that people made the label of its subnet, and what of the network it leaves open."""
        raw = self._at(name)[2]
        completed = complete_pool(raw, subnet)
        if completed == raw:
            return
        open_ones = {
            key: completed["spec"][key]
            for key in ("gateway", "routes")
            if completed["spec"].get(key) != raw["spec"].get(key)
        }
        meta = completed["metadata"]
        body = {"metadata": {"labels": meta["labels"], "finalizers": meta["finalizers"]}, "spec": open_ones}
        await self._patch(raw, body)
        _log.info("pool_adopted", pool=name, subnet=subnet["metadata"]["name"])

    async def delete(self, name: str) -> None:
        raw = self._at(name)[2]
        meta = raw["metadata"]
        self._fence()
        try:
            await self._client.delete(SPIDER_IP_POOLS, name, uid=meta["uid"], resource_version=meta["resourceVersion"])
        except NotFound:
            return
        _log.info("pool_deleted", pool=name)

    async def is_gone(self, name: str, network: Network) -> bool:
        """Whether, by a live read, the network has no such pool: there is none, or one of another has got the name."""
        try:
            raw = await self._client.get(SPIDER_IP_POOLS, name)
        except NotFound:
            return True
        extent = extent_of(raw)
        return extent is not None and extent.subnet != network

    async def uses_outside(self, name: str, target: IntervalSet) -> bool:
        """Whether, by a live list, a holder of the pool has an address that `target` leaves out."""
        found = await marks.scan(self._client, name)
        holders = (each for each in found.records if each.state is not State.COOLING)
        return bool(found.unreadable) or any(each.address not in target for each in holders)

    async def _patch(self, raw: Object, body: dict[str, Any]) -> None:
        meta = raw["metadata"]
        precondition = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        self._fence()
        self._mine.discard(meta["uid"])
        body = {**body, "metadata": {**body["metadata"], **precondition}}
        self._wrote(await self._client.patch(SPIDER_IP_POOLS, meta["name"], body))

    def _wrote(self, raw: Object) -> None:
        self._mine.add(raw["metadata"]["uid"])
        self._books.pools.note(raw)

    def _on_pool(self, name: str) -> None:
        raw, known = self._books.pools.get(name), self._known.pop(name, None)
        if known is not None:
            self._by_network[known[0].subnet].discard(name)
            if known[1] is not None:
                self._by_application[known[1].application.text].discard(name)
        extent = None if raw is None else extent_of({**raw, "kind": SPIDER_IP_POOLS.kind})
        if raw is not None and extent is not None:
            purpose = purpose_of(raw["metadata"].get("labels") or {})
            self._known[name] = extent, purpose, raw
            self._by_network[extent.subnet].add(name)
            if purpose is not None:
                self._by_application[purpose.application.text].add(name)
        elif known is not None:
            self._mine.discard(known[2]["metadata"]["uid"])
            self.waiting.discard(name)
        if known is None or raw is None or _differ(known[2], raw, is_waiting=name in self.waiting):
            for found in (known, self._known.get(name)):
                if found is not None:
                    extent, purpose, _ = found
                    is_counted = raw is None or purpose is None
                    self._tell(_text(purpose), extent.subnet if is_counted else None)

    def _on_record(self, old: Record | None, new: Record | None) -> None:
        for record in (old, new):
            if record is not None and record.pool in self.waiting and record.pool in self._known:
                self._tell(_text(self.purpose(record.pool)), None)


def _text(purpose: Purpose | None) -> str:
    return "" if purpose is None else purpose.application.text


def _differ(old: Object, new: Object, *, is_waiting: bool) -> bool:
    """Whether more than the status has changed; of that only counts which generation it is about, while that is waited
    for.
    """
    passing = ("resourceVersion", "managedFields")
    metas = [{key: value for key, value in each["metadata"].items() if key not in passing} for each in (old, new)]
    observed = [(each.get("status") or {}).get("observedGeneration") for each in (old, new)]
    return metas[0] != metas[1] or old.get("spec") != new.get("spec") or (is_waiting and observed[0] != observed[1])


def _says(raw: Object, wanted: dict[str, Any]) -> bool:
    """Whether a merge patch of this would change nothing."""
    for key, value in wanted.items():
        has = raw.get(key)
        if isinstance(value, dict):
            if not _says(has or {}, value):
                return False
        elif has != value:
            return False
    return True
