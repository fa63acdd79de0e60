"""What a SpiderSubnet lends to pools: its accounts, who gets how much, and how an automatic pool grows and shrinks.

No address is ever in two pools, whoever dies in between, because of the order of the writes. To lend: the pool is
born empty, the accounts say what it gets, then its `spec.ips` offer it. To take back: `spec.ips` offer it no more; once
that generation is observed and a live look finds no holder outside, the accounts let it go. So what a pool offers or
has in use is always in its account, and a write that comes late meets another generation and changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from allocator.domain import fields
from allocator.domain.addresses import COUNT_LIMIT, IntervalSet
from allocator.domain.overlap import total_of
from allocator.domain.usage import json_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from allocator.domain.addresses import Version
    from allocator.domain.fields import Raw


@dataclass(frozen=True, slots=True)
class Loan:
    """What a pool has of a subnet. `application` is that of an automatic pool (Application.text), else empty."""

    ips: IntervalSet
    application: str = ""


Accounts: TypeAlias = Mapping[str, Loan]


def decode_accounts(status: Raw, version: Version) -> dict[str, Loan]:
    """`status.controlledIPPools`, the original's JSON text, by the pools' names. What cannot be read is left out."""
    accounts = {}
    for pool, entry in json_at(status, "controlledIPPools").items():
        if not isinstance(entry, Mapping):
            continue
        ips, application = total_of({"ips": entry.get("ips")}, version), entry.get("application")
        if ips is not None:
            accounts[pool] = Loan(ips, application if isinstance(application, str) else "")
    return accounts


def encode_accounts(accounts: Accounts) -> str | None:
    """None when nothing is lent: the original leaves the field out then."""
    entries: dict[str, dict[str, object]] = {}
    for pool, loan in sorted(accounts.items()):
        entries[pool] = {"ips": loan.ips.texts()}
        if loan.application:
            entries[pool]["application"] = loan.application
    return json.dumps(entries, separators=(",", ":")) if entries else None


def lent(accounts: Accounts, version: Version) -> IntervalSet:
    return IntervalSet.of(version, (span for loan in accounts.values() for span in loan.ips.spans))


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A pool that an application has of a subnet: what the accounts record, the spec offers and pods use (or may use
    again: everything that is not merely cooling). `is_observed`: the leader has looked at this text of the spec.
    """

    pool: str
    subnet: str
    recorded: IntervalSet
    offered: IntervalSet
    in_use: IntervalSet
    is_observed: bool


@dataclass(frozen=True, slots=True)
class Shares:
    """How many addresses each of an application's pools is to have.

    `birth` is the subnet that a new pool takes `rest` addresses from. `missing` are those that no subnet has room for,
    and then everything stays as it is.
    """

    by_pool: Mapping[str, int] = field(default_factory=dict)
    birth: str | None = None
    rest: int = 0
    missing: int = 0


def shares(size: int, holdings: Sequence[Holding], room: Mapping[str, int]) -> Shares:
    """Share `size` addresses out. `room` is what each subnet that the application lists has free, in its order.

    A pool keeps what it has, the last one gives back first. What more is needed comes whole from the first subnet that
    has room for it: a fall-back takes over where the one before is full, and nobody gets half of what was asked.
    """
    by_pool, rest = {}, size
    for holding in holdings:
        by_pool[holding.pool] = min(holding.recorded.size, rest)
        rest -= by_pool[holding.pool]
    if rest == 0:
        return Shares(by_pool)
    found = next((subnet for subnet, free in room.items() if free >= rest), None)
    if found is None:
        return Shares({holding.pool: holding.recorded.size for holding in holdings}, missing=rest)
    for holding in holdings:
        if holding.subnet == found:
            by_pool[holding.pool] += rest
            return Shares(by_pool)
    return Shares(by_pool, birth=found, rest=rest)


@dataclass(frozen=True, slots=True)
class Resizing:
    """Of one pool: what the accounts are to say now, what the spec is to offer after that, and what the accounts may be
    cut down to once a live look finds no holder outside (None: nothing to take back, or not yet).
    """

    recorded: IntervalSet
    offered: IntervalSet
    settled: IntervalSet | None = None


def resized(holding: Holding, share: int, free: IntervalSet, good: IntervalSet) -> Resizing:
    """One step towards `share` addresses. `free` is what the subnet may lend, `good` what the pool may have of it:
    all that it offers and no pool made by hand has.

    To grow takes the lowest free addresses. To shrink waits until enough addresses are idle, and gives the lowest back.
    """
    has = holding.recorded & good
    if share > has.size:
        has |= free.head(share - has.size)
    surplus, target = has.size - share, has
    idle = has - holding.in_use
    if 0 < surplus <= idle.size:
        target = has - idle.head(surplus)
        began = holding.offered.size == share and holding.offered <= has
        if began and (has & holding.in_use) <= holding.offered:
            # What was begun goes on, whoever has come and gone since.
            target = holding.offered
    recorded = has | holding.recorded
    is_through = holding.offered == target and holding.is_observed
    return Resizing(recorded, target, target if is_through and recorded != target else None)


def by_hand(offered: IntervalSet, total: IntervalSet, others: IntervalSet) -> IntervalSet:
    """What the accounts say of a pool that people made: what it has of the subnet, and no automatic pool has."""
    return (offered & total) - others


def told(missing: int, size: int, subnets: Iterable[str]) -> str:
    """Why an application does not get all that it asks for, and what to do. Without what is free at the moment: each
    change of that would be another event.
    """
    return (
        f"{missing} of {size} addresses are missing, and no SpiderSubnet that it lists has so many free "
        f"({fields.some_of([*subnets])}): add addresses to spec.ips of one, list one more, or ask for fewer with "
        "ipam.spidernet.io/ippool-ip-number"
    )


def total(loans: Iterable[Loan]) -> int:
    """As a status field can hold it."""
    return min(sum(loan.ips.size for loan in loans), COUNT_LIMIT)
