"""SpiderIPPool and SpiderReservedIP as values that the planner reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from allocator.domain.addresses import IntervalSet

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from allocator.domain.addresses import Address, Network, Version
    from allocator.domain.auto_pools import Purpose
    from allocator.domain.selectors import LabelSelector


@dataclass(frozen=True, slots=True)
class Route:
    dst: str
    gw: str


@dataclass(frozen=True, slots=True)
class Edition:
    """Which text of an object a decision was made from: a changed one means deciding again."""

    uid: str
    generation: int
    terminating: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    name: str
    edition: Edition
    created: datetime
    version: Version
    subnet: Network
    ips: IntervalSet
    excludes: IntervalSet
    gateway: Address | None = None
    routes: tuple[Route, ...] = ()
    default: bool = False
    disabled: bool = False
    node_names: tuple[str, ...] = ()
    node_affinity: LabelSelector | None = None
    namespace_names: tuple[str, ...] = ()
    namespace_affinity: LabelSelector | None = None
    pod_affinity: LabelSelector | None = None
    multus_names: tuple[str, ...] = ()
    # Of an automatic pool: its podAffinity names the application in words that no pod's labels say.
    purpose: Purpose | None = None
    # Whether `status.allocatedIPs` holds the original's records, which nobody has imported into the ledger yet.
    unadopted: bool = False
    # Why the stored text cannot be read; then the rest of this value says nothing, and nothing is taken from the pool.
    problem: str = ""

    @property
    def total(self) -> IntervalSet:
        """What the spec offers: `ips` minus `excludeIPs`. This is what `status.totalIPCount` counts."""
        return self.ips - self.excludes

    def usable(self, reserved: IntervalSet) -> IntervalSet:
        """What the text offers: the total without reservations and without the gateway (invariant I2)."""
        gateway = [] if self.gateway is None else [self.gateway]
        return self.total - reserved - IntervalSet.addresses(self.version, gateway)


@dataclass(frozen=True, slots=True)
class Reservation:
    name: str
    edition: Edition
    ips: IntervalSet


def reserved_of(version: Version, reservations: Iterable[Reservation]) -> IntervalSet:
    """The reserved addresses of a family; a reservation that is being deleted no longer counts."""
    spans = (
        span
        for reservation in reservations
        if reservation.ips.version == version and not reservation.edition.terminating
        for span in reservation.ips.spans
    )
    return IntervalSet.of(version, spans)
