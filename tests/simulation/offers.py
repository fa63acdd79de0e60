"""What the cluster has offered and wanted, from each moment to the next: the texts of pools, and the slots of sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from allocator.domain.addresses import IntervalSet
from allocator.domain.pool import reserved_of
from allocator.kube.codec import decode_pool, decode_reservation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocator.domain.addresses import Address, Version
    from allocator.domain.pool import Pool, Reservation
    from allocator.domain.record import Slot
    from allocator.domain.request import Pod
    from devcluster.plane.problems import Object
    from devcluster.plane.store import Event, Store

RECORDS: Final = "spiderpool.spidernet.io/spideripaddresses"
ENDPOINTS: Final = "spiderpool.spidernet.io/spiderendpoints"
POOLS: Final = "spiderpool.spidernet.io/spiderippools"
RESERVATIONS: Final = "spiderpool.spidernet.io/spiderreservedips"
SUBNETS: Final = "spiderpool.spidernet.io/spidersubnets"
# How far an agent's caches may be behind: a watch that is stuck twice, and a list that is tried again.
BEHIND_S: Final = 130.0


@dataclass(frozen=True, slots=True)
class Moment:
    """What was offered from `at` on."""

    at: float
    pools: dict[str, Pool]
    reservations: tuple[Reservation, ...]


@dataclass
class Offers:
    store: Store
    moments: list[Moment] = field(default_factory=list)
    # By namespace and name of a set: which ordinals it counted from when on.
    _counted: dict[tuple[str, str], list[tuple[float, range]]] = field(default_factory=dict)

    def committed(self, event: Event, now: float) -> None:
        match event.key.collection:
            case "apps/statefulsets":
                self._set_written(event, now)
            case "spiderpool.spidernet.io/spiderreservedips":
                self._look(now)
            case "spiderpool.spidernet.io/spiderippools":
                # Most writes are of a status.
                if event.old is None or event.kind == "DELETED" or _edition(event.old) != _edition(event.new):
                    self._look(now)
            case _:
                pass

    def _look(self, now: float) -> None:
        pools = {key.name: decode_pool(obj) for key, obj in self.store.items(POOLS)}
        reservations = tuple(decode_reservation(obj) for _, obj in self.store.items(RESERVATIONS))
        self.moments.append(Moment(now, pools, reservations))

    def _set_written(self, event: Event, now: float) -> None:
        meta, spec = event.new["metadata"], event.new.get("spec") or {}
        is_going = event.kind == "DELETED" or meta.get("deletionTimestamp")
        history = self._counted.setdefault((meta["namespace"], meta["name"]), [(-1.0, range(0))])
        history.append((now, range(0 if is_going else int(spec.get("replicas", 1)))))

    def since(self, at: float) -> Sequence[Moment]:
        """The moment in force at that time, and all later ones."""
        first = max((number for number, moment in enumerate(self.moments) if moment.at <= at), default=0)
        return self.moments[first:]

    def offered(self, name: str, address: Address, pod: Pod, *, since: float) -> bool:
        """Whether at one moment the pool offered the address to the pod and nobody reserved it (I2, I7)."""
        return any(_offers(moment, name, address, pod) for moment in self.since(since))

    def surely(self, name: str, version: Version, now: float) -> IntervalSet:
        """What the pool offers by each of its texts that an agent may still have, whatever it has of the other pools
        and of the reservations.
        """
        moments = [moment for moment in self.since(now - BEHIND_S) if name in moment.pools]
        sure = moments[0].pools[name].ips if moments else IntervalSet(version)
        for moment in moments:
            sure = sure & moment.pools[name].usable(reserved_of(version, moment.reservations))
            for other in moment.pools.values():
                if other.name != name and other.version == version:
                    sure = sure - other.ips
        return sure

    def is_wanted(self, slot: Slot, *, since: float) -> bool:
        """Whether the slot's set has counted it all the time."""
        history = self._counted.get((slot.namespace, slot.name), [(-1.0, range(0))])
        ends = [*(at for at, _ in history[1:]), float("inf")]
        counted = [ordinals for (_, ordinals), end in zip(history, ends, strict=True) if end > since]
        return all(slot.ordinal in ordinals for ordinals in counted)


def _edition(raw: Object) -> tuple[object, ...]:
    meta = raw["metadata"]
    return meta["uid"], meta.get("generation"), meta.get("deletionTimestamp")


def _offers(moment: Moment, name: str, address: Address, pod: Pod) -> bool:
    pool = moment.pools.get(name)
    return (
        pool is not None
        and not pool.edition.terminating
        and not pool.disabled
        and (not pool.node_names or pod.node in pool.node_names)
        and address in pool.usable(reserved_of(pool.version, moment.reservations))
    )
