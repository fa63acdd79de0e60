"""The ledger on the API server: one SpiderIPAddress object per address; its name is the lock (KEP-1880)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from allocator.domain import errors
from allocator.domain.addresses import object_name
from allocator.domain.slots import pod_name
from allocator.kube.codec import Malformed, decode_record, encode_move, encode_record
from allocator.kube.entries import EntryForm, decode_entry
from allocator.kube.errors import AlreadyExists, Conflict, NotFound
from allocator.kube.fences import no_fence
from allocator.kube.patience import TRANSIENT, patiently
from allocator.kube.resources import SPIDER_IP_ADDRESSES
from allocator.kube.view import uid_of
from allocator.runtime.logs import get_logger

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from allocator.domain.addresses import Address
    from allocator.domain.record import Entry, Record, Slot
    from allocator.kube.cache import Cache
    from allocator.kube.client import KubeClient
    from allocator.kube.fences import Fence
    from allocator.kube.resources import Object
    from allocator.runtime.clock import Clock

R = TypeVar("R")
T = TypeVar("T")

_log = get_logger(__name__)


class KubeLedger:
    """`index` holds the records that the process follows: an agent those of its node, the controller all of them.

    `fence` is asked right before each try of a write, and raises where this process must not write any more.
    """

    def __init__(
        self, client: KubeClient, index: Cache, *, clock: Clock, rng: random.Random, fence: Fence = no_fence
    ) -> None:
        self._fence = fence
        self._client = client
        self._index = index
        self._clock = clock
        self._rng = rng

    async def create(self, record: Record) -> Record | None:
        uncertain = False

        async def attempt() -> Object | None:
            nonlocal uncertain
            self._fence()
            try:
                return await self._client.create(SPIDER_IP_ADDRESSES, encode_record(record))
            except AlreadyExists:
                return None
            except Conflict as conflict:
                # Not the name: somebody's webhook, say, or a quota that was just counted.
                raise errors.Conflict(f"SpiderIPAddress {object_name(record.address)}: {conflict}") from conflict
            except TRANSIENT:
                uncertain = True
                raise

        raw = await self._patiently(f"claim {record.address}", attempt)
        if raw is None:
            # An earlier try whose answer was lost may be the one that exists.
            found = await self._found_as_meant(record) if uncertain else None
            return None if found is None else self._noted(found)
        return self._noted(raw)

    async def replace(self, record: Record) -> Record:
        name = object_name(record.address)
        uncertain = False

        async def attempt() -> Object | None:
            nonlocal uncertain
            self._fence()
            try:
                return await self._client.patch(SPIDER_IP_ADDRESSES, name, encode_move(record))
            except (Conflict, NotFound):
                return None
            except TRANSIENT:
                uncertain = True
                raise

        raw = await self._patiently(f"write {record.address}", attempt)
        if raw is None:
            # A conflict after a lost answer may be one's own success.
            raw = await self._found_as_meant(record) if uncertain else None
        if raw is None:
            raise errors.Conflict(f"SpiderIPAddress {name} changed since it was read")
        return self._noted(raw)

    async def delete(self, record: Record) -> None:
        name = object_name(record.address)

        async def attempt() -> None:
            self._fence()
            try:
                await self._client.delete(
                    SPIDER_IP_ADDRESSES, name, uid=record.uid, resource_version=record.resource_version
                )
            except NotFound:
                pass
            except Conflict as conflict:
                raise errors.Conflict(f"SpiderIPAddress {name} changed since it was read") from conflict

        await self._patiently(f"delete {record.address}", attempt)
        self._index.note_deleted(name, record.uid)

    async def read(self, address: Address) -> Record | None:
        known = self._index.get(object_name(address))
        raw = await self._read(address)
        if raw is None and known is not None:
            # A deletion of ours whose answer was lost, and the watch is behind: `own` must not show it any more.
            self._index.note_deleted(object_name(address), uid_of(known))
        return None if raw is None else decode_record(raw)

    async def in_pool(self, pool: str) -> Sequence[Entry]:
        return await self._entries(f"spec.pool={pool}")

    async def everything(self) -> Sequence[Entry]:
        return await self._entries("")

    async def of_slot(self, slot: Slot) -> Sequence[Record]:
        name = pod_name(slot)
        place = f"spec.holder.pod={name}" if name else f"spec.slot.name={slot.name}"
        found = await self._list(f"spec.holder.namespace={slot.namespace},{place}")
        return [record for record in found if record.slot == slot]

    async def of_pod(self, pod_uid: str) -> Sequence[Record]:
        """Every record whose holder is the pod, complete, as of a moment after the call."""
        return await self._list(f"spec.holder.podUID={pod_uid}")

    def of_container(self, container_id: str) -> Sequence[Record]:
        return self._indexed("containerID", container_id)

    def own(self, pod_uid: str) -> Sequence[Record]:
        return self._indexed("podUID", pod_uid)

    def known(self) -> Sequence[Record]:
        return _decoded(decode_record, self._index.items())

    def _indexed(self, field: str, value: str) -> Sequence[Record]:
        return _decoded(
            decode_record, (raw for raw in self._index.items() if (raw["spec"].get("holder") or {}).get(field) == value)
        )

    async def _entries(self, field_selector: str) -> Sequence[Entry]:
        async def attempt() -> Sequence[EntryForm]:
            return await self._client.list_as(SPIDER_IP_ADDRESSES, EntryForm, field_selector=field_selector)

        forms = await self._patiently(f"list addresses with {field_selector or 'any field'}", attempt)
        return _decoded(decode_entry, forms)

    async def _list(self, field_selector: str) -> Sequence[Record]:
        async def attempt() -> list[Object]:
            items, _ = await self._client.list_all(SPIDER_IP_ADDRESSES, field_selector=field_selector)
            return items

        return _decoded(decode_record, await self._patiently(f"list addresses with {field_selector}", attempt))

    async def _read(self, address: Address) -> Object | None:
        async def attempt() -> Object | None:
            try:
                return await self._client.get(SPIDER_IP_ADDRESSES, object_name(address))
            except NotFound:
                return None

        return await self._patiently(f"read {address}", attempt)

    async def _found_as_meant(self, meant: Record) -> Object | None:
        """The object, where it says what was to be written: the write whose answer was lost did happen."""
        raw = await self._read(meant.address)
        return raw if raw is not None and _says_the_same(decode_record(raw), meant) else None

    def _noted(self, raw: Object) -> Record:
        self._index.note(raw)
        return decode_record(raw)

    async def _patiently(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        return await patiently(what, attempt, clock=self._clock, rng=self._rng)


def _says_the_same(found: Record, meant: Record) -> bool:
    """Whether the stored record is the one that was written: a holder and a moment are not written twice by others."""
    return _gist(found) == _gist(meant)


def _gist(record: Record) -> tuple[object, ...]:
    return record.state, record.holder, record.peer, record.since, record.pool


def _decoded(decode: Callable[[R], T], raws: Iterable[R]) -> Sequence[T]:
    found = []
    for raw in raws:
        try:
            found.append(decode(raw))
        except Malformed as error:
            # Its name is no address: it blocks none.
            _log.error("address_object_left_out", why=str(error))
    return found
