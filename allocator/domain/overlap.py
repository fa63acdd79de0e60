"""Which pools and subnets may not stand side by side.

Networks of one family are equal or disjoint; pools of one network share no address after their excludes.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from allocator.domain import fields
from allocator.domain.addresses import AddressError, IntervalSet, parse_network, version_of
from allocator.domain.errors import FieldError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from allocator.domain.addresses import Network, Version
    from allocator.domain.fields import Raw


@dataclass(frozen=True, slots=True)
class Extent:
    """What a SpiderIPPool or SpiderSubnet takes up: its network, and of it `ips` minus `excludeIPs`."""

    kind: str
    name: str
    uid: str
    subnet: Network
    ips: IntervalSet

    @property
    def version(self) -> Version:
        return self.ips.version

    @property
    def title(self) -> str:
        return f'{self.kind} "{self.name}"'


@dataclass(frozen=True, slots=True)
class Clash:
    """A problem that exists only because of the neighbour."""

    neighbour: Extent
    problem: FieldError


def extent_of(raw: Raw) -> Extent | None:
    """What the stored object takes up; None when its subnet cannot be read.

    The family comes from the network: objects from before the webhook may lack `ipVersion`. Items that cannot be read
    take up nothing, because nothing can be allocated from them either.
    """
    spec = fields.mapping_at(raw, "spec")
    metadata = fields.mapping_at(raw, "metadata")
    try:
        subnet = parse_network(str(spec.get("subnet")))
    except AddressError:
        return None
    version = version_of(subnet)
    ips = total_of(spec, version) or IntervalSet(version)
    return Extent(str(raw.get("kind", "")), str(metadata.get("name", "")), str(metadata.get("uid", "")), subnet, ips)


def newly_taken(old: Raw, mine: Extent) -> Extent:
    """Of what a changed object takes up, what the stored one did not: the change is to blame for no more."""
    before = extent_of(old)
    if before is None or before.version != mine.version:
        return mine
    return replace(mine, ips=mine.ips - before.ips)


def total_of(spec: Raw, version: Version) -> IntervalSet | None:
    """`ips` minus `excludeIPs`; None when an item cannot be read, or when there are more than anybody looks at."""
    ips, excludes = (spec.get(key) or () for key in ("ips", "excludeIPs"))
    try:
        if max(len(ips), len(excludes)) > fields.MAX_TYPED_ITEMS:
            return None
        return IntervalSet.parse(version, ips) - IntervalSet.parse(version, excludes)
    except (AddressError, AttributeError, TypeError):
        return None


def pool_clashes(pool: Extent, pools: Iterable[Extent]) -> list[Clash]:
    """Every pool that the given one may not stand beside."""
    clashes = []
    for other in pools:
        if other.name == pool.name or other.version != pool.version:
            continue
        if other.subnet != pool.subnet:
            clashes += _network_clash(pool, other)
        elif shared := pool.ips & other.ips:
            message = (
                f"{fields.some_of(shared.texts())} already belongs to {other.title}: "
                f"take it out of ips, or exclude it in one of the two"
            )
            clashes.append(Clash(other, FieldError("Forbidden", "spec.ips", message)))
    return clashes


def owner_clashes(pool: Extent, subnets: Iterable[Extent]) -> list[Clash]:
    """A pool with the network of a SpiderSubnet lies inside what that offers."""
    clashes = []
    for subnet in subnets:
        if subnet.subnet == pool.subnet and (outside := pool.ips - subnet.ips):
            message = (
                f"{fields.some_of(outside.texts())} is not offered by {subnet.title}, which has this network: "
                f"take it out, or add it to the subnet's ips"
            )
            clashes.append(Clash(subnet, FieldError("Forbidden", "spec.ips", message)))
    return clashes


def crossed(pool: Extent, subnets: Iterable[Extent]) -> list[Extent]:
    """The SpiderSubnets whose networks overlap the pool's without being the same: they cannot account for it."""
    return [subnet for subnet in subnets if subnet.subnet != pool.subnet and _overlaps(pool.subnet, subnet.subnet)]


def subnet_clashes(subnet: Extent, subnets: Iterable[Extent], pools: Iterable[Extent]) -> list[Clash]:
    """Every subnet and pool that the given SpiderSubnet may not stand beside."""
    clashes = []
    for other in subnets:
        if other.name != subnet.name and other.version == subnet.version:
            clashes += _network_clash(subnet, other)
    for pool in pools:
        if pool.version != subnet.version:
            continue
        if pool.subnet != subnet.subnet:
            clashes += _network_clash(subnet, pool)
        elif outside := pool.ips - subnet.ips:
            message = (
                f"must include what {pool.title} already has: add {fields.some_of(outside.texts())}, "
                f"or take it out of the pool first"
            )
            clashes.append(
                Clash(pool, FieldError("Invalid", "spec.ips", message, subnet.ips.texts()[: fields.MAX_SHOWN]))
            )
    return clashes


def _network_clash(mine: Extent, other: Extent) -> list[Clash]:
    if not _overlaps(mine.subnet, other.subnet):
        return []
    message = f"overlaps {other.subnet} of {other.title}: write the same network, or one that shares no address"
    if mine.kind == other.kind == "SpiderSubnet":
        message = f"overlaps {other.subnet} of {other.title}: write a network that shares no address with it"
    return [Clash(other, FieldError("Invalid", "spec.subnet", message, str(mine.subnet)))]


def _overlaps(left: Network, right: Network) -> bool:
    if isinstance(left, ipaddress.IPv4Network):
        return isinstance(right, ipaddress.IPv4Network) and left.overlaps(right)
    return isinstance(right, ipaddress.IPv6Network) and left.overlaps(right)
