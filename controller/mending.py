"""Brings endpoints and records of living pods together again, whoever has edited or deleted either of them by hand.

    sweep: the caches disagree ──> suspect ── a grace period later ──> live reads ── they disagree ──> one of
        the endpoint is written again from the records, or removed where there are none;
        a record that was deleted under its pod is made again; where another pod has that address, both are told

A record that goes while its pod reports the address is made again at once: another pod may be about to take it. To make
one in error frees nothing and costs one address, until the pod ends.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from allocator.domain import errors
from allocator.domain.endpoint import Endpoint, in_order
from allocator.domain.mending import Shown, agree, compare, has_another, lost, reported_addresses, shown_in
from allocator.domain.record import Holder, State, claimed, reclaimed, released
from allocator.domain.slots import public_name
from allocator.domain.wishes import holdings
from allocator.kube.codec import Malformed, decode_endpoint, decode_pool, endpoint_uid, is_unadopted
from allocator.runtime.logs import get_logger
from controller.reclaim import PARALLEL, STRIDE
from controller.suspects import Suspects

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from allocator.domain.addresses import Address
    from allocator.domain.mending import Disagreement
    from allocator.domain.pool import Pool
    from allocator.domain.record import Record
    from allocator.domain.request import Pod
    from allocator.kube.owners import Owners
    from allocator.kube.resources import Object
    from controller.books import Books
    from controller.reclaim import Hands

_log = get_logger(__name__)

TICK_S: Final = 0.25
_PEOPLES: Final = (State.QUARANTINED, State.CONFLICT)
# After a record could not be made again.
RETRY_S: Final = 2.0


class Mending:
    """One term of leadership. `grace_s` passes between two looks; the second is good for `renew_deadline_s`."""

    def __init__(
        self,
        books: Books,
        hands: Hands,
        owners: Owners,
        *,
        grace_s: float,
        sweep_interval_s: float,
        renew_deadline_s: float,
    ) -> None:
        self._books = books
        self._hands = hands
        self._owners = owners
        self._grace_s = grace_s
        self._sweep_interval_s = sweep_interval_s
        self._renew_deadline_s = renew_deadline_s
        self._swept_at = -math.inf
        # Pods by UID, with their names.
        self._suspects: Suspects[tuple[str, str]] = Suspects()
        # Records that went while a pod of theirs used the address.
        self._vanished: dict[Address, Record] = {}
        # Addresses that a pod uses and another one holds, by the UID of the former.
        self.conflicts: dict[str, set[Address]] = {}
        books.on_record.append(self._on_record)

    @property
    def disagreeing(self) -> int:
        """Pods whose endpoint and records did not agree in the last sweep."""
        return len(self._suspects)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forever(self.put_back), name="put-back")
            group.create_task(self._forever(self.turn), name="mend")

    async def _forever(self, turn: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await turn()
            except Exception:  # noqa: BLE001 - the border of the loop
                _log.exception("mending_turn_failed")
            await self._hands.clock.sleep(min(TICK_S, self._sweep_interval_s))

    async def put_back(self) -> None:
        """What has vanished stands again: at once, whatever else is to be done."""
        vanished, self._vanished = self._vanished, {}
        left = {a: record for a, record in vanished.items() if not await self._carried_out(self._put_back(record))}
        if left:
            self._vanished = {**left, **self._vanished}
            await self._hands.clock.sleep(RETRY_S)

    async def turn(self) -> None:
        clock = self._hands.clock
        if clock.monotonic() - self._swept_at >= self._sweep_interval_s and not self._books.behind():
            self._swept_at = clock.monotonic()
            await self._sweep()
        due = self._suspects.due(clock.monotonic(), self._grace_s)
        for start in range(0, len(due), PARALLEL):
            async with asyncio.TaskGroup() as group:
                for suspect in due[start : start + PARALLEL]:
                    work = self._settle(suspect.key, *suspect.subject)
                    group.create_task(self._carried_out(work), name=f"mend-{suspect.key}")
                    # Until a sweep sees it again, from the beginning.
                    self._suspects.clear(suspect.key)

    async def _carried_out(self, work: Coroutine[Any, Any, None]) -> bool:
        """False when it may be tried again."""
        try:
            async with asyncio.timeout(self._renew_deadline_s):
                await work
        except (errors.IpamError, errors.Conflict, TimeoutError) as error:
            _log.warning("not_mended", why=str(error) or type(error).__name__)
            return False
        except Exception:  # noqa: BLE001 - the border of one pod, for the sake of the others
            _log.exception("not_mended")
        return True

    # -- first looks, into the caches

    def _on_record(self, old: Record | None, new: Record | None) -> None:
        """A Held record is deleted by the agent that undoes a claim, which no pod uses yet, or by a person."""
        if old is None or old.state is not State.HELD:
            return
        if new is None and any(self._is_used(old, party) for party in old.parties):
            self._vanished[old.address] = old
        else:
            self._vanished.pop(old.address, None)

    def _is_used(self, record: Record, party: Holder) -> bool:
        pod = self._books.pod(party.namespace, party.pod)
        return _lives(pod, party.pod_uid) and record.address in reported_addresses(pod)

    async def _sweep(self) -> None:
        endpoints = {uid: raw for raw in self._books.endpoints.items() if (uid := endpoint_uid(raw))}
        clock, found = self._hands.clock, {}
        for number, uid in enumerate(dict.fromkeys((*endpoints, *self._books.pod_uids()))):
            if number % STRIDE == STRIDE - 1:
                await clock.sleep(0)
            records, endpoint = self._books.of_pod(uid), endpoints.get(uid)
            held = _held_by(uid, records)
            # First of all: it is so for nearly all pods, and costs no look at them. With what is in quarantine or in
            # conflict a person is at work.
            if not agree(held, _shown_by(endpoint, uid)) and not any(each.state in _PEOPLES for each in records):
                pod = self._books.pod_of_uid(uid)
                if _lives(pod, uid) and self._compared(pod, held, endpoint):
                    found[uid] = pod
        self._suspects.keep_only(found)
        self.conflicts = {uid: addresses for uid, addresses in self.conflicts.items() if uid in found}
        for uid, pod in found.items():
            name = pod.namespace, pod.name
            if self._suspects.see(uid, uid, name, now=clock.now(), monotonic=clock.monotonic()):
                _log.info("endpoint_disagrees", namespace=pod.namespace, pod=pod.name, pod_uid=uid)

    def _compared(self, pod: Pod, held: Sequence[Record], endpoint: Object | None) -> Disagreement | None:
        """None also where nothing can be done: a pool is gone, cannot be read, or has the original's records."""
        shown = _shown_by(endpoint, pod.uid)
        if any(self._pool(record.pool) is None for record in held):
            return None
        pools = (self._books.pools.get(each.pool) for each in shown)
        if any(raw is not None and is_unadopted(raw) for raw in pools):
            return None
        return compare(pod, held, shown)

    def _pool(self, name: str) -> Pool | None:
        raw = self._books.pools.get(name)
        try:
            return None if raw is None else decode_pool(raw)
        except Malformed:
            return None

    # -- second looks, live, and what follows

    async def _put_back(self, record: Record) -> None:
        shown = shown_in(record)
        for party in record.parties:
            pod = await self._hands.witness.pod(party.namespace, party.pod)
            if not _lives(pod, party.pod_uid):
                continue
            held = _held_by(pod.uid, await self._hands.witness.records(pod.uid))
            if lost(pod, held, [shown]):
                await self._make_again(pod, shown, record)
                return

    async def _settle(self, uid: str, namespace: str, name: str) -> None:
        pod = await self._hands.witness.pod(namespace, name)
        if not _lives(pod, uid):
            return
        endpoint = await self._hands.witness.endpoint(namespace, public_name(pod.name, pod.slot))
        held = _held_by(uid, await self._hands.witness.records(uid))
        disagreement = self._compared(pod, held, endpoint)
        if not disagreement:
            return
        for each in disagreement.lost:
            made = await self._make_again(pod, each, None)
            if made is None:
                # The endpoint stays as it is: it is what tells of the address.
                return
            held.append(made)
        for record in disagreement.spare:
            after = await self._hands.ledger.replace(released(record, self._hands.clock.now()))
            self._hands.receipts.spare_released(after)
            held.remove(record)
        # Of two whose node reports neither, the pod's next ADD or its end decides.
        if disagreement.is_outdated and not any(has_another(record, held) for record in held):
            await self._write_endpoint(pod, held, endpoint)

    async def _write_endpoint(self, pod: Pod, held: Sequence[Record], endpoint: Object | None) -> None:
        pools = {record.pool: pool for record in held if (pool := self._pool(record.pool)) is not None}
        assigned = in_order(holdings(pod.annotations, held, pools))
        if len(assigned) < len(held):
            return
        owner = await self._owners.of(pod)
        if not self._hands.may_act():
            return
        if assigned:
            await self._hands.endpoints.mend(endpoint, Endpoint(pod=pod, owner=owner, assigned=assigned))
            self._hands.receipts.endpoint_mended(pod, [each.with_prefix for each in assigned])
        elif endpoint is not None:
            await self._hands.endpoints.discard(endpoint)
            self._hands.receipts.endpoint_removed(pod.namespace, endpoint["metadata"]["name"], pod.uid)

    async def _make_again(self, pod: Pod, shown: Shown, remembered: Record | None) -> Record | None:
        """The record of an address that the pod uses; None when there can be none now."""
        pool, ledger = self._pool(shown.pool), self._hands.ledger
        if pool is None or shown.address not in pool.subnet:
            _log.warning("address_of_no_pool", address=str(shown.address), pool=shown.pool, pod_uid=pod.uid)
            return None
        wanted = self._wanted(pod, shown) if remembered is None else replace(remembered, uid="", resource_version="")
        found = await ledger.read(shown.address)
        if not self._hands.may_act():
            return None
        made = None
        if found is None:
            made = await ledger.create(wanted)
        elif found.state is State.COOLING and found.holder is not None and found.holder.pod_uid == pod.uid:
            # Somebody has released it under the pod.
            made = await ledger.replace(reclaimed(found, shown.pool, found.holder, found.slot, self._hands.clock.now()))
        if made is None:
            return await self._beside(pod, shown)
        if has_another(made, await self._hands.witness.records(pod.uid)):
            # The pod's own ADD was faster, with another address: that one is its answer.
            await ledger.delete(made)
            return None
        self._hands.receipts.record_made_again(made)
        return made

    def _wanted(self, pod: Pod, shown: Shown) -> Record:
        holder = Holder(
            namespace=pod.namespace,
            pod=pod.name,
            pod_uid=pod.uid,
            interface=shown.interface,
            node=pod.node,
            # Nobody knows it any more: the end of the pod is found by reclaim, not by a DEL.
            container_id="",
        )
        return claimed(shown.address, shown.pool, holder, pod.slot, self._hands.clock.now())

    async def _beside(self, pod: Pod, shown: Shown) -> Record | None:
        """The record that stands in the way, if it is the pod's own. No machine decides which of two has to go."""
        found = await self._hands.ledger.read(shown.address)
        if found is None or found.is_of(pod.uid, shown.interface):
            return found
        holder = found.holder
        if found.state is State.HELD and holder is not None:
            other = await self._hands.witness.pod(holder.namespace, holder.pod)
            told = self.conflicts.setdefault(pod.uid, set())
            if _lives(other, holder.pod_uid) and found.address not in told:
                told.add(found.address)
                self._hands.receipts.conflict(pod, found)
        return None


def _lives(pod: Pod | None, uid: str) -> TypeGuard[Pod]:
    return pod is not None and pod.uid == uid and pod.alive


def _held_by(uid: str, records: Iterable[Record]) -> list[Record]:
    """Of two pods with one address only the holder has it in its endpoint."""
    return [each for each in records if each.state is State.HELD and each.holder and each.holder.pod_uid == uid]


def _shown_by(endpoint: Object | None, uid: str) -> list[Shown]:
    """Nothing where it is going, or speaks of another pod."""
    if endpoint is None or endpoint["metadata"].get("deletionTimestamp") or endpoint_uid(endpoint) != uid:
        return []
    return decode_endpoint(endpoint)
