"""SpiderSubnets that stand beside a network that they may not stand beside. The rule is that of `overlap.py`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from allocator.domain import fields
from allocator.domain.overlapping import crossing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from allocator.domain.addresses import Network
    from allocator.domain.conditions import Finding


@dataclass(frozen=True, slots=True)
class Subnet:
    name: str
    uid: str
    created: datetime
    network: Network

    @property
    def age(self) -> tuple[datetime, str]:
        return self.created, self.uid


@dataclass(frozen=True, slots=True)
class SubnetOverlap:
    """By name, in alphabetical order: the SpiderSubnets made earlier and later, and the pools in other networks."""

    earlier: tuple[str, ...]
    later: tuple[str, ...]
    pools: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.earlier or self.later or self.pools)


def subnet_overlaps(subnets: Iterable[Subnet], pools: Mapping[str, Network]) -> Mapping[str, SubnetOverlap]:
    """What each subnet overlaps, by its name. `pools` are the networks of the pools.

    Two subnets overlap when their networks share an address, a subnet and a pool when they do and are not the same: a
    pool of the same network is one of the subnet's.
    """
    subnets_in: defaultdict[Network, list[Subnet]] = defaultdict(list)
    for subnet in subnets:
        subnets_in[subnet.network].append(subnet)
    if not subnets_in:
        return {}
    pools_in: defaultdict[Network, list[str]] = defaultdict(list)
    for name, network in pools.items():
        pools_in[network].append(name)
    crossed: defaultdict[Network, list[Network]] = defaultdict(list)
    for outer, inner in crossing({*subnets_in, *pools_in}):
        crossed[outer].append(inner)
        crossed[inner].append(outer)
    return {
        subnet.name: _overlap(
            subnet,
            [other for each in (network, *crossed[network]) for other in subnets_in.get(each, ())],
            [name for each in crossed[network] for name in pools_in.get(each, ())],
        )
        for network, group in subnets_in.items()
        for subnet in group
    }


def _overlap(subnet: Subnet, subnets: Sequence[Subnet], pools: Sequence[str]) -> SubnetOverlap:
    return SubnetOverlap(
        earlier=tuple(sorted(other.name for other in subnets if other.age < subnet.age)),
        later=tuple(sorted(other.name for other in subnets if other.age > subnet.age)),
        pools=tuple(sorted(pools)),
    )


def finding(overlap: SubnetOverlap) -> Finding:
    """The condition Overlapping of the subnet: who goes before whom, and what to do."""
    if not overlap:
        told = "its network overlaps that of no other SpiderSubnet, and crosses that of no SpiderIPPool"
        return False, "NoOverlap", told
    parts = []
    if overlap.earlier:
        parts.append(f"SpiderSubnet {fields.some_of(overlap.earlier)}, made earlier, goes before this one: delete one")
    if overlap.later:
        parts.append(f"SpiderSubnet {fields.some_of(overlap.later)}, made later, stands back: delete one")
    if overlap.pools:
        parts.append(
            f"SpiderIPPool {fields.some_of(overlap.pools)} has a network that crosses this one, and is none of its "
            "pools: delete it, or this SpiderSubnet"
        )
    return True, "OverlapsNetworks", f"networks that share addresses: {'; '.join(parts)}"
