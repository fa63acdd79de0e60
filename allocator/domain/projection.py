"""A pool's `status`, derived from the records of the ledger. A copy for people and tools: nothing decides from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain import fields
from allocator.domain.addresses import IntervalSet
from allocator.domain.conditions import conditions
from allocator.domain.drift import CONDITION as DRIFT
from allocator.domain.overlapping import ceded_to, owners, successors, usable
from allocator.domain.record import State
from allocator.domain.slots import public_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from allocator.domain.conditions import Condition, Finding
    from allocator.domain.overlapping import Overlap
    from allocator.domain.pool import Edition, Pool
    from allocator.domain.record import Record

# Beyond so many records the text would slow every watcher down.
TEXT_LIMIT: Final = 5000
# etcd takes 1.5 MiB as a whole. Of pods with the longest names 4,000 records would be more than that, and no status of
# the pool could be written any more.
TEXT_BYTES: Final = 1_200_000
# Of each record beside its names: the longest address, braces, keys, and a backslash for each of ten quotes.
_ENTRY_BYTES: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """`allocated_ips` is the original's JSON text, None when nothing is in use or it would be too long.

    `observed_generation` is the generation whose records were listed after it was seen: 0 for none yet.
    """

    total: int
    allocated: int
    free: int
    allocated_ips: str | None
    observed_generation: int
    conditions: tuple[Condition, ...]


_TERMINATING: Final[Finding] = (
    False,
    "Terminating",
    "the pool is being deleted and goes when the last of its addresses is released",
)
NOTHING_YET: Final = PoolStatus(total=0, allocated=0, free=0, allocated_ips=None, observed_generation=0, conditions=())


@dataclass(frozen=True, slots=True)
class _Counts:
    in_use: tuple[Record, ...]
    usable: IntervalSet
    free: IntervalSet
    outside: tuple[Record, ...]
    ceded: tuple[Record, ...]


def project(  # noqa: PLR0913 - a pool, its surroundings and what was said before
    pool: Pool,
    records: Iterable[Record],
    reserved: IntervalSet,
    *,
    before: PoolStatus,
    now: datetime,
    overlap: Overlap | None = None,
    strangers: Iterable[Record] = (),
    scanned: bool = False,
    with_text: bool = True,
    braked: int = 0,
    drift: Finding | None = None,
) -> PoolStatus:
    """The status that the records give. `scanned`: they were listed live after this edition of the pool was seen.
    `braked`: so many of its addresses would reclaim free, and does not because it would free too many at once. `drift`:
    how it stands to its SpiderSubnet, if it has one.

    `overlap` is how the pool stands to those that it overlaps, and `strangers` are the records of its addresses
    that are held through other pools: those, or ones that offered them before. Without
    `with_text` the text of `before` stands. Equal input gives an equal status, so that an unchanged one needs no write.
    """
    counts = _count(pool, _in_use(records), _in_use(strangers), reserved, overlap)
    return PoolStatus(
        total=pool.total.count,
        allocated=len(counts.in_use),
        free=counts.free.count,
        allocated_ips=allocated_text(counts.in_use) if with_text else before.allocated_ips,
        observed_generation=pool.edition.generation if scanned else before.observed_generation,
        conditions=conditions(
            _findings(pool, counts, overlap, braked) | ({} if drift is None else {DRIFT: drift}),
            generation=pool.edition.generation,
            before=before.conditions,
            now=now,
        ),
    )


def project_unreadable(  # noqa: PLR0913 - as above
    edition: Edition,
    why: str,
    records: Iterable[Record],
    *,
    before: PoolStatus,
    now: datetime,
    scanned: bool = False,
    with_text: bool = True,
) -> PoolStatus:
    """The status of a pool that is no Pool: it offers nothing, and who holds its addresses is told all the same."""
    in_use = _in_use(records)
    return PoolStatus(
        total=0,
        allocated=len(in_use),
        free=0,
        allocated_ips=allocated_text(in_use) if with_text else before.allocated_ips,
        observed_generation=edition.generation if scanned else before.observed_generation,
        conditions=conditions(
            {"Ready": _TERMINATING if edition.terminating else _unreadable(why)},
            generation=edition.generation,
            before=before.conditions,
            now=now,
        ),
    )


def allocated_text(in_use: Sequence[Record]) -> str | None:
    """`status.allocatedIPs` as the original writes it: JSON, keys sorted as text, `pod` and `podUid` only.

    A virtual machine's `pod` has the name of the machine.
    """
    if not in_use or _is_too_long(in_use):
        return None
    entries = {}
    for record in in_use:
        holder = record.holder
        entries[str(record.address)] = {
            "pod": f"{holder.namespace}/{public_name(holder.pod, record.slot)}" if holder else "",
            "podUid": holder.pod_uid if holder else "",
        }
    return json.dumps(entries, sort_keys=True, separators=(",", ":"))


def _is_too_long(in_use: Sequence[Record]) -> bool:
    holders = [record.holder for record in in_use if record.holder is not None]
    names = sum(len(each.namespace) + len(each.pod) + len(each.pod_uid) for each in holders)
    return len(in_use) > TEXT_LIMIT or names + len(in_use) * _ENTRY_BYTES > TEXT_BYTES


def _count(
    pool: Pool,
    in_use: tuple[Record, ...],
    strangers: tuple[Record, ...],
    reserved: IntervalSet,
    overlap: Overlap | None,
) -> _Counts:
    mine, offered = usable(pool, reserved, overlap), pool.usable(reserved)
    # A cooling address counts as free: when nothing else is left, a pod gets it (invariant I9).
    taken = (record.address for record in (*in_use, *strangers))
    # A pool made anew under an old name may be of the other family than the records of its predecessor.
    free = mine - IntervalSet.addresses(pool.version, (each for each in taken if each.version == pool.version))
    outside = tuple(record for record in in_use if record.address not in offered)
    ceded = tuple(record for record in in_use if overlap is not None and record.address in overlap.ceded)
    return _Counts(in_use, mine, free, outside, ceded)


def _in_use(records: Iterable[Record]) -> tuple[Record, ...]:
    return tuple(record for record in records if record.state is not State.COOLING)


def _findings(pool: Pool, counts: _Counts, overlap: Overlap | None, braked: int) -> dict[str, Finding]:
    """By condition type."""
    free, usable_count = counts.free.count, counts.usable.count
    tells = f"{free} of {usable_count} usable addresses are free"
    nearly = free * 10 <= usable_count
    findings = {
        "Ready": _readiness(pool, counts, overlap),
        "Exhausted": (free == 0, "NoFreeAddress" if free == 0 else "FreeAddresses", tells),
        "NearlyExhausted": (nearly, "FewFreeAddresses" if nearly else "FreeAddresses", tells),
        "InUseOutsideSpec": _outside(counts.outside),
        "Overlapping": _overlapping(overlap, counts),
    }
    if _is_too_long(counts.in_use):
        told = (
            f"status.allocatedIPs lists up to {TEXT_LIMIT} addresses and {TEXT_BYTES} bytes; "
            "the SpiderIPAddress objects list all"
        )
        findings["AllocatedIPsOmitted"] = True, "TooManyRecords", told
    if braked:
        told = (
            f"{braked} addresses of this pool seem to be held for pods that are gone, too many in the cluster at once; "
            "they are freed when another look at everything, half a minute later, says the same. If the pods run, look "
            "at what the API server shows of them"
        )
        findings["ReclaimBraked"] = True, "TooManyAtOnce", told
    return findings


def _readiness(pool: Pool, counts: _Counts, overlap: Overlap | None) -> Finding:
    if pool.edition.terminating:
        return _TERMINATING
    if pool.disabled:
        return False, "Disabled", "spec.disable is true: addresses in use stay, new ones are not handed out"
    if not counts.usable:
        lost = f", or {ceded_to(overlap)}" if overlap is not None and overlap.ceded else ""
        return False, "NoUsableAddress", f"spec.ips is empty, or everything in it is excluded or reserved{lost}"
    return True, "Serving", "the pool hands out addresses"


def _unreadable(why: str) -> Finding:
    return False, "Unreadable", f"no address is handed out, because the spec cannot be read: {why}"


def _overlapping(overlap: Overlap | None, counts: _Counts) -> Finding:
    """Who has the overlap, what the others do meanwhile, and how it ends."""
    if overlap is None:
        return False, "NoOverlap", "no other pool offers an address of this one or has a network that crosses its own"
    told = []
    if overlap.ceded:
        told.append(f"{ceded_to(overlap)}: this pool does not hand that out")
    elif overlap.earlier:
        told.append(f"{owners(overlap)} a network that crosses this one's, but no address of this pool lies in it")
    if counts.ceded:
        told.append(f"in use through this pool all the same, until their pods go: {_listed(counts.ceded)}")
    if overlap.later:
        told.append(f"{successors(overlap)} only what does not overlap this pool")
    ways = "delete one of those whose networks cross" if overlap.crosses else "exclude what is shared in one of them"
    return True, "OverlapsPools", f"{'; '.join(told)}. No address goes to two pods; {ways}"


def _outside(records: tuple[Record, ...]) -> Finding:
    if not records:
        return False, "AllInside", "every address in use is one that the spec offers"
    message = (
        f"{len(records)} in use but excluded, reserved, the gateway or not in spec.ips: {_listed(records)}; "
        "they stay until their pods go: delete the pods, or offer the addresses again"
    )
    return True, "HoldersOutsideSpec", message


def _listed(records: Iterable[Record]) -> str:
    ordered = sorted(records, key=lambda record: (record.address.version, int(record.address)))
    return fields.some_of([_named(record) for record in ordered])


def _named(record: Record) -> str:
    holder = record.holder
    return f"{record.address} ({holder.namespace}/{holder.pod})" if holder else str(record.address)
