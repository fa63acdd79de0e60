"""Pools that stand side by side though they may not: which of them has what they share.

The rule that refuses such a pool is that of `overlap.py`. It slips through where two webhook replicas judge at once, or
no webhook was there. The cost is that of sorting the pools, plus one step for each pair found.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from allocator.domain import fields
from allocator.domain.addresses import IntervalSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from allocator.domain.addresses import Network
    from allocator.domain.pool import Pool


@dataclass(frozen=True, slots=True)
class Overlap:
    """How a pool stands to those that it overlaps: names in alphabetical order, of those made earlier and later.

    `ceded` are the addresses of its own that the earlier ones have; `crosses` says whether any of the networks differ.
    """

    earlier: tuple[str, ...]
    later: tuple[str, ...]
    ceded: IntervalSet
    crosses: bool


def overlaps(pools: Iterable[Pool]) -> Mapping[str, Overlap]:
    """By name; pools that overlap none are left out.

    Of two pools that overlap the one made earlier has the overlap (creationTimestamp, then uid; neither ever changes).
    Where both are of one network, the overlap is what the earlier one offers: `ips` minus `excludeIPs`. Where their
    networks cross, it is the earlier one's whole network, since addresses with two prefix lengths on one segment do not
    reach each other.

    What counts is that the earlier pool is there, and not what it does at the moment: a disabled or terminating one
    keeps the overlap, for pods still have addresses of it, and no switch of one pool moves addresses of another. So a
    pool's part grows when another pool goes, and shrinks only when an older one is given more. A pool that cannot be
    read has nothing. One that still carries another Spiderpool's records counts as made before all others: nobody else
    may hand out what those pods have, and the ledger does not know of them.
    """
    groups: defaultdict[Network, list[Pool]] = defaultdict(list)
    for pool in pools:
        if not pool.problem:
            groups[pool.subnet].append(pool)
    found: dict[str, _Party] = {}
    for crosses, pairs in ((True, _in_crossing_networks(groups)), (False, _in_one_network(groups))):
        for pair in pairs:
            left, right = (found.get(pool.name) or found.setdefault(pool.name, _Party(pool)) for pool in pair)
            first, second = (left, right) if left.age < right.age else (right, left)
            first.later[second] = second.earlier[first] = crosses
    return {name: party.overlap() for name, party in found.items()}


class _Party:
    """A pool, and the others that it meets: for each whether their networks cross."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.age = not pool.unadopted, pool.created, pool.edition.uid
        self.total = pool.total
        self.network = IntervalSet.network(pool.subnet)
        self.earlier: dict[_Party, bool] = {}
        self.later: dict[_Party, bool] = {}

    def overlap(self) -> Overlap:
        taken = {
            span
            for other, crosses in self.earlier.items()
            for span in (other.network if crosses else other.total).spans
        }
        return Overlap(
            earlier=tuple(sorted(other.pool.name for other in self.earlier)),
            later=tuple(sorted(other.pool.name for other in self.later)),
            ceded=self.total & IntervalSet.of(self.pool.version, taken),
            crosses=any(self.earlier.values()) or any(self.later.values()),
        )


def usable(pool: Pool, reserved: IntervalSet, overlap: Overlap | None) -> IntervalSet:
    """What the pool may hand out: what its text offers (invariant I2), without what earlier pools have of it."""
    offered = pool.usable(reserved)
    return offered if overlap is None else offered - overlap.ceded


def owners(overlap: Overlap) -> str:
    """The beginning of a sentence: SpiderIPPool a, made earlier, has."""
    names = overlap.earlier
    return f"{_kind(names)} {fields.some_of(names)}, made earlier, {'has' if len(names) == 1 else 'have'}"


def ceded_to(overlap: Overlap) -> str:
    """A sentence: SpiderIPPool a, made earlier, has 10.0.0.1-10.0.0.9."""
    return f"{owners(overlap)} {fields.some_of(overlap.ceded.texts())}"


def successors(overlap: Overlap) -> str:
    """The beginning of a sentence: SpiderIPPool b, made later, hands out."""
    names = overlap.later
    return f"{_kind(names)} {fields.some_of(names)}, made later, {'hands' if len(names) == 1 else 'hand'} out"


def _kind(names: Sequence[str]) -> str:
    return "SpiderIPPool" if len(names) == 1 else "SpiderIPPools"


def crossing(networks: Iterable[Network]) -> Iterator[tuple[Network, Network]]:
    """The pairs (outer, inner) of different networks that share addresses; each network is given once.

    Networks either nest or are disjoint: in order, each lies within those of its predecessors that are still open.
    """
    ordered = sorted(
        (network.version, int(network.network_address), -int(network.broadcast_address), network)
        for network in networks
    )
    open_ones: list[tuple[int, int, Network]] = []  # (family, last address, network)
    for version, first, minus_last, network in ordered:
        while open_ones and not (open_ones[-1][0] == version and first <= open_ones[-1][1]):
            open_ones.pop()
        for _, _, outer in open_ones:
            yield outer, network
        open_ones.append((version, -minus_last, network))


def _in_crossing_networks(groups: Mapping[Network, Sequence[Pool]]) -> Iterator[tuple[Pool, Pool]]:
    for outer, inner in crossing(groups):
        yield from itertools.product(groups[outer], groups[inner])


def _in_one_network(groups: Mapping[Network, Sequence[Pool]]) -> Iterator[tuple[Pool, Pool]]:
    for pools in groups.values():
        if len(pools) == 1:
            continue
        spans = sorted((*span, number) for number, pool in enumerate(pools) for span in pool.total.spans)
        reaching: list[tuple[int, Pool]] = []  # (last address, pool) of spans that the next may meet
        for first, last, number in spans:
            reaching = [each for each in reaching if each[0] >= first]
            # A pool's own spans are disjoint.
            yield from ((other, pools[number]) for _, other in reaching)
            reaching.append((last, pools[number]))
