"""SpiderIPAddress as a value: who holds an address, its states, and the only moves between them.

    claim ──> Held ── retain ──> Retained ── takeover ──> Held
               │ └ rebind,           │
            release  share, part  release
               v                     v
            Cooling (until reuse is allowed) ── claim once expired ──> Held, or deleted by the controller

A move takes a record and gives the record to write in its place; the store compares uid and resourceVersion of what was
read (invariant I6). The CEL rules of the CRD guard the same moves against everybody else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from allocator.domain.addresses import Address

REUSE_DELAY: Final = timedelta(seconds=30)


class State(StrEnum):
    HELD = "Held"
    RETAINED = "Retained"
    COOLING = "Cooling"
    QUARANTINED = "Quarantined"
    CONFLICT = "Conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One interface of one pod. `container_id` is that of the sandbox which asked last."""

    namespace: str
    pod: str
    pod_uid: str
    interface: str
    node: str
    container_id: str
    network: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The place in a workload that outlives its pods: an ordinal of a StatefulSet, a virtual machine."""

    api_version: str
    kind: str
    namespace: str
    name: str
    ordinal: int


class Entry(NamedTuple):
    """What a list of a pool's records tells of one: enough to choose an address, not enough to write it.

    A tuple, since lists are long: it is made three times as fast as a frozen dataclass.
    """

    address: Address
    pool: str
    state: State
    until: datetime | None = None

    def is_free(self, now: datetime) -> bool:
        """Whether the address may be claimed by anyone: cooling, and the delay is over."""
        return self.state is State.COOLING and (self.until is None or self.until <= now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """`peer` has the address beside the holder while a virtual machine migrates: it is the one who asked earlier.

    `uid` and `resource_version` are empty until the API server has given them.
    """

    address: Address
    pool: str
    state: State
    holder: Holder | None
    peer: Holder | None = None
    slot: Slot | None = None
    since: datetime
    until: datetime | None = None
    uid: str = ""
    resource_version: str = ""

    @property
    def parties(self) -> tuple[Holder, ...]:
        """Whose pods must all be gone before the address may go to anybody else."""
        return tuple(party for party in (self.holder, self.peer) if party is not None)

    def is_of(self, pod_uid: str, interface: str) -> bool:
        """Whether the pod's interface holds the address now."""
        holder = self.holder
        is_holder = holder is not None and (holder.pod_uid, holder.interface) == (pod_uid, interface)
        return self.state is State.HELD and is_holder

    @property
    def entry(self) -> Entry:
        return Entry(self.address, self.pool, self.state, self.until)

    def is_free(self, now: datetime) -> bool:
        return self.entry.is_free(now)


def claimed(address: Address, pool: str, holder: Holder, slot: Slot | None, now: datetime) -> Record:
    return Record(address=address, pool=pool, state=State.HELD, holder=holder, slot=slot, since=now)


def reclaimed(cooling: Record, pool: str, holder: Holder, slot: Slot | None, now: datetime) -> Record:
    """A new holder takes a cooling address; the service has checked that its time has come."""
    return replace(cooling, pool=pool, state=State.HELD, holder=holder, slot=slot, since=now, until=None)


def rebound(held: Record, holder: Holder) -> Record:
    """The same pod came back with a new sandbox: it keeps the address and the time since which it has it."""
    return replace(held, holder=holder)


def taken_over(record: Record, holder: Holder, now: datetime) -> Record:
    """The successor in the same slot takes the address of a pod that is proven gone."""
    return replace(record, state=State.HELD, holder=holder, peer=None, since=now, until=None)


def shared(record: Record, holder: Holder, peer: Holder, now: datetime) -> Record:
    """A virtual machine migrates: who asks becomes the holder, and the other one goes on with the address."""
    return replace(record, state=State.HELD, holder=holder, peer=peer, since=now, until=None)


def parted(held: Record, stays: Holder, now: datetime) -> Record:
    """One of two is gone: the other one has the address alone."""
    return replace(held, holder=stays, peer=None, since=now)


def retained(held: Record, now: datetime) -> Record:
    """The pod is gone, its slot still stands: the address waits for the successor."""
    return replace(held, state=State.RETAINED, peer=None, since=now)


def quarantine_ended(quarantined: Record, now: datetime, reuse_delay: timedelta = REUSE_DELAY) -> Record:
    """Nobody has said for long enough that somebody else uses the address: like any other it cools, then is free."""
    return replace(quarantined, state=State.COOLING, since=now, until=now + reuse_delay)


def released(record: Record, now: datetime, reuse_delay: timedelta = REUSE_DELAY) -> Record:
    """The address goes back; it is not handed out before `reuse_delay` is over, so that ARP caches forget it."""
    return replace(record, state=State.COOLING, peer=None, since=now, until=now + reuse_delay)
