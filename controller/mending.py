"""Brings endpoints and records of living pods together again, whoever has edited or deleted either of them by hand.

    sweep: the caches disagree ──> suspect ── a grace period later ──> live reads ── they disagree ──> one of
        the endpoint is written again from the records, or removed where there are none;
        a record that was deleted under its pod is made again; where another pod has that address, both are told

A record that goes while its pod reports the address is made again at once: another pod may be about to take it. To make
one in error frees nothing and costs one address, until the pod ends.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeGuard

from allocator.domain import errors
from allocator.domain.endpoint import Endpoint, in_order
from allocator.domain.mending import Shown, agree, compare, lost, reported_addresses
from allocator.domain.record import Holder, State, claimed
from allocator.domain.slots import public_name
from allocator.domain.wishes import holdings
from allocator.kube.codec import Malformed, decode_endpoint, decode_pool, endpoint_uid, is_unadopted
from allocator.runtime.logs import get_logger
from controller.reclaim import STRIDE
from controller.suspects import Suspects

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping, Sequence

    from allocator.domain.addresses import Address
    from allocator.domain.mending import Disagreement
    from allocator.domain.pool import Pool
    from allocator.domain.record import Record
    from allocator.domain.request import Pod
    from allocator.kube.ledger import KubeLedger
    from allocator.kube.owners import Owners
    from allocator.kube.resources import Object
    from controller.books import Books
    from controller.reclaim import Hands

_log = get_logger(__name__)

TICK_S: Final = 0.25


class _PodName(NamedTuple):
    namespace: str
    name: str


class Mending:
    """One term of leadership. `grace_s` passes between the two looks."""

    def __init__(
        self,
        books: Books,
        hands: Hands,
        owners: Owners,
        *,
        grace_s: float,
        sweep_interval_s: float,
    ) -> None:
        self._books = books
        self._hands = hands
        self._ledger: KubeLedger = hands.ledger
        self._owners = owners
        self._grace_s = grace_s
        self._sweep_interval_s = sweep_interval_s
        self._swept_at = -math.inf
        self._suspects: Suspects[_PodName] = Suspects()
        # Records that went while their pods used them, by pod UID.
        self._vanished: dict[str, list[Record]] = {}
        # Addresses that a pod uses and another one holds, by the UID of the former.
        self.conflicts: dict[str, set[Address]] = {}
        books.on_record.append(self._on_record)

    @property
    def disagreeing(self) -> int:
        """Pods whose endpoint and records did not agree in the last sweep."""
        return len(self._suspects)

    async def run(self) -> None:
        while True:
            try:
                await self.turn()
            except Exception:  # noqa: BLE001 - the border of the loop
                _log.exception("mending_turn_failed")
            await self._hands.clock.sleep(min(TICK_S, self._sweep_interval_s))

    async def turn(self) -> None:
        clock = self._hands.clock
        while self._vanished and self._hands.may_act():
            uid, records = self._vanished.popitem()
            await self._try(self._put_back(uid, records))
        if clock.monotonic() - self._swept_at >= self._sweep_interval_s and not self._books.behind():
            self._swept_at = clock.monotonic()
            await self._sweep()
        for suspect in self._suspects.due(clock.monotonic(), self._grace_s):
            if self._hands.may_act():
                await self._try(self._settle(suspect.key, suspect.subject))
            # Until a sweep sees it again, from the beginning.
            self._suspects.clear(suspect.key)

    async def _try(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (errors.IpamError, errors.Conflict) as error:
            _log.warning("not_mended", why=str(error))
        except Exception:  # noqa: BLE001 - the border of one pod, for the sake of the others
            _log.exception("not_mended")

    # -- first looks, into the caches

    def _on_record(self, old: Record | None, new: Record | None) -> None:
        """A Held record is deleted by the agent that undoes a claim, which no pod uses yet, or by a person."""
        if old is None or new is not None or old.state is not State.HELD or old.holder is None:
            return
        pod = self._books.pod(old.holder.namespace, old.holder.pod)
        if _lives(pod, old.holder.pod_uid) and old.address in reported_addresses(pod):
            self._vanished.setdefault(old.holder.pod_uid, []).append(old)

    async def _sweep(self) -> None:
        endpoints = {uid: raw for raw in self._books.endpoints.items() if (uid := endpoint_uid(raw))}
        found: dict[str, _PodName] = {}
        for number, uid in enumerate(dict.fromkeys((*endpoints, *self._books.pod_uids()))):
            if number % STRIDE == STRIDE - 1:
                await self._hands.clock.sleep(0)
            if (name := self._disagreeing_pod(uid, endpoints.get(uid))) is not None:
                found[uid] = name
        self._suspects.keep_only(found)
        self.conflicts = {uid: addresses for uid, addresses in self.conflicts.items() if uid in found}
        clock = self._hands.clock
        for uid, name in found.items():
            if self._suspects.see(uid, uid, name, now=clock.now(), monotonic=clock.monotonic()):
                _log.info("endpoint_disagrees", namespace=name.namespace, pod=name.name, pod_uid=uid)

    def _disagreeing_pod(self, uid: str, endpoint: Object | None) -> _PodName | None:
        held = _held_by(uid, self._books.of_pod(uid))
        # First of all: it is so for nearly all pods, and costs no look at them.
        if agree(held, _shown_by(endpoint, uid)):
            return None
        if held and held[0].holder is not None:
            name = _PodName(held[0].holder.namespace, held[0].holder.pod)
        elif endpoint is not None:
            # That of a virtual machine has not the name of its pod: tidy.py decides on it.
            name = _PodName(endpoint["metadata"]["namespace"], endpoint["metadata"]["name"])
        else:
            return None
        pod = self._books.pod(*name)
        return name if _lives(pod, uid) and self._compared(pod, held, endpoint) else None

    def _compared(self, pod: Pod, held: Sequence[Record], endpoint: Object | None) -> Disagreement | None:
        """None also where nothing can be done: a pool is gone, or has the original's records."""
        shown = _shown_by(endpoint, pod.uid)
        if any(self._books.pools.get(record.pool) is None for record in held):
            return None
        pools = (self._books.pools.get(each.pool) for each in shown)
        if any(raw is not None and is_unadopted(raw) for raw in pools):
            return None
        return compare(pod, held, shown)

    # -- second looks, live, and what follows

    async def _put_back(self, uid: str, records: Sequence[Record]) -> None:
        holder = records[0].holder
        pod = await self._hands.witness.pod(holder.namespace, holder.pod) if holder is not None else None
        if not _lives(pod, uid):
            return
        held = _held_by(uid, await self._ledger.of_pod(uid))
        remembered = {_shown_in(record): record for record in records}
        for each in lost(pod, held, remembered):
            await self._make_again(pod, each, remembered[each])

    async def _settle(self, uid: str, name: _PodName) -> None:
        pod = await self._hands.witness.pod(*name)
        if not _lives(pod, uid):
            return
        endpoint = await self._hands.witness.endpoint(pod.namespace, public_name(pod.name, pod.slot))
        held = _held_by(uid, await self._ledger.of_pod(uid))
        disagreement = self._compared(pod, held, endpoint)
        if not disagreement:
            return
        made = [await self._make_again(pod, each, None) for each in disagreement.lost]
        if None in made:
            # The endpoint stays as it is: it is what tells of the address.
            return
        await self._write_endpoint(pod, [*held, *(record for record in made if record is not None)], endpoint)

    async def _write_endpoint(self, pod: Pod, held: Iterable[Record], endpoint: Object | None) -> None:
        assigned = in_order(holdings(pod.annotations, held, self._pools()))
        if not self._hands.may_act():
            return
        if assigned:
            owner = await self._owners.of(pod)
            await self._hands.endpoints.write(Endpoint(pod=pod, owner=owner, assigned=assigned))
            self._hands.receipts.endpoint_mended(pod, [each.with_prefix for each in assigned])
        elif endpoint is not None:
            name = endpoint["metadata"]["name"]
            await self._hands.endpoints.remove(pod.namespace, name, pod.uid)
            self._hands.receipts.endpoint_removed(pod.namespace, name, pod.uid)

    async def _make_again(self, pod: Pod, shown: Shown, remembered: Record | None) -> Record | None:
        """The record of an address that the pod uses; None when there can be none now."""
        pool = self._pools().get(shown.pool)
        if pool is None or shown.address not in pool.subnet:
            _log.warning("address_of_no_pool", address=str(shown.address), pool=shown.pool, pod_uid=pod.uid)
            return None
        wanted = self._wanted(pod, shown) if remembered is None else replace(remembered, uid="", resource_version="")
        found = await self._ledger.read(shown.address)
        if found is None and self._hands.may_act():
            if (made := await self._ledger.create(wanted)) is not None:
                self._hands.receipts.record_made_again(made)
                return made
            found = await self._ledger.read(shown.address)
        if found is None or found.is_of(pod.uid, shown.interface):
            return found
        await self._tell_conflict(pod, found)
        return None

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

    async def _tell_conflict(self, pod: Pod, found: Record) -> None:
        """Two pods use the address. No machine decides which of them has to go."""
        holder = found.holder
        if found.state is not State.HELD or holder is None:
            return
        if not _lives(await self._hands.witness.pod(holder.namespace, holder.pod), holder.pod_uid):
            return
        told = self.conflicts.setdefault(pod.uid, set())
        if found.address not in told:
            told.add(found.address)
            self._hands.receipts.conflict(pod, found)

    def _pools(self) -> Mapping[str, Pool]:
        pools = {}
        for raw in self._books.pools.items():
            try:
                pools[raw["metadata"]["name"]] = decode_pool(raw)
            except Malformed:
                continue
        return pools


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


def _shown_in(record: Record) -> Shown:
    return Shown(record.holder.interface if record.holder else "", record.address, record.pool)
