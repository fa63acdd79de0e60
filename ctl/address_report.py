"""Everything the cluster knows about one address: who holds it, or why it is free or never handed out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from allocator.domain.addresses import object_name
from allocator.domain.overlapping import overlaps, owners
from allocator.domain.record import State
from allocator.domain.slots import pod_name
from allocator.kube.codec import Malformed, decode_pool, decode_record, decode_reservation, encode_time
from allocator.kube.errors import NotFound
from allocator.kube.resources import SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS, SPIDER_RESERVED_IPS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from allocator.domain.addresses import Address
    from allocator.domain.overlapping import Overlap
    from allocator.domain.pool import Pool, Reservation
    from allocator.domain.record import Record
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object

NEEDED_RIGHTS: Final = "spideripaddresses, spiderippools and spiderreservedips (spiderpool.spidernet.io)"
# Scripts read the JSON and YAML: members may be added under this version, nothing else.
API_VERSION: Final = "spiderpoolctl/v1"


@dataclass(frozen=True, slots=True)
class Standing:
    """What one pool, whose spec.ips contain the address, does with it."""

    pool: str
    is_free: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """`standings` is asked for and filled only where there is no record; `warnings` say what could not be read."""

    address: Address
    record: Record | None
    standings: tuple[Standing, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_allocated(self) -> bool:
        """Whether it is held or kept for somebody. A released address that cools is neither."""
        return self.record is not None and self.record.state is not State.COOLING


async def report_on(client: KubeClient, address: Address) -> Report:
    """Live reads, so that the answer is of this moment. Malformed, ApiError and Unreachable come through.

    NotFound is raised only when the CRDs are not installed.
    """
    try:
        return Report(address, _record(await client.get(SPIDER_IP_ADDRESSES, object_name(address))))
    except NotFound:
        pass  # the address is not in use, or the kind is unknown: then the next read says so
    pools, _ = await client.list_all(SPIDER_IP_POOLS)
    reservations, _ = await client.list_all(SPIDER_RESERVED_IPS)
    reserving, warnings = _readable(reservations)
    standings = sorted(_standings(pools, address, reserving), key=lambda standing: standing.pool)
    return Report(address, None, tuple(standings), tuple(warnings))


def _record(raw: Object) -> Record:
    record = decode_record(raw)
    if record.state.value != (raw.get("spec") or {}).get("state"):  # then it stands for one that cannot be read
        name = raw["metadata"]["name"]
        raise Malformed(f"SpiderIPAddress {name} cannot be read (is it of a newer version?) and blocks its address")
    return record


def _readable(raws: list[Object]) -> tuple[list[Reservation], list[str]]:
    """One that cannot be read reserves nothing for the agents either."""
    found, warnings = [], []
    for raw in raws:
        try:
            found.append(decode_reservation(raw))
        except Malformed as error:
            warnings.append(f"{error}; it reserves nothing until someone corrects it")
    return found, warnings


def _standings(raws: list[Object], address: Address, reservations: list[Reservation]) -> Iterator[Standing]:
    pools = []
    for raw in raws:
        try:
            pools.append(decode_pool(raw))
        except Malformed as error:  # one bad pool must not hide what the others say
            yield Standing(raw["metadata"]["name"], is_free=False, reason=f"unknown: {error}")
    overlap = overlaps(pools)
    for pool in pools:
        if address in pool.ips:
            yield standing_in(pool, address, reservations, overlap.get(pool.name))


def standing_in(
    pool: Pool, address: Address, reservations: list[Reservation], overlap: Overlap | None = None
) -> Standing:
    """The first reason that keeps the pool from handing out an address which nobody holds."""
    reserving = [
        reservation.name
        for reservation in reservations
        if not reservation.edition.terminating
        and reservation.ips.version == pool.version
        and address in reservation.ips
    ]
    elder = owners(overlap) if overlap is not None and address in overlap.ceded else ""
    obstacles = (
        (address in pool.excludes, "excluded by spec.excludeIPs of the pool"),
        (address == pool.gateway, "the gateway of the pool"),
        (bool(reserving), f"reserved by SpiderReservedIP {', '.join(sorted(reserving))}"),
        (bool(elder), f"not given out: {elder} it"),
        (pool.edition.terminating, "not given out: the pool is being deleted"),
        (pool.disabled, "not given out: the pool is disabled (spec.disable)"),
        (pool.unadopted, "unknown: status.allocatedIPs of the pool has records of the original, not adopted yet"),
    )
    obstacle = next((reason for stands, reason in obstacles if stands), None)
    return Standing(pool.name, obstacle is None, obstacle or "free")


def document(report: Report) -> dict[str, Any]:
    """The report for machines."""
    head = {"apiVersion": API_VERSION, "kind": "AddressReport", "address": str(report.address)}
    record = report.record
    if record is None:
        standings = [
            {"pool": standing.pool, "free": standing.is_free, "reason": standing.reason}
            for standing in report.standings
        ]
        warned = {"warnings": list(report.warnings)} if report.warnings else {}
        return {**head, "allocated": False, "pools": standings, **warned}
    found: dict[str, Any] = {
        **head,
        "allocated": report.is_allocated,
        "state": record.state.value,
        "pool": record.pool,
        "since": encode_time(record.since),
    }
    if record.until:
        found["until"] = encode_time(record.until)
    for role, party in (("holder", record.holder), ("peer", record.peer)):
        if party:
            found[role] = {
                "namespace": party.namespace,
                "pod": party.pod,
                "podUID": party.pod_uid,
                "interface": party.interface,
                "node": party.node,
                "containerID": party.container_id,
            }
    if record.slot:
        found["slot"] = {
            "apiVersion": record.slot.api_version,
            "kind": record.slot.kind,
            "namespace": record.slot.namespace,
            "name": record.slot.name,
            "ordinal": record.slot.ordinal,
        }
    return found


def rows(record: Record, now: datetime) -> list[tuple[str, str]]:
    """The record for people: labels and values, in reading order."""
    lines = [("Address", str(record.address)), ("State", f"{record.state.value}, {_meaning(record, now)}")]
    lines.append(("Pool", record.pool))
    if record.holder:
        holder = record.holder
        label = "Pod" if record.state in (State.HELD, State.CONFLICT) else "Last pod"
        lines.append((label, f"{holder.namespace}/{holder.pod} (UID {holder.pod_uid})"))
        lines.append(("Interface", holder.interface))
        lines.append(("Node", holder.node))
    if record.peer:
        peer = record.peer
        lines.append(("Migrates with", f"{peer.namespace}/{peer.pod} (UID {peer.pod_uid}) on {peer.node}"))
    if record.slot:
        slot = record.slot
        ordinal = f", ordinal {slot.ordinal}" if pod_name(slot) else ""
        lines.append(("Slot", f"{slot.kind} {slot.namespace}/{slot.name}{ordinal}"))
    lines.append(("Since", f"{encode_time(record.since)} ({_ago(record.since, now)})"))
    if record.until:
        lines.append(("Until", encode_time(record.until)))
    return lines


def _meaning(record: Record, now: datetime) -> str:
    match record.state:
        case State.HELD:
            return "in use by the pod"
        case State.RETAINED:
            return "kept for the pod's successor in its slot"
        case State.COOLING if record.is_free(now):
            return "released, and free again"
        case State.COOLING:
            return "released, and not given out again before `Until` unless the pool has no other"
        case State.QUARANTINED:
            return "not given out: seen in use by something else, or put there by a person"
        case State.CONFLICT:
            return "claimed by two living holders: a person must decide"


def _ago(then: datetime, now: datetime) -> str:
    seconds = int((now - then).total_seconds())
    if seconds < 0:
        return "in the future: do the clocks agree?"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
