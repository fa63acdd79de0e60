"""From a request and what was read to a plan: which records to keep, to take over, to drop, and what to claim.

The plan is made of values; the service carries it out and comes back for a new one whenever something it was made from
has changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from allocator.domain import errors
from allocator.domain.addresses import IntervalSet, version_of
from allocator.domain.candidates import DOUBTFUL, Subject, listed, sift
from allocator.domain.record import Holder, Record, State, rebound, released, taken_over

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from allocator.domain.addresses import Version
    from allocator.domain.annotations import PoolNames
    from allocator.domain.candidates import Refusal, Surroundings
    from allocator.domain.pool import Pool
    from allocator.domain.request import AddRequest, Pod


@dataclass(frozen=True, slots=True)
class Move:
    """One compare-and-swap: `after` is written where `before` still stands."""

    before: Record
    after: Record


@dataclass(frozen=True, slots=True)
class Want:
    """One address of a family, from the first of the pools that has one."""

    version: Version
    pools: tuple[Pool, ...]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    kept: tuple[Record, ...]
    moves: tuple[Move, ...]
    wants: tuple[Want, ...]
    drops: tuple[Move, ...]
    clean_gateway: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the plan is made from. `records`: those of the pod's UID; of a static pod all under its name, read before
    the pod was.
    """

    pod: Pod
    around: Surroundings
    pools: Mapping[str, Pool]
    records: tuple[Record, ...]
    versions: frozenset[Version]
    now: datetime


def holder_of(request: AddRequest, pod: Pod) -> Holder:
    return Holder(
        namespace=pod.namespace,
        pod=pod.name,
        pod_uid=pod.uid,
        interface=request.interface.name,
        node=pod.node,
        container_id=request.interface.container_id,
    )


def plan(request: AddRequest, seen: Snapshot) -> Plan:
    """What to do so that the interface has one address of each family that is asked for (invariant I4).

    errors.PodGone when the pod is not alive, errors.Invalid for a malformed annotation, errors.NoPool when a family has
    no pool that serves the pod.
    """
    if not seen.pod.alive:
        raise errors.PodGone(f"pod {seen.pod.namespace}/{seen.pod.name} is ending: no address is given to it any more")
    holder = holder_of(request, seen.pod)
    mine = [record for record in seen.records if record.is_of(holder.pod_uid, holder.interface)]
    waiting = [
        record
        for record in seen.records
        if record not in mine and version_of(record.address) in seen.versions
        if _waits_for(record, seen.pod, holder)
    ]
    kept, doubles = _one_of_each_family(mine)
    names = _names(request, seen, kept)
    heirs, outdated = _heirs(waiting, names, kept)
    moves = [Move(record, rebound(record, holder)) for record in kept.values() if record.holder != holder]
    moves += [Move(record, taken_over(record, holder, seen.now)) for record in heirs.values()]
    return Plan(
        kept=tuple(record for record in kept.values() if record.holder == holder),
        moves=tuple(moves),
        wants=_wants(names, request, seen, have={*kept, *heirs}),
        drops=tuple(Move(record, released(record, seen.now)) for record in (*doubles, *outdated)),
        clean_gateway=names.clean_gateway if names else request.clean_gateway,
    )


def _waits_for(record: Record, pod: Pod, holder: Holder) -> bool:
    """Whether the record stands for this slot and interface, and its last holder is proven gone.

    A name belongs to one pod at a time. The records were read before the pod: whoever held one of them then was there
    before, and the API server shows this pod under the slot's name since. What changed after that meets a conflict.
    A Retained record of this very UID is a slot whose DEL came before a late ADD.
    """
    return (
        record.slot is not None
        and record.slot == pod.slot
        and record.state in (State.HELD, State.RETAINED)
        and record.holder is not None
        and record.holder.interface == holder.interface
    )


def _one_of_each_family(records: list[Record]) -> tuple[dict[Version, Record], list[Record]]:
    """The oldest record of each family, and the others: what a lost answer once claimed too many is given back."""
    kept: dict[Version, Record] = {}
    doubles: list[Record] = []
    for record in sorted(records, key=lambda record: (record.since, int(record.address))):
        if version_of(record.address) in kept:
            doubles.append(record)
        else:
            kept[version_of(record.address)] = record
    return kept, doubles


def _names(request: AddRequest, seen: Snapshot, kept: Mapping[Version, Record]) -> PoolNames | None:
    """The pools asked for. A pod that has its address keeps it, even when what it asks for has since become wrong."""
    try:
        names = listed(request, seen.pod, seen.around, seen.pools)
    except (errors.Invalid, errors.NoPool):
        if kept:
            return None
        raise
    return next(each for each in names if each.interface == request.interface.name)


def _heirs(
    waiting: list[Record], names: PoolNames | None, kept: Mapping[Version, Record]
) -> tuple[dict[Version, Record], list[Record]]:
    """The slot's records to take over, and those to give back because their pool is asked for no longer."""
    heirs: dict[Version, Record] = {}
    outdated: list[Record] = []
    for record in sorted(waiting, key=lambda record: (record.since, int(record.address))):
        version = version_of(record.address)
        wanted = names is None or record.pool in names.by_version.get(version, ())
        if wanted and version not in kept and version not in heirs:
            heirs[version] = record
        else:
            outdated.append(record)
    return heirs, outdated


def _usable(pool: Pool) -> IntervalSet:
    return pool.usable(IntervalSet(pool.version))


def _wants(names: PoolNames | None, request: AddRequest, seen: Snapshot, have: set[Version]) -> tuple[Want, ...]:
    if names is None:
        return ()
    wants = []
    for version, listed_names in sorted(names.by_version.items()):
        if version in have or version not in seen.versions:
            continue
        subject = Subject(seen.pod, request.interface.name, version)
        pools, refusals = sift(listed_names, seen.pools, subject, seen.around, usable=_usable)
        if not pools:
            whys = "; ".join(str(refusal) for refusal in refusals)
            doubtful = tuple(refusal.pool for refusal in refusals if refusal.filter in DOUBTFUL)
            raise errors.NoPool(f"no IPv{version} pool of the {names.source} serves this pod: {whys}", doubtful)
        wants.append(Want(version, pools, refusals))
    if not wants and not have:
        families = ", ".join(f"IPv{version}" for version in sorted(names.by_version))
        raise errors.NoPool(f"the {names.source} lists pools for {families} only, which this cluster has switched off")
    return tuple(wants)
