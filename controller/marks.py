"""Mark, then scan: what a pool's new edition means for the addresses that are in use.

An agent claims an address and then reads the pool's edition live. Here the order is the other way round: first a new
generation or deletionTimestamp is seen, then the pool's objects are listed live. So either the agent sees the change
and undoes its claim, or the list shows the claim. Only after the list does `observedGeneration` move, or the finalizer
go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain.record import State
from allocator.kube.codec import Malformed, decode_record
from allocator.kube.resources import SPIDER_IP_ADDRESSES
from allocator.runtime.logs import get_logger

if TYPE_CHECKING:
    from allocator.domain.record import Record
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource

_log = get_logger(__name__)

# Of pools and subnets; the webhook adds it.
FINALIZER: Final = "spiderpool.spidernet.io"


@dataclass(frozen=True, slots=True)
class Scan:
    """A pool's objects, listed live. `unreadable` ones are of a newer version, say: they stand, whatever they mean."""

    records: tuple[Record, ...]
    unreadable: int

    @property
    def is_empty(self) -> bool:
        return not self.records and not self.unreadable

    @property
    def cooling(self) -> int:
        return sum(record.state is State.COOLING for record in self.records)


async def scan(client: KubeClient, pool: str) -> Scan:
    """Every address object of the pool as of a moment after the call. Raises what the client raises."""
    raws, _ = await client.list_all(SPIDER_IP_ADDRESSES, field_selector=f"spec.pool={pool}")
    records, unreadable = [], 0
    for raw in raws:
        try:
            records.append(decode_record(raw))
        except Malformed as error:
            unreadable += 1
            _log.error("address_object_unreadable", why=str(error))
    return Scan(tuple(records), unreadable)


def has_finalizer(raw: Object) -> bool:
    return FINALIZER in (raw["metadata"].get("finalizers") or ())


async def remove_finalizer(client: KubeClient, resource: Resource, raw: Object) -> None:
    """Let what is being deleted go, as nothing needs it any more. Conflict when it changed since it was read."""
    meta = raw["metadata"]
    rest = [each for each in meta["finalizers"] if each != FINALIZER]
    body = {"metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], "finalizers": rest or None}}
    await client.patch(resource, meta["name"], body)
    _log.info("finalizer_removed", kind=resource.kind, name=meta["name"], uid=meta["uid"])
