"""What the service needs of the world, as protocols; allocator/kube has the adapters, the simulation has its own.

Every method may raise errors.Unavailable: the API server gave no usable answer, and the outcome of a write is unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from allocator.domain.addresses import Address, Version
    from allocator.domain.applications import Application
    from allocator.domain.candidates import Master, Surroundings
    from allocator.domain.endpoint import Endpoint
    from allocator.domain.pool import Edition, Pool, Reservation
    from allocator.domain.record import Entry, Holder, Record, Slot
    from allocator.domain.request import Owner, Pod


class Ledger(Protocol):
    """The address objects. Each write is atomic and names the uid and resourceVersion that were read (I6)."""

    async def create(self, record: Record) -> Record | None:
        """Claim the address by creating its object; None when it exists already."""

    async def replace(self, record: Record) -> Record:
        """Write a moved record. errors.Conflict when the object is not as it was read, or gone."""

    async def delete(self, record: Record) -> None:
        """Remove the object as it was read. errors.Conflict when it changed; silent when it is gone."""

    async def read(self, address: Address) -> Record | None:
        """The object as the API server has it now."""

    async def in_pool(self, pool: str) -> Sequence[Entry]:
        """Every record of a pool, complete, as of a moment after the call."""

    async def everything(self) -> Sequence[Entry]:
        """Every record there is, complete, as of a moment after the call; for the rare case of pools that overlap."""

    async def of_slot(self, slot: Slot) -> Sequence[Record]:
        """Every record of the slot, complete, as of a moment after the call."""

    def of_container(self, container_id: str) -> Sequence[Record]:
        """The records of this node's sandbox, from the same index as `own`."""

    def own(self, pod_uid: str) -> Sequence[Record]:
        """The records of this node's pod, from the index that holds what this process wrote and what it watches."""

    def known(self) -> Sequence[Record]:
        """All records of the same index: those of this node."""


class News(Protocol):
    async def next(self) -> None:
        """Return once there has been any since this began, or since the last call returned."""


class Pools(Protocol):
    async def current(self) -> Mapping[str, Pool]:
        """All pools by name, as the watch last showed them; another mapping when one has changed."""

    async def edition(self, name: str) -> Edition | None:
        """Which text of the pool is in force, read live after the call; None when there is no such pool."""

    async def reread(self, name: str) -> None:
        """Take the pool's present text into `current`, ahead of the watch."""

    def news_of(self, application: Application) -> AbstractContextManager[News]:
        """To hear that a pool for this application has been made, filled, or changed otherwise; `current` shows it."""

    async def has_subnet(self, name: str) -> bool:
        """Whether there is such a SpiderSubnet to make pools of, read live after the call."""


class Reservations(Protocol):
    def current(self) -> Sequence[Reservation]:
        """All of them, as the watch last showed them; another sequence when one has changed."""

    async def editions(self) -> frozenset[tuple[str, Edition]]:
        """Name and edition of every reservation, read live after the call."""

    async def reread(self) -> None: ...


class Endpoints(Protocol):
    async def write(self, endpoint: Endpoint) -> None:
        """Make the SpiderEndpoint say this, whatever it said before; errors.PodGone when it is a successor's by now."""

    async def remove(self, namespace: str, name: str, pod_uid: str) -> None:
        """Delete the SpiderEndpoint while it still speaks of this pod UID."""

    async def addresses(self, namespace: str, name: str) -> Mapping[tuple[str, Version], Address]:
        """What the SpiderEndpoint says, by interface; nothing where there is none."""

    async def hand_over(self, namespace: str, name: str, pod_uid: str, heir: Holder) -> None:
        """Make the SpiderEndpoint speak of the heir, who has the same addresses, while it speaks of this pod UID."""


class ClusterView(Protocol):
    def pod(self, namespace: str, name: str) -> Pod | None:
        """The pod as the node's informer has it; it may be behind."""

    async def read_pod(self, namespace: str, name: str) -> Pod | None:
        """The pod as the API server has it now."""

    async def surroundings(self, pod: Pod) -> Surroundings: ...

    async def owner(self, pod: Pod) -> Owner:
        """The pod's top controller, for the SpiderEndpoint."""

    async def slot_is_wanted(self, slot: Slot) -> bool:
        """Whether the slot's workload stands, now, and may fill it again."""


class Uplinks(Protocol):
    async def master_of(self, netns: str, interface: str) -> Master:
        """What the interface in this network namespace stands on; nothing is raised, Master.problem says it."""
