"""What a change or a deletion would take from those who use it: addresses from pods, ranges from pools.

Only what the change itself takes away counts: trouble from before is no reason to refuse an edit, which may lessen it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain import fields
from allocator.domain.addresses import AddressError, IntervalSet, parse_address
from allocator.domain.errors import FieldError
from allocator.domain.json_annotation import PREFIX
from allocator.domain.overlap import extent_of, total_of
from allocator.domain.subnet_annotations import IP_NUMBER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from allocator.domain.addresses import Address, Version
    from allocator.domain.fields import Raw
    from allocator.domain.overlap import Extent

# On a pool or subnet, with the value "true": its addresses in use are no reason to refuse an edit or its deletion.
FORCE: Final = PREFIX + "force-in-use"
_HOW: Final = f'or force it with the annotation {FORCE}: "true"'
PUT_BACK: Final = (
    "the pool belongs to an application, and the controller gives it back what is taken out by hand: change the "
    f"annotation {IP_NUMBER.key} of the application instead"
)


@dataclass(frozen=True, slots=True)
class User:
    """Who has an address; `who` in words, for example `pod shop/cart-0`."""

    address: Address
    who: str

    def __str__(self) -> str:
        return f"{self.address} ({self.who})"


def is_forced(raw: Raw) -> bool:
    annotations = fields.mapping_at(fields.mapping_at(raw, "metadata"), "annotations")
    return annotations.get(FORCE) == "true"


def taken_away(old: Raw, new: Raw) -> IntervalSet | None:
    """What the stored object offers and the changed one does not; None when one of them cannot be read."""
    before, after = extent_of(old), extent_of(new)
    if before is None or after is None or before.version != after.version:
        return None
    # An item that cannot be read is another rule's problem; it takes nothing away by being written.
    total = total_of(fields.mapping_at(new, "spec"), after.version)
    return None if total is None else before.ips - total


def newly_reserved(old: Raw, new: Raw) -> IntervalSet | None:
    """What a SpiderReservedIP reserves and did not reserve before; None when it cannot be read."""
    after = _reserved(new)
    if after is None:
        return None
    before = _reserved(old)
    return after if before is None or before.version != after.version else after - before


def stranded(gone: IntervalSet, users: Iterable[User]) -> list[FieldError]:
    """The problem of an edit that takes `gone` away from a pool with these users."""
    hit = among(gone, users)
    if not hit:
        return []
    message = f"in use: {listing(hit)}; keep them in ips, or delete the pods first, {_HOW}"
    return [FieldError("Forbidden", "spec.ips", message)]


def taken_from_pools(gone: IntervalSet, lent: Mapping[str, IntervalSet]) -> list[FieldError]:
    """The problems of an edit that takes `gone` away from a subnet with these pools."""
    problems = []
    for pool, ranges in sorted(lent.items()):
        if hit := ranges & gone:
            message = f'lent to SpiderIPPool "{pool}": {fields.some_of(hit.texts())}; take them out of the pool first'
            problems.append(FieldError("Forbidden", "spec.ips", f"{message}, {_HOW}"))
    return problems


def why_not_deleted(users: Sequence[User]) -> str:
    """What stands against the deletion of a pool; empty when nothing does."""
    if not users:
        return ""
    count = f"{len(users)} of its addresses {'is' if len(users) == 1 else 'are'} in use"
    return f"{count}: {listing(users)}; delete the pods first, {_HOW}"


def why_no_subnet_deleted(by_hand: Mapping[str, IntervalSet], users: Sequence[User]) -> str:
    """What stands against the deletion of a subnet; empty when nothing does.

    `by_hand` is what pools that people made have of it, `users` are those of its automatic pools, which go with it.
    """
    told, first = [], []
    if holders := sorted(pool for pool, ranges in by_hand.items() if ranges):
        count = f"{len(holders)} SpiderIPPool{' has' if len(holders) == 1 else 's have'} addresses of it"
        told.append(f"{count}: {fields.some_of(holders)}")
        first.append("pools")
    if users:
        count = f"{len(users)} {'address' if len(users) == 1 else 'addresses'} of its automatic pools"
        told.append(f"{count} {'is' if len(users) == 1 else 'are'} in use: {listing(users)}")
        first.append("pods")
    return f"{', and '.join(told)}; delete these {' and '.join(first)} first, {_HOW}" if told else ""


def offered_by(pools: Iterable[Extent], subnet: Extent) -> dict[str, IntervalSet]:
    """Pool name -> what it has of the subnet by its spec."""
    return {pool.name: pool.ips & subnet.ips for pool in pools if pool.subnet == subnet.subnet}


def lent_by(subnet: Extent, status: Raw, pools: Iterable[Extent]) -> dict[str, IntervalSet]:
    """Pool name -> what it has of the subnet, by the accounts in the subnet's `status` and by the pools' specs."""
    nothing = IntervalSet(subnet.version)
    lent: dict[str, IntervalSet] = {}
    for name, entry in json_at(status, "controlledIPPools").items():
        lent[name] = _recorded(entry, subnet.version) & subnet.ips
    for name, ranges in offered_by(pools, subnet).items():
        lent[name] = lent.get(name, nothing) | ranges
    return lent


def beside_the_accounts(pool: Extent, status: Raw) -> list[FieldError]:
    """The problem of an automatic pool that takes addresses which its subnet's `status` does not lend it."""
    recorded = _recorded(json_at(status, "controlledIPPools").get(pool.name), pool.version)
    beside = pool.ips - recorded
    if not beside:
        return []
    has = fields.some_of(recorded.texts()) or "nothing"
    message = (
        f"{fields.some_of(beside.texts())} is not lent to it by its SpiderSubnet, which lends it {has}: it belongs to "
        f"an application, whose annotation {IP_NUMBER.key} says how many addresses it gets"
    )
    return [FieldError("Forbidden", "spec.ips", message)]


def lent_to_others(pool: Extent, status: Raw) -> dict[str, IntervalSet]:
    """What the accounts in a subnet's `status` have lent to automatic pools of what this pool takes, by their names."""
    lent: dict[str, IntervalSet] = {}
    for name, entry in json_at(status, "controlledIPPools").items():
        is_automatic = isinstance(entry, Mapping) and bool(entry.get("application"))
        if name != pool.name and is_automatic and (shared := pool.ips & _recorded(entry, pool.version)):
            lent[name] = shared
    return lent


def taken_from_applications(lent: Mapping[str, IntervalSet]) -> list[FieldError]:
    """The problems of a pool made by hand that takes what is lent to these pools, even if they do not offer it now."""
    return [
        FieldError(
            "Forbidden",
            "spec.ips",
            f'{fields.some_of(ranges.texts())} is lent to SpiderIPPool "{name}", which belongs to an application: '
            "take it out of ips",
        )
        for name, ranges in sorted(lent.items())
        if ranges
    ]


def users_of_status(raw: Raw, version: Version) -> list[User]:
    """Those of `status.allocatedIPs`, which the original keeps; ours are address objects."""
    users = []
    for text, entry in json_at(fields.mapping_at(raw, "status"), "allocatedIPs").items():
        try:
            address = parse_address(text, version)
        except AddressError:
            continue
        pod = entry.get("pod", "") if isinstance(entry, Mapping) else ""
        users.append(User(address, f"pod {pod}" if pod else "nobody knows who"))
    return users


def among(addresses: IntervalSet, users: Iterable[User]) -> list[User]:
    """The users of these addresses."""
    return [user for user in users if user.address in addresses]


def listing(users: Iterable[User]) -> str:
    """The first few in the order of addresses, and how many more there are."""
    return fields.some_of([str(user) for user in sorted(users, key=lambda user: int(user.address))])


def json_at(parent: Raw, key: str) -> Raw:
    """The JSON object in the text; empty when it is none, because a broken copy is no reason to refuse."""
    text = parent.get(key)
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, Mapping) else {}


def _recorded(entry: object, version: Version) -> IntervalSet:
    """What the accounts of a subnet say of one pool; nothing where they are broken."""
    spec = entry if isinstance(entry, Mapping) else {}
    return total_of({"ips": spec.get("ips")}, version) or IntervalSet(version)


def _reserved(raw: Raw) -> IntervalSet | None:
    spec = fields.mapping_at(raw, "spec")
    version = spec.get("ipVersion")
    if version not in (4, 6) or isinstance(version, bool):
        return None
    family: Version = 4 if version == 4 else 6
    return total_of(spec, family)
