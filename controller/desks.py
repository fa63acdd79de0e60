"""The subnets of one turn, opened when somebody asks for them, and what applications have of them already."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from allocator.domain import lending
from allocator.domain.addresses import AddressError, IntervalSet, parse_address
from allocator.domain.applications import label_value
from allocator.domain.auto_pools import labelled
from allocator.domain.desk import Desk
from allocator.domain.lending import decode_accounts
from allocator.domain.overlap import extent_of
from allocator.kube.resources import SPIDER_SUBNETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from allocator.domain.addresses import Version
    from allocator.domain.lending import Holding, Shares
    from allocator.domain.overlap import Extent
    from allocator.kube.resources import Object
    from controller.applications import Demand
    from controller.auto_pools import AutoPools
    from controller.books import Books
    from controller.subnets import Subnets


class Desks:
    def __init__(self, books: Books, subnets: Subnets, pools: AutoPools) -> None:
        self._books = books
        self._subnets = subnets
        self._pools = pools
        self._open: dict[str, Desk] = {}
        self._raws: dict[str, Object] = {}
        # Of several subnets of one network those made first.
        self._firsts: set[str] = set()

    def at(self, name: str) -> Desk | None:
        """None when there is no such subnet, or its network cannot be read."""
        if name not in self._open:
            raw = self._subnets.get(name)
            extent = None if raw is None else extent_of({**raw, "kind": SPIDER_SUBNETS.kind})
            if raw is None or extent is None:
                return None
            self._raws[name] = raw
            self._open[name] = self._opened(raw, extent)
        return self._open[name]

    def raw(self, desk: Desk) -> Object:
        """The subnet as its accounts were read."""
        return self._raws[desk.name]

    def of_pool(self, name: str) -> Desk | None:
        """The subnet that the automatic pool is of, by its label or else by the accounts; None when that is gone."""
        purpose = self._pools.purpose(name)
        network = self._pools.extent(name).subnet
        for raw in self._subnets.with_network(network):
            if purpose is not None and label_value(raw["metadata"]["name"]) == purpose.subnet:
                return self.at(raw["metadata"]["name"])
        opened = (self.at(raw["metadata"]["name"]) for raw in self._subnets.with_network(network))
        return next((desk for desk in opened if desk is not None and name in desk.accounts), None)

    def opened(self) -> list[Desk]:
        return list(self._open.values())

    def open_anew(self) -> None:
        """Because pools have come."""
        names = list(self._open)
        self._open.clear()
        for name in names:
            self.at(name)

    def lenders(self, demand: Demand) -> list[Desk]:
        """Those of the subnets that it lists which could lend, in its order."""
        found = [self.at(name) for name in demand.subnets]
        return [desk for desk in found if desk and not desk.is_terminating and desk.subnet.version == demand.version]

    def room(self, demand: Demand) -> dict[str, int]:
        return {desk.name: desk.room for desk in self.lenders(demand)}

    def holdings(self, demand: Demand) -> list[Holding]:
        """The pools that serve the demand, in the order of the subnets that it lists."""
        names = self._pools.of_application(labelled(demand.application).text)
        return [
            self._pools.holding(name, desk.name, desk.recorded(name))
            for desk in self.lenders(demand)
            for name in names
            if self._serves(name, demand, desk)
        ]

    def shares(self, demand: Demand, room: Mapping[str, int]) -> Shares:
        """How the demand is shared out. What a pool is to give back, since it is reserved now, say, counts no more."""
        good = {desk.name: desk.good for desk in self.lenders(demand)}
        holdings = [replace(each, recorded=each.recorded & good[each.subnet]) for each in self.holdings(demand)]
        return lending.shares(demand.size, holdings, room)

    def handmade(self, desk: Desk) -> list[str]:
        """Of two subnets of one network the older one has them."""
        names = self._pools.of_network(desk.subnet.subnet) if desk.name in self._firsts else ()
        return [name for name in names if not self._pools.is_automatic(name)]

    def automatic(self, desk: Desk) -> list[str]:
        return [name for name in desk.accounts if self._pools.purpose(name) is not None]

    def _serves(self, name: str, demand: Demand, desk: Desk) -> bool:
        purpose = self._pools.purpose(name)
        if purpose is None or self._pools.is_terminating(name):
            return False
        # A pool that stays without its application is taken up by the next one of its name.
        is_heir = not purpose.is_reclaimed or purpose.application.uid == demand.application.uid
        has_place = (purpose.interface, purpose.version) == (demand.interface, demand.version)
        return is_heir and has_place and purpose.subnet == label_value(desk.name)

    def _opened(self, raw: Object, extent: Extent) -> Desk:
        accounts = decode_accounts(raw.get("status") or {}, extent.version)
        if is_first := self._subnets.with_network(extent.subnet)[0]["metadata"]["uid"] == raw["metadata"]["uid"]:
            self._firsts.add(extent.name)
        label = label_value(extent.name)
        automatic, handmade, others = [], [], []
        for name in self._pools.of_network(extent.subnet):
            purpose, pool = self._pools.purpose(name), self._pools.extent(name)
            if not self._pools.is_automatic(name):
                handmade += [pool] if is_first else []
            elif name in accounts or (purpose is not None and purpose.subnet == label):
                automatic.append(pool)
            else:
                # Of a subnet with the same network, or somebody has edited its labels: what it offers is taken.
                others.append(pool)
        # The webhook lets no two subnets overlap, but it may have been away.
        stands_back = self._subnets.stands_back(extent.name)
        return Desk(
            extent,
            accounts,
            automatic=automatic,
            handmade=handmade,
            withheld=self._books.reserved(extent.version) | _gateway(raw, extent),
            others=extent.ips if stands_back else _offered(others, extent.version),
            is_terminating=bool(raw["metadata"].get("deletionTimestamp")),
        )


def _offered(pools: Iterable[Extent], version: Version) -> IntervalSet:
    return IntervalSet.of(version, (span for pool in pools for span in pool.ips.spans))


def _gateway(raw: Object, extent: Extent) -> IntervalSet:
    text = (raw.get("spec") or {}).get("gateway")
    try:
        return IntervalSet.addresses(extent.version, [parse_address(text, extent.version)] if text else [])
    except AddressError:
        return IntervalSet(extent.version)
