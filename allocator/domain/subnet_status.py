"""A SpiderSubnet's `status`: what it has lent, and what the controller found out. The accounts themselves are in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain import fields
from allocator.domain.conditions import conditions
from allocator.domain.lending import encode_accounts, total
from allocator.domain.subnet_overlaps import finding

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from allocator.domain.addresses import IntervalSet
    from allocator.domain.conditions import Condition, Finding
    from allocator.domain.lending import Accounts
    from allocator.domain.subnet_overlaps import SubnetOverlap

CONDITIONS: Final = frozenset({"Ready", "Exhausted", "NearlyExhausted", "Overlapping", "ApplicationsUnserved"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetStatus:
    """`accounts` is the text of `controlledIPPools`. `allocated` counts what pools have, whether pods use it or not."""

    accounts: str | None
    total: int
    allocated: int
    free: int
    observed_generation: int
    conditions: tuple[Condition, ...]


def subnet_status(  # noqa: PLR0913 - a subnet, its surroundings and what was said before
    offered: IntervalSet,
    free: IntervalSet,
    accounts: Accounts,
    *,
    generation: int,
    is_terminating: bool,
    overlap: SubnetOverlap | None,
    unserved: Mapping[str, str],
    before: tuple[Condition, ...],
    now: datetime,
) -> SubnetStatus:
    """`offered` is `ips` minus `excludeIPs`, `free` what may still be lent. `unserved` says by application why it gets
    nothing of what it asks for. Equal input gives an equal status.
    """
    return SubnetStatus(
        accounts=encode_accounts(accounts),
        total=offered.count,
        allocated=total(accounts.values()),
        free=free.count,
        observed_generation=generation,
        conditions=conditions(
            _findings(offered, free, is_terminating, overlap, unserved), generation=generation, before=before, now=now
        ),
    )


def _findings(
    offered: IntervalSet,
    free: IntervalSet,
    is_terminating: bool,  # noqa: FBT001 - a value
    overlap: SubnetOverlap | None,
    unserved: Mapping[str, str],
) -> dict[str, Finding]:
    tells = f"{free.size} of {offered.size} addresses may still be lent to pools"
    nearly = free.size * 10 <= offered.size
    findings: dict[str, Finding] = {
        "Ready": _readiness(offered, is_terminating),
        "Exhausted": (not free, "NoFreeAddress" if not free else "FreeAddresses", tells),
        "NearlyExhausted": (nearly, "FewFreeAddresses" if nearly else "FreeAddresses", tells),
        "ApplicationsUnserved": _unserved(unserved),
    }
    if overlap is not None:
        findings["Overlapping"] = finding(overlap)
    return findings


def _readiness(offered: IntervalSet, is_terminating: bool) -> Finding:  # noqa: FBT001 - a value
    if is_terminating:
        told = "the subnet is being deleted and goes when the last of its automatic pools is gone"
        return False, "Terminating", told
    if not offered:
        return False, "NoAddress", "spec.ips is empty, or everything in it is excluded"
    return True, "Lending", "the subnet lends addresses to pools"


def _unserved(unserved: Mapping[str, str]) -> Finding:
    if not unserved:
        return False, "AllServed", "every application that asks for this subnet has its pool"
    told = fields.some_of([f"{application}: {why}" for application, why in sorted(unserved.items())])
    return True, "ApplicationsWait", told
