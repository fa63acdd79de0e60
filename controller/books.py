"""What the leader knows of the cluster: seven caches, and the address records as values, by address, pool and pod.

Everything here may lag behind. It makes suspects and projections; nothing is freed without a live read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from allocator.domain.addresses import object_name
from allocator.domain.pool import reserved_of
from allocator.domain.reclaim import Sighting, has_own
from allocator.domain.record import State
from allocator.domain.slots import KNOWN, MACHINE_INSTANCE, STATEFUL_SET, workload_of
from allocator.kube.cache import Cache
from allocator.kube.codec import Malformed, decode_node_state, decode_pod, decode_record, decode_reservation
from allocator.kube.resources import (
    NODES,
    PODS,
    SPIDER_ENDPOINTS,
    SPIDER_IP_ADDRESSES,
    SPIDER_IP_POOLS,
    SPIDER_RESERVED_IPS,
    STATEFUL_SETS,
)
from allocator.kube.slots import is_counted
from allocator.runtime.logs import get_logger
from controller.endings import Endings
from controller.machines import Machines
from controller.places import Places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from allocator.domain.addresses import IntervalSet, Version
    from allocator.domain.pool import Reservation
    from allocator.domain.reclaim import NodeState
    from allocator.domain.record import Record, Slot
    from allocator.domain.request import Pod
    from allocator.domain.slots import Workload
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from allocator.kube.view import Change
    from allocator.runtime.clock import Clock

P = ParamSpec("P")
G = TypeVar("G", bound=Hashable)

_log = get_logger(__name__)

# A quiet watch proves about once a minute that it is alive (bookmarks), and is given up after 90 s of silence.
STALE_S: Final = 120.0


class Books:
    """Made anew for each term of leadership. Who wants to hear of changes appends to the `on_...` lists first."""

    def __init__(self, client: KubeClient, *, clock: Clock, kept: frozenset[Workload]) -> None:
        self._kept = kept
        self.endings = Endings(clock)
        self.in_use = 0  # records that are not merely cooling
        self._records: dict[str, Record] = {}
        self._places = Places()
        self._by_pool: defaultdict[str, dict[str, Record]] = defaultdict(dict)
        self._by_pod: defaultdict[str, dict[str, Record]] = defaultdict(dict)
        self._by_name: defaultdict[tuple[str, str], dict[str, Record]] = defaultdict(dict)
        self._reservations: tuple[Reservation, ...] | None = None
        self._names: dict[str, tuple[str, str]] = {}  # namespace and name of each pod, by UID
        self._unreadable: set[str] = set()  # UIDs of records that were told of
        self.on_record: list[Callable[[Record | None, Record | None], None]] = []
        self.on_pod: list[Callable[[tuple[Record, ...]], None]] = []
        self.on_pool: list[Callable[[str], None]] = []
        self.on_reservation: list[Callable[[], None]] = []
        self.on_pod_change: list[Callable[[Change], None]] = []
        self.on_stateful_set: list[Callable[[Change], None]] = []
        self.addresses = Cache(client, SPIDER_IP_ADDRESSES, clock=clock, on_change=self._address_changed)
        self.pools = Cache(client, SPIDER_IP_POOLS, clock=clock, on_change=self._pool_changed)
        self.reservations = Cache(client, SPIDER_RESERVED_IPS, clock=clock, on_change=self._reservation_changed)
        self.endpoints = Cache(client, SPIDER_ENDPOINTS, clock=clock)
        self.pods = Cache(client, PODS, clock=clock, on_change=self._pod_changed)
        self.nodes = Cache(client, NODES, clock=clock)
        self.stateful_sets = Cache(client, STATEFUL_SETS, clock=clock, on_change=self._stateful_set_changed)
        self.machines = Machines(client, clock=clock)

    @property
    def caches(self) -> dict[str, Cache]:
        return {
            "addresses": self.addresses,
            "pools": self.pools,
            "reservations": self.reservations,
            "endpoints": self.endpoints,
            "pods": self.pods,
            "nodes": self.nodes,
            "statefulsets": self.stateful_sets,
        }

    async def wait_synced(self) -> None:
        for cache in self.caches.values():
            await cache.wait_synced()

    @property
    def synced(self) -> bool:
        return all(cache.synced for cache in self.caches.values())

    def behind(self) -> list[str]:
        """The caches that have not heard from the API server for too long to judge by."""
        return [name for name, cache in self.caches.items() if not cache.staleness_s() <= STALE_S]

    def keys(self) -> tuple[str, ...]:
        """The names of all address objects that can be read."""
        return tuple(self._records)

    def record(self, key: str) -> Record | None:
        return self._records.get(key)

    def of_pool(self, pool: str) -> tuple[Record, ...]:
        return tuple(self._by_pool[pool].values()) if pool in self._by_pool else ()

    def within(self, addresses: IntervalSet) -> Iterator[Record]:
        """The records of these addresses, of whatever pool."""
        return self._places.within(addresses)

    def of_pod(self, pod_uid: str) -> tuple[Record, ...]:
        return tuple(self._by_pod[pod_uid].values()) if pod_uid in self._by_pod else ()

    def without_pool(self) -> int:
        """How many addresses in use are of a pool that is gone."""
        gone = (records.values() for pool, records in self._by_pool.items() if self.pools.get(pool) is None)
        return sum(record.state is not State.COOLING for records in gone for record in records)

    def pod_of_uid(self, uid: str) -> Pod | None:
        """Whatever its name is: an endpoint does not always have it."""
        return self.pod(*self._names[uid]) if uid in self._names else None

    def pod_uids(self) -> tuple[str, ...]:
        """Of the pods that have records."""
        return tuple(self._by_pod)

    def reserved(self, version: Version) -> IntervalSet:
        if self._reservations is None:
            self._reservations = tuple(_readable_reservations(self.reservations.items()))
        return reserved_of(version, self._reservations)

    def pod(self, namespace: str, name: str) -> Pod | None:
        raw = self.pods.get(name, namespace)
        return None if raw is None else decode_pod(raw, self._kept)

    def sighting(self, record: Record) -> Sighting:
        """A look at the record's holder as the caches have it. KeyError-free: a record without holder sees nobody."""
        holder, peer = record.holder, record.peer
        raw = self.pods.get(holder.pod, holder.namespace) if holder else None
        pod = None if raw is None else decode_pod(raw)
        pool_gone = self.pools.get(record.pool) is None
        return Sighting(
            record=record,
            pod=pod,
            peer_pod=self.pod(peer.namespace, peer.pod) if peer else None,
            node=self.node_state(holder.node if holder else ""),
            ending=None if raw is None else self.endings.see(raw),
            slot_wanted=record.slot is not None and not pool_gone and self.is_wanted(record.slot),
            pool_gone=pool_gone,
            mirror_has_own=pod is not None and has_own(pod, record, self.of_pod(pod.uid)),
        )

    def node_state(self, name: str) -> NodeState:
        return decode_node_state(self.nodes.get(name))

    def is_wanted(self, slot: Slot) -> bool:
        """Whether the slot's workload may fill it again."""
        workload = workload_of(slot)
        if workload in KNOWN - self._kept:
            return False
        if workload == STATEFUL_SET:
            raw = self.stateful_sets.get(slot.name, slot.namespace)
            return raw is not None and is_counted(slot, raw)
        return workload != MACHINE_INSTANCE or self.machines.is_wanted(slot)

    def _address_changed(self, change: Change) -> None:
        old = self._records.get(_name(change))
        new = None if change.new is None else self._readable_record(change.new)
        if old is not None:
            self._forget(old)
            if new is None:
                self._places.drop(old)
            if new is None or new.uid != old.uid:
                self._unreadable.discard(old.uid)
        if new is not None:
            key = object_name(new.address)
            self._records[key] = new
            self._places.put(new)
            self.in_use += new.state is not State.COOLING
            self._by_pool[new.pool][key] = new
            for party in new.parties:
                self._by_pod[party.pod_uid][key] = new
                self._by_name[party.namespace, party.pod][key] = new
        _tell(self.on_record, old, new)

    def _forget(self, record: Record) -> None:
        key = object_name(record.address)
        del self._records[key]
        self.in_use -= record.state is not State.COOLING
        _drop(self._by_pool, record.pool, key)
        for party in record.parties:
            _drop(self._by_pod, party.pod_uid, key)
            _drop(self._by_name, (party.namespace, party.pod), key)

    def _readable_record(self, raw: Object) -> Record | None:
        try:
            record = decode_record(raw)
        except Malformed as error:
            _log.error("address_object_unreadable", why=str(error))
            return None
        if record.state is State.CONFLICT and record.holder is None and record.uid not in self._unreadable:
            # Every true Conflict has a holder: this one is of a newer version, say, or was written past the schema.
            self._unreadable.add(record.uid)
            _log.error(
                "address_object_unreadable",
                address=object_name(record.address),
                uid=record.uid,
                why="its spec cannot be read; it blocks its address, and nothing of ours frees it",
            )
        return record

    def _pod_changed(self, change: Change) -> None:
        raw = change.new or change.old
        if raw is None:
            return
        uid = raw["metadata"]["uid"]
        if change.new is None:
            self.endings.forget(uid)
            self._names.pop(uid, None)
        else:
            self._names[uid] = raw["metadata"]["namespace"], raw["metadata"]["name"]
            self.endings.see(change.new)
        # By the name: a pod that comes back under another UID may speak for its predecessor's.
        name = raw["metadata"]["namespace"], raw["metadata"]["name"]
        _tell(self.on_pod, tuple(self._by_name[name].values()) if name in self._by_name else ())
        _tell(self.on_pod_change, change)

    def _stateful_set_changed(self, change: Change) -> None:
        _tell(self.on_stateful_set, change)

    def _pool_changed(self, change: Change) -> None:
        _tell(self.on_pool, _name(change))

    def _reservation_changed(self, _change: Change) -> None:
        self._reservations = None
        _tell(self.on_reservation)


def _name(change: Change) -> str:
    raw = change.new or change.old
    if raw is None:
        raise AssertionError("a change without an object")
    return str(raw["metadata"]["name"])


def _tell(listeners: Iterable[Callable[P, None]], *args: P.args, **kwargs: P.kwargs) -> None:
    for listener in listeners:
        try:
            listener(*args, **kwargs)
        except Exception:  # noqa: BLE001 - the border of one object: a cache that ends ends the whole term
            _log.exception("change_not_taken_in", listener=repr(listener))


def _drop(index: defaultdict[G, dict[str, Record]], group: G, key: str) -> None:
    index[group].pop(key, None)
    if not index[group]:
        del index[group]


def _readable_reservations(raws: Iterable[Object]) -> Iterable[Reservation]:
    for raw in raws:
        try:
            yield decode_reservation(raw)
        except Malformed as error:
            _log.error("reservation_left_out", why=str(error))
