"""A pool's `status`, derived from the records of the ledger. A copy for people and tools: nothing decides from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from allocator.domain.addresses import IntervalSet
from allocator.domain.record import State
from allocator.domain.slots import public_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from allocator.domain.pool import Edition, Pool
    from allocator.domain.record import Record

# Beyond so many records the text would slow every watcher down, and end at etcd's limit of 1.5 MiB an object.
TEXT_LIMIT: Final = 5000
# How many addresses a message names before it says "and n more".
NAMED: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """metav1.Condition. `since` is lastTransitionTime: when `status` changed last, in whole seconds."""

    type: str
    status: Literal["True", "False"]
    reason: str
    message: str
    observed_generation: int
    since: datetime


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


# Whether a condition holds, its reason and its message.
_Finding: TypeAlias = tuple[bool, str, str]

_TERMINATING: Final[_Finding] = (
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


def project(  # noqa: PLR0913 - a pool, its surroundings and what was said before
    pool: Pool,
    records: Iterable[Record],
    reserved: IntervalSet,
    *,
    before: PoolStatus,
    now: datetime,
    overlapping: Sequence[str] = (),
    scanned: bool = False,
    with_text: bool = True,
) -> PoolStatus:
    """The status that the records give. `scanned`: they were listed live after this edition of the pool was seen.

    `overlapping` names the other pools that this one shares addresses with, or whose networks cross its own.
    Without `with_text` the text of `before` stands. Equal input gives an equal status, so that an unchanged one
    needs no write.
    """
    counts = _count(pool, tuple(records), reserved)
    return PoolStatus(
        total=pool.total.count,
        allocated=len(counts.in_use),
        free=counts.free.count,
        allocated_ips=allocated_text(counts.in_use) if with_text else before.allocated_ips,
        observed_generation=pool.edition.generation if scanned else before.observed_generation,
        conditions=_conditions(pool.edition, _findings(pool, counts, overlapping), before, now),
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
        conditions=_conditions(
            edition, {"Ready": _TERMINATING if edition.terminating else _unreadable(why)}, before, now
        ),
    )


def allocated_text(in_use: Sequence[Record]) -> str | None:
    """`status.allocatedIPs` as the original writes it: JSON, keys sorted as text, `pod` and `podUid` only.

    A virtual machine's `pod` has the name of the machine.
    """
    if not 0 < len(in_use) <= TEXT_LIMIT:
        return None
    entries = {}
    for record in in_use:
        holder = record.holder
        entries[str(record.address)] = {
            "pod": f"{holder.namespace}/{public_name(holder.pod, record.slot)}" if holder else "",
            "podUid": holder.pod_uid if holder else "",
        }
    return json.dumps(entries, sort_keys=True, separators=(",", ":"))


def _count(pool: Pool, records: tuple[Record, ...], reserved: IntervalSet) -> _Counts:
    usable = pool.usable(reserved)
    in_use = _in_use(records)
    # A cooling address counts as free: when nothing else is left, a pod gets it (invariant I9).
    taken = (record.address for record in in_use)
    # A pool made anew under an old name may be of the other family than the records of its predecessor.
    free = usable - IntervalSet.addresses(pool.version, (each for each in taken if each.version == pool.version))
    outside = tuple(record for record in in_use if record.address not in usable)
    return _Counts(in_use, usable, free, outside)


def _in_use(records: Iterable[Record]) -> tuple[Record, ...]:
    return tuple(record for record in records if record.state is not State.COOLING)


def _conditions(
    edition: Edition, findings: Mapping[str, _Finding], before: PoolStatus, now: datetime
) -> tuple[Condition, ...]:
    earlier = {condition.type: condition for condition in before.conditions}
    moment = now.replace(microsecond=0)
    found = []
    for kind, (holds, reason, message) in findings.items():
        status: Literal["True", "False"] = "True" if holds else "False"
        known = earlier.get(kind)
        found.append(
            Condition(
                type=kind,
                status=status,
                reason=reason,
                message=message,
                observed_generation=edition.generation,
                since=known.since if known is not None and known.status == status else moment,
            )
        )
    return tuple(found)


def _findings(pool: Pool, counts: _Counts, overlapping: Sequence[str]) -> dict[str, _Finding]:
    """By condition type."""
    free, usable = counts.free.count, counts.usable.count
    tells = f"{free} of {usable} usable addresses are free"
    nearly = free * 10 <= usable
    findings = {
        "Ready": _readiness(pool, counts),
        "Exhausted": (free == 0, "NoFreeAddress" if free == 0 else "FreeAddresses", tells),
        "NearlyExhausted": (nearly, "FewFreeAddresses" if nearly else "FreeAddresses", tells),
        "InUseOutsideSpec": _outside(counts.outside),
        "Overlapping": _overlap(overlapping),
    }
    if len(counts.in_use) > TEXT_LIMIT:
        told = f"status.allocatedIPs lists up to {TEXT_LIMIT} addresses; the SpiderIPAddress objects list all"
        findings["AllocatedIPsOmitted"] = True, "TooManyRecords", told
    return findings


def _readiness(pool: Pool, counts: _Counts) -> _Finding:
    if pool.edition.terminating:
        return _TERMINATING
    if pool.disabled:
        return False, "Disabled", "spec.disable is true: addresses in use stay, new ones are not handed out"
    if not counts.usable:
        return False, "NoUsableAddress", "spec.ips is empty, or everything in it is excluded or reserved"
    return True, "Serving", "the pool hands out addresses"


def _unreadable(why: str) -> _Finding:
    return False, "Unreadable", f"no address is handed out, because the spec cannot be read: {why}"


def _overlap(others: Sequence[str]) -> _Finding:
    if not others:
        return False, "NoOverlap", "no other pool offers an address of this one or has a network that crosses its own"
    named = ", ".join(others[:NAMED])
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    message = (
        f"shares addresses with, or has a network that crosses that of, SpiderIPPool {named}{more}; no address goes to "
        "two pods, but what these pools count as free is not: exclude what is shared in all but one"
    )
    return True, "OverlapsPools", message


def _outside(records: tuple[Record, ...]) -> _Finding:
    if not records:
        return False, "AllInside", "every address in use is one that the spec offers"
    ordered = sorted(records, key=lambda record: (record.address.version, int(record.address)))
    named = ", ".join(_named(record) for record in ordered[:NAMED])
    more = f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else ""
    message = (
        f"{len(ordered)} in use but excluded, reserved, the gateway or not in spec.ips: {named}{more}; "
        "they stay until their pods go: delete the pods, or offer the addresses again"
    )
    return True, "HoldersOutsideSpec", message


def _named(record: Record) -> str:
    holder = record.holder
    return f"{record.address} ({holder.namespace}/{holder.pod})" if holder else str(record.address)
