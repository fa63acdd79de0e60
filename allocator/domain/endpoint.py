"""SpiderEndpoint as a value, derived from the records of a pod; and the answer to ADD, which says the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from allocator.domain.addresses import version_of
from allocator.domain.dns import NO_DNS, PodDns
from allocator.domain.record import State
from allocator.domain.slots import public_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from allocator.domain.addresses import Address, Version
    from allocator.domain.pool import Pool, Route
    from allocator.domain.record import Record
    from allocator.domain.request import Owner, Pod


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """One address of one interface with everything the CNI result says of it."""

    interface: str
    address: Address
    prefix_length: int
    pool: str
    gateway: Address | None
    routes: tuple[Route, ...]
    # None where only the interface's own ADD knows: then the endpoint keeps what it says.
    clean_gateway: bool | None
    # The pod's, the same for each of its interfaces.
    dns: PodDns = NO_DNS
    # Whether another pod has it as well: the one that a virtual machine is leaving.
    shared: bool = False

    @property
    def version(self) -> Version:
        return version_of(self.address)

    @property
    def with_prefix(self) -> str:
        return f"{self.address}/{self.prefix_length}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    pod: Pod
    owner: Owner
    assigned: tuple[Assigned, ...]

    @property
    def name(self) -> str:
        return public_name(self.pod.name, self.pod.slot)

    @property
    def is_static(self) -> bool:
        """Whether it outlives the pod: then the pod does not own it."""
        return self.pod.slot is not None


def assigned(record: Record, pools: Mapping[str, Pool], *, clean_gateway: bool | None) -> Assigned | None:
    """What the record gives its holder, or None when its pool is gone or unreadable, and the prefix length unknown."""
    pool = pools.get(record.pool)
    if pool is None or pool.problem or record.holder is None:
        return None
    return Assigned(
        interface=record.holder.interface,
        address=record.address,
        prefix_length=pool.subnet.prefixlen,
        pool=pool.name,
        gateway=pool.gateway,
        routes=pool.routes,
        clean_gateway=clean_gateway,
        shared=record.peer is not None,
    )


def recorded(records: Iterable[Record], pools: Mapping[str, Pool]) -> list[Assigned]:
    """What the records in state Held give their holders; without those whose pool is gone or unreadable."""
    held = (assigned(record, pools, clean_gateway=None) for record in records if record.state is State.HELD)
    return [each for each in held if each is not None]


def in_order(assigned: Iterable[Assigned]) -> tuple[Assigned, ...]:
    """By interface, IPv4 first: the same records always give the same text."""
    return tuple(sorted(assigned, key=lambda each: (each.interface, each.version)))
