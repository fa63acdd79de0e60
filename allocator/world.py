"""The ports, bundled: what the composition root of a process makes once and the service works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from allocator.ports import ClusterView, Endpoints, Ledger, Pools, Reservations, Uplinks
    from allocator.runtime.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    ledger: Ledger
    pools: Pools
    reservations: Reservations
    endpoints: Endpoints
    view: ClusterView
    uplinks: Uplinks
    clock: Clock
    rng: random.Random
