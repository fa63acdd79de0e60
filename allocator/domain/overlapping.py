"""Which pools stand side by side though they may not: for status conditions, over all pools at once.

The rule is that of `overlap.py`. The cost is that of sorting, plus one step for each pair found.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from allocator.domain.addresses import Network
    from allocator.domain.overlap import Extent


def overlapping(pools: Iterable[Extent]) -> Mapping[str, Sequence[str]]:
    """Pool name -> the names of the pools that it overlaps, in order. Pools that overlap none are left out."""
    by_network: defaultdict[Network, list[Extent]] = defaultdict(list)
    for pool in pools:
        by_network[pool.subnet].append(pool)
    found: defaultdict[str, set[str]] = defaultdict(set)
    for left, right in (*_in_different_networks(by_network), *_in_one_network(by_network)):
        found[left].add(right)
        found[right].add(left)
    return {name: tuple(sorted(others)) for name, others in found.items()}


def _in_different_networks(by_network: Mapping[Network, Sequence[Extent]]) -> Iterator[tuple[str, str]]:
    """Networks either nest or are disjoint: in order, each lies within those of its predecessors still open."""
    open_ones: list[Network] = []
    ordered = sorted(by_network, key=lambda each: (each.version, int(each.network_address), each.prefixlen))
    for network in ordered:
        while open_ones and not _holds(open_ones[-1], network):
            open_ones.pop()
        for outer in open_ones:
            yield from ((left.name, right.name) for left in by_network[outer] for right in by_network[network])
        open_ones.append(network)


def _holds(outer: Network, inner: Network) -> bool:
    return outer.version == inner.version and int(inner.network_address) <= int(outer.broadcast_address)


def _in_one_network(by_network: Mapping[Network, Sequence[Extent]]) -> Iterator[tuple[str, str]]:
    for pools in by_network.values():
        spans = sorted((*span, pool.name) for pool in pools for span in pool.ips.spans)
        reaching: list[tuple[int, str]] = []  # (last address, pool) of spans that the next may meet
        for first, last, name in spans:
            reaching = [each for each in reaching if each[0] >= first]
            # A pool's own spans are disjoint.
            yield from ((other, name) for _, other in reaching)
            reaching.append((last, name))
