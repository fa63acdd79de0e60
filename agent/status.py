"""Whether the agent can serve an ADD now (CNI STATUS)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.domain import errors
from allocator.domain.patterns import PatternError, expanded
from allocator.domain.record import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent.contact import Contact
    from allocator.domain.addresses import Version
    from allocator.kube.cache import Cache
    from allocator.kube.free_counts import FreeCounts
    from allocator.kube.schema import Schema
    from allocator.world import World


class Status:
    def __init__(
        self,
        world: World,
        caches: Sequence[Cache],
        contact: Contact,
        free: FreeCounts,
        schema: Schema | None = None,
    ) -> None:
        self._world = world
        self._caches = caches
        self._contact = contact
        self._free = free
        self._schema = schema

    @property
    def started(self) -> bool:
        return all(cache.synced for cache in self._caches)

    def problem(self) -> str | None:
        """Why the agent should not be asked now, or None."""
        if not self.started:
            return "the caches are not filled yet"
        return (self._schema and self._schema.problem) or self._contact.problem()

    async def check(self, listed: Mapping[Version, tuple[str, ...]]) -> None:
        """errors.NotServing when an ADD of a network with these default pools could not be served."""
        problem = self.problem()
        for version, names in listed.items():
            problem = problem or await self._exhaustion(version, names)
        if problem is None:
            return
        in_doubt = [
            f"{record.address} ({record.state})"
            for record in self._world.ledger.known()
            if record.state in (State.CONFLICT, State.QUARANTINED)
        ]
        if in_doubt:
            raise errors.NotServingInDoubt(f"{problem}; and others may use {', '.join(in_doubt)} of pods of this node")
        raise errors.NotServing(problem)

    async def _exhaustion(self, version: Version, names: Iterable[str]) -> str | None:
        """That every pool there is among the listed ones is exhausted. A pool that nobody has counted is not."""
        pools = await self._world.pools.current()
        try:
            names = expanded(names, (name for name, pool in pools.items() if pool.version == version))
        except PatternError:
            return None  # each ADD says so, with the place to mend it
        exhausted = []
        for name in names:
            if name in pools:
                if await self._free.of(name) != 0:
                    return None
                exhausted.append(name)
        if not exhausted:
            return None
        return f"the IPv{version} pools of the network have no free address: {', '.join(exhausted)}"
