"""What SpiderSubnets have lent to pools, judged at every commit of a pool and of a subnet.

S1  of two pools of one network, one of them automatic, no address is in both `spec.ips`
S2  what an automatic pool offers is in its entry of the subnet's accounts, at that very moment
S3  two entries of a subnet share no address
S4  what an ADD was answered with stays in the entry of its pool, as long as the record stands

Between an automatic pool and one made by hand S1 has a window: what people made may take `RACE_S` until the leader
knows of it, for there is no webhook here that would ask the accounts after they were written; then an automatic pool
takes no more of it, and once all is calm it has given everything up (`lent_calm.py`). S4 leaves out what nobody
confirmed (as I2 does) and what people took by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from allocator.domain.addresses import IntervalSet, version_of
from allocator.domain.auto_pools import purpose_of
from allocator.domain.lending import decode_accounts, lent
from allocator.domain.overlap import extent_of
from allocator.domain.record import State
from allocator.domain.subnet_annotations import SUBNET
from tests.simulation.offers import BEHIND_S, POOLS, SUBNETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.domain.auto_pools import Purpose
    from allocator.domain.lending import Loan
    from allocator.domain.overlap import Extent
    from allocator.domain.record import Record
    from allocator.domain.request import Pod
    from devcluster.plane.problems import Object
    from devcluster.plane.store import Event
    from tests.simulation.judge import Judge

# In fair weather; else what a cache may be behind.
RACE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Standing:
    """A pool as it is stored. `purpose` is None of one made by hand, `since` when its text came to be."""

    raw: Object
    extent: Extent
    purpose: Purpose | None
    since: float

    @property
    def name(self) -> str:
        return self.extent.name


@dataclass
class Lent:
    judge: Judge
    pools: dict[str, Standing] = field(default_factory=dict)
    # By subnet, and then by pool.
    accounts: dict[str, dict[str, Loan]] = field(default_factory=dict)

    def committed(self, event: Event) -> None:
        if event.key.collection == POOLS:
            self._pool_written(event)
        elif event.key.collection == SUBNETS:
            self._subnet_written(event)

    def entry(self, pool: Standing) -> IntervalSet:
        accounts = self.accounts.get(pool.purpose.subnet, {}) if pool.purpose is not None else {}
        loan = accounts.get(pool.name)
        return IntervalSet(pool.extent.version) if loan is None else loan.ips

    def serves(self, name: str, pod: Pod) -> bool:
        """Not, where the pod asks for other subnets by now, or is of another application of the same name."""
        pool, uid = self.pools.get(name), pod.controller.uid if pod.controller is not None else pod.uid
        if SUBNET.key not in pod.annotations or pool is None or pool.purpose is None:
            return SUBNET.key not in pod.annotations
        is_listed = f'"{pool.purpose.subnet}"' in pod.annotations[SUBNET.key]
        return is_listed and pool.purpose.application.uid == uid and not pool.raw["metadata"].get("deletionTimestamp")

    def confirmed(self, record: Record) -> None:
        """An ADD is answered with it."""
        pool = self.pools.get(record.pool)
        if pool is not None and pool.purpose is not None:
            held = record.address in self.entry(pool)
            self.judge.hold("S4", held, "%s is told, and not lent to %s", record.address, record.pool)

    # -- pools

    def _pool_written(self, event: Event) -> None:
        name, before = event.key.name, self.pools.get(event.key.name)
        if event.kind == "DELETED":
            self.pools.pop(name, None)
            return
        if before is not None and _text(before.raw) == _text(event.new):
            return
        extent = extent_of({**event.new, "kind": "SpiderIPPool"})
        assert extent is not None, name
        is_other = before is None or before.extent.ips != extent.ips
        since = self.judge.now if is_other or before is None else before.since
        purpose = purpose_of(event.new["metadata"].get("labels") or {})
        pool = self.pools[name] = Standing(event.new, extent, purpose, since)
        if is_other and purpose is not None:
            self.judge.world.story.tell("pool %s offers %s", name, extent.ips.texts())
            self._is_covered(pool)
            self._is_alone(pool, IntervalSet(extent.version) if before is None else before.extent.ips)

    def _is_covered(self, pool: Standing) -> None:
        beyond = pool.extent.ips - self.entry(pool)
        self.judge.hold("S2", not beyond, "%s offers %s, which is not lent to it", pool.name, beyond.texts())

    def _is_alone(self, pool: Standing, before: IntervalSet) -> None:
        race_s = RACE_S if self.judge.world.is_fair else BEHIND_S
        for other in self.pools.values():
            if other is pool or other.extent.subnet != pool.extent.subnet:
                continue
            taken = pool.extent.ips
            if other.purpose is None:
                if self.judge.now - other.since <= race_s:
                    continue
                taken = taken - before
            shared = (taken & other.extent.ips).texts()
            self.judge.hold("S1", not shared, "%s and %s both offer %s", pool.name, other.name, shared)

    # -- accounts

    def _subnet_written(self, event: Event) -> None:
        name = event.key.name
        if event.kind == "DELETED":
            after: dict[str, Loan] = {}
        else:
            after = decode_accounts(event.new.get("status") or {}, 4)
        if after == self.accounts.get(name, {}):
            return
        self.accounts[name] = after
        told = {pool: loan.ips.texts() for pool, loan in after.items()}
        self.judge.world.story.tell("accounts of %s: %s", name, told)
        is_apart = sum(loan.ips.size for loan in after.values()) == lent(after, 4).size
        self.judge.hold("S3", is_apart, "two entries of %s share addresses: %s", name, after)
        for pool in self.automatic(name):
            self._is_covered(pool)
            self._keeps_its_users(pool)

    def automatic(self, subnet: str) -> Iterator[Standing]:
        return (each for each in self.pools.values() if each.purpose is not None and each.purpose.subnet == subnet)

    def _keeps_its_users(self, pool: Standing) -> None:
        entry = self.entry(pool)
        for address, record in self.judge.records.items():
            if record.pool != pool.name or address in entry or record.state is State.COOLING:
                continue
            claim, holder = self.judge.calls.claims.get(address), record.holder
            if claim is None or not claim.is_confirmed or holder is None:
                continue
            was_taken = self.judge.byhand.was_taken(holder.pod_uid, holder.interface, version_of(address))
            self.judge.hold("S4", was_taken, "%s is in use, and no longer lent to %s", address, record.pool)


def _text(raw: Object) -> tuple[object, ...]:
    meta = raw["metadata"]
    return raw.get("spec"), meta.get("labels"), meta.get("deletionTimestamp")
