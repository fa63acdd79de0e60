"""A SpiderSubnet in one turn of the leader: its accounts as they stand, and as they are to be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.domain.addresses import IntervalSet
from allocator.domain.lending import Loan, by_hand, lent, resized

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from allocator.domain.lending import Accounts, Holding, Resizing
    from allocator.domain.overlap import Extent


class Desk:
    """`automatic` and `handmade` are the subnet's pools. `withheld` is what no pool is to have, though the subnet does:
    reservations and its gateway; `others`, what pools have that are not the subnet's own. One that is being deleted
    lends nothing, and lets pools made by hand alone.

    An entry whose pool is not there stands until somebody has made sure of that (`strays`, `drop`): until then its
    addresses are not lent to others.
    """

    def __init__(  # noqa: PLR0913 - a subnet and its surroundings
        self,
        subnet: Extent,
        accounts: Accounts,
        *,
        automatic: Iterable[Extent],
        handmade: Iterable[Extent],
        withheld: IntervalSet,
        others: IntervalSet,
        is_terminating: bool,
    ) -> None:
        self.subnet = subnet
        self.is_terminating = is_terminating
        self._withheld = withheld
        self._others = others
        self._automatic = {pool.name: pool for pool in automatic}
        self._handmade = {pool.name: pool for pool in handmade}
        self._nothing = IntervalSet(subnet.version)
        self.accounts: dict[str, Loan] = {name: loan for name, loan in accounts.items() if name in self._automatic}
        for pool in self._automatic.values():
            self._take_in(pool)
        of_machines = lent(self.accounts, subnet.version)
        self.accounts |= {name: loan for name, loan in accounts.items() if self._is_stray(name)}
        if not is_terminating:
            for pool in self._handmade.values():
                if ips := by_hand(pool.ips, subnet.ips, of_machines):
                    self.accounts[pool.name] = Loan(ips)
        self.free = self._count()

    @property
    def name(self) -> str:
        return self.subnet.name

    @property
    def strays(self) -> list[str]:
        """Entries of pools that are not known to be there."""
        return [name for name in self.accounts if self._is_stray(name)]

    @property
    def room(self) -> int:
        return 0 if self.is_terminating else self.free.size

    @property
    def good(self) -> IntervalSet:
        """What automatic pools may have. Of what they have already some may be none of it any more."""
        taken = (span for pool in self._handmade.values() for span in pool.ips.spans)
        return self.subnet.ips - IntervalSet.of(self.subnet.version, taken) - self._withheld

    def recorded(self, pool: str) -> IntervalSet:
        loan = self.accounts.get(pool)
        return self._nothing if loan is None else loan.ips

    def drop(self, pool: str) -> None:
        self.accounts.pop(pool, None)
        self.free = self._count()

    def resize(self, holding: Holding, share: int, application: str) -> Resizing:
        """One step of the pool, in the accounts already."""
        free = self._nothing if self.is_terminating else self.free
        step = resized(holding, share, free, self.good)
        self.accounts[holding.pool] = Loan(step.recorded, application)
        self.free = self.free - step.recorded
        return step

    def settle(self, pool: str, ips: IntervalSet) -> None:
        """Take back what the pool has beyond this."""
        self.accounts[pool] = Loan(ips, self.accounts[pool].application)
        self.free = self._count()

    def _is_stray(self, name: str) -> bool:
        return name not in self._automatic and name not in self._handmade

    def _take_in(self, pool: Extent) -> None:
        """What an automatic pool offers stands in the accounts, unless others have it: the original leaves gaps."""
        known = self.accounts.get(pool.name, Loan(self._nothing))
        if not (more := (pool.ips & self.subnet.ips) - known.ips):
            return
        others = {name: loan for name, loan in self.accounts.items() if name != pool.name}
        if more := more - lent(others, self.subnet.version):
            self.accounts[pool.name] = Loan(known.ips | more, known.application)

    def _count(self) -> IntervalSet:
        pools: Mapping[str, Extent] = self._automatic | self._handmade
        offered = IntervalSet.of(self.subnet.version, (span for pool in pools.values() for span in pool.ips.spans))
        return self.subnet.ips - lent(self.accounts, self.subnet.version) - offered - self._withheld - self._others
