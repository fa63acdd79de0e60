"""Where a living pod's SpiderEndpoint and the ledger disagree, and what is to be done about it.

The ledger is right, and the endpoint is written again from it. One case is the other way round: somebody has deleted
the record of an address that a pod uses, and sooner or later another pod would get it. Two witnesses bring such a
record back: somebody remembers it (the endpoint, or whoever saw it go), and the pod's own node reports the address.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from allocator.domain.addresses import AddressError, parse_address, version_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from allocator.domain.addresses import Address
    from allocator.domain.record import Record
    from allocator.domain.request import Pod

# The Kubernetes Network Plumbing Working Group's de-facto standard, version 1.3, section 5: written by Multus.
NETWORK_STATUS: Final = "k8s.v1.cni.cncf.io/network-status"


class Shown(NamedTuple):
    """One address that a SpiderEndpoint shows, or that a record said until it was deleted."""

    interface: str
    address: Address
    pool: str


@dataclass(frozen=True, slots=True)
class Disagreement:
    """`lost` has no record any more, though the pod uses it; `spare` are records of which the pod uses another of the
    same interface and family; `is_outdated`: the endpoint is to be written again, or removed where the ledger has
    nothing for the pod.
    """

    lost: tuple[Shown, ...]
    is_outdated: bool
    spare: tuple[Record, ...] = ()

    def __bool__(self) -> bool:
        return self.is_outdated or bool(self.lost) or bool(self.spare)


def shown_in(record: Record) -> Shown:
    """The record as the endpoint of its holder shows it."""
    return Shown(record.holder.interface if record.holder else "", record.address, record.pool)


def has_another(record: Record, held: Iterable[Record]) -> bool:
    """Whether the record's holder has another address of its family for its interface (I4)."""
    holder, version = record.holder, version_of(record.address)
    return holder is not None and any(
        each.is_of(holder.pod_uid, holder.interface)
        for each in held
        if each.address != record.address and version_of(each.address) == version
    )


def agree(held: Collection[Record], shown: Collection[Shown]) -> bool:
    """Whether a pod's endpoint shows the records that it has in state Held."""
    return {shown_in(record) for record in held} == set(shown)


def compare(pod: Pod, held: Collection[Record], shown: Collection[Shown]) -> Disagreement:
    """The pod's records in state Held beside what its endpoint shows; an endpoint of another pod shows nothing."""
    return Disagreement(lost(pod, held, shown), not agree(held, shown), spare(pod, held))


def spare(pod: Pod, held: Collection[Record]) -> tuple[Record, ...]:
    """Records beside the one that the pod's node reports: of an interface and family a pod uses one (I4). They come
    from claims that landed after their ADD had been given up.
    """
    doubles = [record for record in held if has_another(record, held)]
    reported = frozenset(reported_addresses(pod)) if doubles else frozenset()
    used = [record for record in doubles if record.address in reported]
    return tuple(record for record in doubles if record.address not in reported and has_another(record, used))


def lost(pod: Pod, held: Collection[Record], remembered: Iterable[Shown]) -> tuple[Shown, ...]:
    """What of `remembered` the pod still uses without a record."""
    # One address of a family for an interface (I4): where the ledger has one, it is not this one that was lost.
    have = {(record.holder.interface, version_of(record.address)) for record in held if record.holder is not None}
    addresses = {record.address for record in held}
    missing = [
        each
        for each in remembered
        if (each.interface, version_of(each.address)) not in have and each.address not in addresses
    ]
    reported = frozenset(reported_addresses(pod)) if missing else frozenset()
    return tuple(each for each in missing if each.address in reported)


def reported_addresses(pod: Pod) -> Iterator[Address]:
    """What the pod's node says that it has: status.podIPs, and for other interfaces what Multus wrote."""
    for text in (*pod.ips, *_of_networks(pod.annotations.get(NETWORK_STATUS, ""))):
        try:
            yield parse_address(text)
        except AddressError:
            continue


def _of_networks(text: str) -> Iterator[str]:
    """Somebody else's annotation: what has not the form that Multus gives it says nothing."""
    try:
        networks = json.loads(text) if text else []
    except (ValueError, RecursionError):
        return
    for network in networks if isinstance(networks, list) else ():
        ips = network.get("ips") if isinstance(network, dict) else None
        yield from (each for each in (ips if isinstance(ips, list) else ()) if isinstance(each, str))
