"""Reclaim: addresses of holders that are gone go back, and nothing else ever does.

    pod ends, or the sweep ──> suspect ── a grace period later, seen again ──> live reads ── same verdict ──> one write

The caches make suspects. Right before the write the record, the pod and the pod's owner are read live, in that order,
and the leader must still be sure of its lease. The write names the uid and resourceVersion that were read. Whatever
goes wrong on the way voids the verdict, and the next sighting is a first one again.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.domain.addresses import object_name
from allocator.domain.reclaim import FREEABLE, Act, cooling_time, judge, stands_for, survivor
from allocator.domain.record import parted, released, retained
from allocator.domain.slots import public_name
from allocator.runtime.logs import get_logger
from controller.suspects import BRAKE_CONFIRM_S, Brake, Suspects

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from allocator.domain.reclaim import Rules, Sighting, Verdict
    from allocator.domain.record import Record
    from allocator.kube.ledger import KubeLedger
    from allocator.kube.stores import KubeEndpoints
    from allocator.runtime.clock import Clock
    from controller.books import Books
    from controller.receipts import Receipts
    from controller.suspects import Suspect
    from controller.witness import Witness

_log = get_logger(__name__)

# How often the loop looks for suspects whose grace is over and for addresses that have cooled.
TICK_S: Final = 0.25
# Between sweeps at the least, when the brake waits for one: a leak then lives no longer than without it, or hardly.
BRAKED_REST_S: Final = 5.0
# Writes under way at once: enough to free a namespace in seconds, too few to trouble the API server.
PARALLEL: Final = 8
# Records looked at in one go; then others have their turn, the renewal of the lease above all.
STRIDE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReclaimConfig:
    """`renew_deadline_s` bounds the time from the first live read to the write; `workers` settle at once."""

    grace_s: float
    sweep_interval_s: float
    reuse_delay: timedelta
    renew_deadline_s: float
    rules: Rules
    workers: int = PARALLEL
    brake_confirm_s: float = BRAKE_CONFIRM_S


@dataclass(frozen=True, slots=True)
class Case:
    record: Record
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What reclaim acts through. `may_act` says whether this replica leads beyond doubt, at the moment of asking."""

    ledger: KubeLedger
    witness: Witness
    endpoints: KubeEndpoints
    receipts: Receipts
    may_act: Callable[[], bool]
    clock: Clock


class Reclaim:
    """One term of leadership. `run` expects the books to be complete; pods' ends are heard from the start.

    `on_brake` hears after each sweep how many addresses the brake holds, by pool.
    """

    def __init__(self, books: Books, hands: Hands, config: ReclaimConfig) -> None:
        self._books = books
        self._hands = hands
        self.config = config
        self._clock = hands.clock
        self._suspects: Suspects[Case] = Suspects()
        # Addresses that are held for nobody: the UID of the pod that had it, and since when that is known.
        self._leaking: dict[str, tuple[str, float]] = {}
        self._brake = Brake(confirm_s=config.brake_confirm_s)
        self._swept_at = -math.inf
        self.turned_at = self._clock.monotonic()
        self.on_brake: list[Callable[[Mapping[str, int]], None]] = []
        books.on_pod.append(self._on_pod)

    @property
    def candidates(self) -> int:
        """Holders that were seen gone, and wait for their second sighting."""
        return len(self._suspects)

    @property
    def is_braked(self) -> bool:
        return self._brake.is_on

    def leaks(self) -> list[float]:
        """Of each address that is held for nobody, the seconds since that was first seen: however often its release
        had to be begun anew.
        """
        now = self._clock.monotonic()
        return [now - since for key, (uid, since) in self._leaking.items() if self._still(key, uid)]

    def _still(self, key: str, uid: str) -> bool:
        record = self._books.record(key)
        return (
            record is not None
            and record.state in FREEABLE
            and record.holder is not None
            and record.holder.pod_uid == uid
        )

    async def run(self) -> None:
        self.turned_at = self._clock.monotonic()
        while True:
            try:
                await self.turn()
            except Exception:  # noqa: BLE001 - the border of the loop: one bad object must not end reclaim for all
                _log.exception("reclaim_turn_failed")
            self.turned_at = self._clock.monotonic()
            await self._clock.sleep(min(TICK_S, self.config.sweep_interval_s))

    async def turn(self) -> None:
        now = self._clock.monotonic()
        rested_s = now - self._swept_at
        is_braked = rested_s >= BRAKED_REST_S and self._brake.wants_sweep(now)
        if is_braked or rested_s >= self.config.sweep_interval_s:
            self._swept_at = now
            await self._sweep()
        await self._settle_due()

    async def _sweep(self) -> None:
        """Look at every record; what was seen before and is not a suspect any more is cleared."""
        if behind := self._books.behind():
            _log.warning("reclaim_sweep_skipped", behind=behind)
            return
        keys = self._books.keys()
        self._suspects.keep_only(set(keys))
        self._leaking = {key: leak for key, leak in self._leaking.items() if self._still(key, leak[0])}
        for number, key in enumerate(keys):
            if number % STRIDE == STRIDE - 1:
                await self._clock.sleep(0)
            record = self._books.record(key)
            if record is not None:
                self._look_at(record)
        self._brake_or_not()

    def _brake_or_not(self) -> None:
        was_on, total = self._brake.is_on, self._books.in_use
        would_free = self._would_free()
        self._brake.sweep({_token(each): each.first_s for each in would_free}, total, self._clock.monotonic())
        if self._brake.is_on and not was_on:
            self._hands.receipts.braked(len(would_free), total, self.config.brake_confirm_s)
        elif was_on and not self._brake.is_on:
            self._hands.receipts.brake_released(len(would_free), total)
        held = Counter(each.subject.record.pool for each in would_free if self._brake.holds(_token(each)))
        for listener in self.on_brake:
            listener(held)

    def _on_pod(self, records: tuple[Record, ...]) -> None:
        """Something happened to a pod of this name: its end makes suspects at once, and its return clears them."""
        if self._books.synced:
            for record in records:
                self._look_at(record)

    def _look_at(self, record: Record) -> None:
        now = self._clock.now()
        verdict = judge(self._books.sighting(record), self.config.rules, now)
        key = object_name(record.address)
        self._note_leak(key, record, verdict)
        if verdict.act is Act.KEEP:
            self._suspects.clear(key)
        else:
            case = Case(record, verdict)
            if self._suspects.see(key, _edition(record), case, now=now, monotonic=self._clock.monotonic()):
                _log.info("holder_suspected", address=str(record.address), act=verdict.act.value, why=verdict.why.value)

    def _note_leak(self, key: str, record: Record, verdict: Verdict) -> None:
        uid = record.holder.pod_uid if record.holder is not None else ""
        if verdict.act is not Act.RELEASE:
            self._leaking.pop(key, None)
        elif self._leaking.get(key, ("", 0.0))[0] != uid:
            self._leaking[key] = uid, self._clock.monotonic()

    def _would_free(self) -> list[Suspect[Case]]:
        return [suspect for suspect in self._suspects if suspect.subject.verdict.act is Act.RELEASE]

    async def _settle_due(self) -> None:
        waiting, total = len(self._would_free()), self._books.in_use
        ready = [
            suspect
            for suspect in self._suspects.due(self._clock.monotonic(), self.config.grace_s)
            if suspect.subject.verdict.act is not Act.RELEASE or self._brake.lets(_token(suspect), waiting, total)
        ]
        for start in range(0, len(ready), self.config.workers):
            async with asyncio.TaskGroup() as group:
                for suspect in ready[start : start + self.config.workers]:
                    group.create_task(self._settle(suspect), name=f"settle-{suspect.key}")

    async def _settle(self, suspect: Suspect[Case]) -> None:
        """The second sighting. Whatever its outcome, the suspect is done with."""
        self._suspects.clear(suspect.key)
        record = self._books.record(suspect.key)
        if record is None or _edition(record) != suspect.edition:
            return
        try:
            # Adapters try again for longer than a verdict is good.
            async with asyncio.timeout(self.config.renew_deadline_s):
                freed = await self._settle_live(suspect)
        except (errors.IpamError, errors.Conflict, TimeoutError) as error:
            self._hands.receipts.voided(suspect.key, str(error) or type(error).__name__)
        except Exception:  # noqa: BLE001 - the border of one record, for the sake of the others
            _log.exception("settling_failed", address=suspect.key)
        else:
            if freed is not None:
                await self._remove_endpoint(freed)

    async def _settle_live(self, suspect: Suspect[Case]) -> Record | None:
        """Look again, and write. The record as it was read, when the address was freed."""
        began = self._clock.monotonic()
        record = await self._hands.ledger.read(suspect.subject.record.address)
        if record is None or _edition(record) != suspect.edition:
            return None
        seen = await self._hands.witness.look(record)
        now = self._clock.now()
        verdict = judge(seen, self.config.rules, now)
        if verdict.act is not suspect.subject.verdict.act:
            # The two sightings must agree on what to do.
            return None
        if not self._hands.may_act() or self._clock.monotonic() - began > self.config.renew_deadline_s:
            self._hands.receipts.voided(suspect.key, "the lease could not be proven in time")
            return None
        if verdict.act is Act.PART and record.holder is not None:
            stays, name = survivor(seen), public_name(record.holder.pod, record.slot)
            await self._hands.endpoints.hand_over(stays.namespace, name, record.holder.pod_uid, stays)
        after = await self._hands.ledger.replace(self._moved(record, verdict, seen))
        self._hands.receipts.moved(record, after, verdict, (suspect.first_at, now))
        return record if verdict.act is Act.RELEASE else None

    def _moved(self, record: Record, verdict: Verdict, seen: Sighting) -> Record:
        now = self._clock.now()
        match verdict.act:
            case Act.RETAIN:
                return retained(record, now)
            case Act.PART:
                return parted(record, survivor(seen), now)
            case _:
                return released(record, now, cooling_time(verdict, seen.node, self.config.reuse_delay))

    async def _remove_endpoint(self, freed: Record) -> None:
        """The endpoint goes with the last address of its pod. One that stays is found by the sweep for orphans.

        The cache is good enough to know the others: it has our own writes, and a UID that is gone claims nothing new.
        """
        holder = freed.holder
        if holder is None:
            return
        name = public_name(holder.pod, freed.slot)
        if any(stands_for(each, holder.pod_uid) for each in self._books.of_pod(holder.pod_uid)):
            return
        if not self._hands.may_act():
            return
        try:
            async with asyncio.timeout(self.config.renew_deadline_s):
                await self._hands.endpoints.remove(holder.namespace, name, holder.pod_uid)
        except (errors.IpamError, errors.Conflict, TimeoutError) as error:
            why = str(error) or type(error).__name__
            _log.warning("endpoint_not_removed", endpoint=f"{holder.namespace}/{name}", why=why)
        except Exception:  # noqa: BLE001 - the border of one endpoint: its address has been freed
            _log.exception("endpoint_not_removed", endpoint=f"{holder.namespace}/{name}")
        else:
            self._hands.receipts.endpoint_removed(holder.namespace, name, holder.pod_uid)


def _edition(record: Record) -> str:
    return f"{record.uid}/{record.resource_version}"


def _token(suspect: Suspect[Case]) -> str:
    return f"{suspect.key}@{suspect.edition}"
