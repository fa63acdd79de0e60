"""From a request and what was read to a plan: which records to keep, to take over, to drop, and what to claim.

The plan is made of values; the service carries it out and comes back for a new one whenever something it was made from
has changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.domain.addresses import version_of
from allocator.domain.candidates import Subject, doubtful, listed, sift, summary
from allocator.domain.networks import NETWORKS
from allocator.domain.record import Holder, Record, State, rebound, released, shared, taken_over
from allocator.domain.subnet_pools import is_to_come, pending
from allocator.domain.wishes import NO_WISHES, Wishes, wishes_of_pod

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from allocator.domain.addresses import Version
    from allocator.domain.annotations import PoolNames
    from allocator.domain.basis import Basis
    from allocator.domain.candidates import Surroundings
    from allocator.domain.filters import Refusal
    from allocator.domain.pool import Pool
    from allocator.domain.request import AddRequest, Pod

# KubeVirt writes it on the pod that a virtual machine migrates to; its value names the VirtualMachineInstanceMigration.
MIGRATION_ANNOTATION: Final = "kubevirt.io/migrationJobName"


@dataclass(frozen=True, slots=True)
class Move:
    """One compare-and-swap: `after` is written where `before` still stands."""

    before: Record
    after: Record


@dataclass(frozen=True, slots=True)
class Want:
    """One address of a family for an interface, from the first of the pools that has one."""

    holder: Holder
    version: Version
    pools: tuple[Pool, ...]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`clean_gateway` by interface, for each that the plan covers; `covers_all`: no other interface can come."""

    kept: tuple[Record, ...]
    moves: tuple[Move, ...]
    wants: tuple[Want, ...]
    drops: tuple[Move, ...]
    clean_gateway: Mapping[str, bool]
    wishes: Wishes = NO_WISHES
    covers_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the plan is made from. `records`: those of the pod's UID; of a static pod all of its slot, read before the
    pod was. `running`: of the others that have them those which may run, by UID.
    """

    pod: Pod
    running: Mapping[str, Pod] = field(default_factory=dict)
    around: Surroundings
    basis: Basis
    records: tuple[Record, ...]
    versions: frozenset[Version]
    now: datetime


def plan(request: AddRequest, seen: Snapshot) -> Plan:
    """What to do so that each interface has one address of each family that is asked for (invariant I4).

    The first ADD of a pod covers every interface that its annotation `ippools` lists, so that the pod gets all of them
    or none; an interface that has its address already does not wait for the others. errors.PodGone when the pod is not
    alive, errors.Invalid for a malformed annotation, errors.NoPool when a family has no pool that serves the pod,
    errors.PoolPending when the controller has yet to make it.
    """
    if not seen.pod.alive:
        raise errors.PodGone(f"pod {seen.pod.namespace}/{seen.pod.name} is ending: no address is given to it any more")
    asking = request.interface.name
    holds_one = any(record.is_of(seen.pod.uid, asking) for record in seen.records)
    try:
        names = {each.interface: each for each in listed(request, seen.pod, seen.around, seen.basis.pools)}
        wishes = wishes_of_pod(seen.pod.annotations)
    except (errors.Invalid, errors.NoPool):
        if not holds_one:
            raise
        # A pod that has its address keeps it, even when what it asks for has since become wrong.
        return _plan_for(asking, None, request, seen)
    # What the other interfaces stand on is not known before they ask.
    only_asking = holds_one or request.match_master_subnet
    plans = [
        _plan_for(interface, each, request, seen)
        for interface, each in names.items()
        if interface == asking or not only_asking
    ]
    return Plan(
        kept=tuple(record for each in plans for record in each.kept),
        moves=tuple(move for each in plans for move in each.moves),
        wants=tuple(want for each in plans for want in each.wants),
        drops=tuple(move for each in plans for move in each.drops),
        clean_gateway={interface: clean for each in plans for interface, clean in each.clean_gateway.items()},
        wishes=wishes,
        covers_all=not only_asking and (len(names) > 1 or not seen.pod.annotations.get(NETWORKS)),
    )


def _plan_for(interface: str, names: PoolNames | None, request: AddRequest, seen: Snapshot) -> Plan:
    holder = _holder_of(request, seen.pod, interface)
    mine = [record for record in seen.records if record.is_of(holder.pod_uid, interface)]
    waiting = [
        record
        for record in seen.records
        if record not in mine and version_of(record.address) in seen.versions
        if _waits_for(record, seen.pod, interface)
    ]
    kept, doubles = _one_of_each_family(mine)
    heirs, outdated = _heirs(waiting, names, kept)
    # Another interface's records follow the new sandbox when that one asks: until then it runs with what it has.
    asks = interface == request.interface.name
    rebinds = [record for record in kept.values() if asks and record.holder != holder]
    moves = [Move(record, rebound(record, holder)) for record in rebinds]
    moves += [Move(record, _inherited(record, holder, seen)) for record in heirs.values()]
    return Plan(
        kept=tuple(record for record in kept.values() if record not in rebinds),
        moves=tuple(moves),
        wants=_wants(names, holder, seen, kept=kept.keys(), heirs=heirs.keys()),
        drops=tuple(
            Move(record, released(record, seen.now))
            for record in (*(doubles if asks else ()), *outdated)
            if not _others_in(record, seen)
        ),
        clean_gateway={interface: names.clean_gateway if names else request.clean_gateway},
    )


def _holder_of(request: AddRequest, pod: Pod, interface: str) -> Holder:
    return Holder(
        namespace=pod.namespace,
        pod=pod.name,
        pod_uid=pod.uid,
        interface=interface,
        node=pod.node,
        container_id=request.interface.container_id,
        # Of the other interfaces' networks nothing is known before they ask.
        network=request.network if interface == request.interface.name else "",
    )


def _waits_for(record: Record, pod: Pod, interface: str) -> bool:
    """Whether the record stands for this slot and interface. Who held it is gone, unless `running` shows the pod.

    A Retained record of this very UID is a slot whose DEL came before a late ADD.
    """
    return (
        record.slot is not None
        and record.slot == pod.slot
        and record.state in (State.HELD, State.RETAINED)
        and record.holder is not None
        and record.holder.interface == interface
    )


def _inherited(record: Record, holder: Holder, seen: Snapshot) -> Record:
    """The slot's record with its next holder. errors.SlotInUse: another pod that has the address must end first."""
    others = _others_in(record, seen)
    if not others:
        return taken_over(record, holder, seen.now)
    first = others[0]
    is_party = any(party.pod_uid == holder.pod_uid for party in record.parties)
    if len(others) > 1 or not (is_party or _migrates(seen.pod, seen.running[first.pod_uid])):
        raise errors.SlotInUse(_in_use(record, first, seen.running[first.pod_uid]))
    return shared(record, holder, first, seen.now)


def _others_in(record: Record, seen: Snapshot) -> list[Holder]:
    """Other pods that have the address and may run."""
    return [party for party in record.parties if party.pod_uid in seen.running]


def _migrates(target: Pod, source: Pod) -> bool:
    """Whether KubeVirt made the pod to move a running virtual machine there, and the machine is the same."""
    return MIGRATION_ANNOTATION in target.annotations and target.controller == source.controller


def _in_use(record: Record, other: Holder, pod: Pod) -> str:
    slot, name = record.slot, f"{other.namespace}/{other.pod}"
    what = f"{slot.kind} {slot.namespace}/{slot.name}" if slot else "the slot"
    if pod.deleted_at is None:
        return f"{record.address} of {what} is in use by pod {name}, and this pod is no target of its live migration"
    return (
        f"{record.address} of {what} waits for the end of pod {name}, which is being deleted. If its node "
        f"{other.node} is off for good, taint the node with node.kubernetes.io/out-of-service, or delete that pod "
        "with --force"
    )


def _one_of_each_family(records: list[Record]) -> tuple[dict[Version, Record], list[Record]]:
    """The youngest record of each family, and the others, which are given back.

    Two of a family come from a claim that landed after its caller had given up: a later one was answered.
    """
    kept: dict[Version, Record] = {}
    doubles: list[Record] = []
    for record in sorted(records, key=lambda record: (record.since, int(record.address)), reverse=True):
        if version_of(record.address) in kept:
            doubles.append(record)
        else:
            kept[version_of(record.address)] = record
    return kept, doubles


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


def _wants(
    names: PoolNames | None, holder: Holder, seen: Snapshot, *, kept: Collection[Version], heirs: Collection[Version]
) -> tuple[Want, ...]:
    if names is None:
        return ()
    wants: list[Want] = []
    awaited: dict[Version, str] = {}
    for version, listed_names in sorted(names.by_version.items()):
        if version in kept or version in heirs or version not in seen.versions:
            continue
        subject = Subject(seen.pod, holder.interface, version)
        basis = seen.basis
        pools, refusals = sift(
            listed_names, basis.pools, subject, seen.around, usable=basis.usable, overlap=basis.overlap
        )
        if pools:
            wants.append(Want(holder, version, pools, refusals))
        elif names.subnets and is_to_come(basis.pools[name] for name in listed_names):
            awaited[version] = summary(refusals)
        else:
            raise _no_pool(version, names, refusals)
    # A pod that has its address goes on with it, when it asks for the other family too late.
    if awaited and not kept:
        raise pending(names, seen.around.application, awaited)
    if not (wants or kept or heirs):
        families = ", ".join(f"IPv{version}" for version in sorted(names.by_version))
        why = f"pools of the {names.source} are for {families} only, which this cluster has switched off"
        raise errors.NoPool(why)
    return tuple(wants)


def _no_pool(version: Version, names: PoolNames, refusals: tuple[Refusal, ...]) -> errors.NoPool:
    what = f"no IPv{version} pool of the {names.source} serves {names.interface} of this pod"
    return errors.NoPool(f"{what}: {summary(refusals)}", doubtful(refusals))
