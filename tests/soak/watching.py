"""A look at the books every few seconds: what may never be, and what may be for a moment only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.crash import books

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.crash.insisting import Insisting
    from tests.crash.runtime import Runtime

LOOK_S: Final = 3.0
# What the product promises where nobody keeps its leader from leading, with its own defaults.
REPAIRED_WITHIN_S: Final = 60.0


@dataclass(slots=True)
class Watch:
    """`settle_s` is how long after its end a fault of a leader or of the API server may keep the next from leading."""

    api: Insisting
    runtime: Runtime
    settle_s: float
    repaired_within_s: float = REPAIRED_WITHIN_S
    looks: int = 0
    leaks: set[str] = field(default_factory=set)
    violations: set[str] = field(default_factory=set)
    longest_orphan_s: float = 0.0
    _since: dict[str, float] = field(default_factory=dict)
    _disturbed_until: float = 0.0

    def disturbed(self) -> None:
        """A leader was lost, or nobody could write: two sightings begin anew, and repairs wait."""
        self.disturbed_at(asyncio.get_running_loop().time())

    def disturbed_at(self, now: float) -> None:
        self._disturbed_until = max(self._disturbed_until, now + self.settle_s)

    async def last_look(self) -> None:
        """When the books had time to balance: what is held or kept for nobody now has leaked, however new it is."""
        found = await books.read(self.api)
        self.leaks |= {*_orphans(found), *_kept(found)}

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        before = dict(self.runtime.told)
        found = await books.read(self.api)
        # What is being told, or ends meanwhile, is judged next time.
        told = {uid: each for uid, each in before.items() if self.runtime.told.get(uid) is each}
        self.looks += 1
        self.violations |= set(books.unheld(found, told))
        now = asyncio.get_running_loop().time()
        orphans, kept = _orphans(found), _kept(found)
        lasting = [*books.shared(found), *books.disagreeing(found)]
        old = self._older_than_allowed([*orphans, *kept, *lasting], now)
        self.leaks |= old & {*orphans, *kept}
        self.violations |= old & set(lasting)
        self.longest_orphan_s = max([self.longest_orphan_s, *(now - self._since[each] for each in (*orphans, *kept))])

    def _older_than_allowed(self, present: Iterable[str], now: float) -> set[str]:
        self._since = {each: self._since.get(each, now) for each in present}
        limit = now - self.repaired_within_s
        return {each for each, since in self._since.items() if max(since, self._disturbed_until) < limit}


def _orphans(found: books.Books) -> list[str]:
    return [f"{books.address(each)} of {books.holder(each)}" for each in found.orphans()]


def _kept(found: books.Books) -> list[str]:
    return [f"{books.address(each)} kept for nobody" for each in books.unwanted(found)]
