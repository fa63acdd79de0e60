"""Writes each pool's `status` from the ledger: soon after a change, then at a bounded rate, only when it differs."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain.conditions import stated
from allocator.domain.drift import CONDITION as DRIFT
from allocator.domain.projection import NOTHING_YET, project, project_unreadable
from allocator.kube.codec import Malformed, decode_edition, decode_pool, is_unadopted
from allocator.kube.errors import ApiError, BadRequest, Conflict, Forbidden, Invalid, NotFound, Unreachable
from allocator.kube.pool_status import decode_status, encode_status
from allocator.kube.resources import SPIDER_IP_POOLS
from allocator.runtime.logs import get_logger
from controller import marks
from controller.overlaps import Overlaps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from allocator.domain.conditions import Finding
    from allocator.domain.projection import PoolStatus
    from allocator.domain.record import Record
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from allocator.runtime.clock import Clock
    from controller.books import Books

_log = get_logger(__name__)

TICK_S: Final = 0.1
# Pools written at once.
PARALLEL: Final = 4
# The text of so many records is a few kilobytes: it goes with the counts, so that people never see them disagree.
SHORT_TEXT: Final = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """Seconds. A first change waits `quiet_s` for others to join it; then counts go out every `counts_s` at most, and
    the text, which may be half a megabyte, every `text_s`. `retry_s` after a write that failed, `refused_s`
    after one that the server refused for good.
    """

    quiet_s: float = 0.3
    counts_s: float = 5.0
    text_s: float = 10.0
    retry_s: float = 1.0
    refused_s: float = 30.0


@dataclass(slots=True)
class _Pace:
    """When a pool was last heard of and written, in monotonic seconds."""

    changed_at: float = -math.inf
    dirty: bool = False
    text_dirty: bool = False
    urgent: bool = False
    written_at: float = -math.inf
    text_at: float = -math.inf
    not_before: float = -math.inf

    @property
    def is_waiting(self) -> bool:
        return self.dirty or self.text_dirty or self.urgent


class Projection:
    """One term of leadership. `may_act` as for reclaim."""

    def __init__(
        self, books: Books, client: KubeClient, *, may_act: Callable[[], bool], clock: Clock, cadence: Cadence
    ) -> None:
        self._books = books
        self._client = client
        self._may_act = may_act
        self._clock = clock
        self._cadence = cadence
        self._paces: dict[str, _Pace] = {}
        self._waiting: set[str] = set()
        self._left_alone: set[str] = set()
        self._overlaps = Overlaps()
        self._braked: Mapping[str, int] = {}
        self._drift: Mapping[str, Finding] | None = None  # None until somebody has looked
        books.on_record.append(self._on_record)
        books.on_pool.append(self._on_pool)
        books.on_reservation.append(self._on_reservation)

    async def run(self) -> None:
        while True:
            try:
                await self.turn()
            except Exception:  # noqa: BLE001 - the border of the loop
                _log.exception("projection_turn_failed")
            await self._clock.sleep(TICK_S)

    def on_brake(self, held: Mapping[str, int]) -> None:
        """Reclaim's brake holds so many addresses of these pools."""
        before, self._braked = self._braked, dict(held)
        for name in before.keys() | held.keys():
            if before.get(name) != held.get(name) and name in self._paces:
                self._touch(name)

    def on_drift(self, found: Mapping[str, Finding]) -> None:
        """So these pools stand to their SpiderSubnets."""
        before, self._drift = self._drift, dict(found)
        for name in list(self._paces):
            if before is None or before.get(name) != found.get(name):
                self._touch(name)

    async def turn(self) -> None:
        if not self._books.synced or not self._may_act():
            return
        for name in self._overlaps.bring_up_to_date():
            if name in self._paces:
                self._touch(name)
        due = [name for name in sorted(self._waiting) if self._is_due(self._paces[name])]
        for start in range(0, len(due), PARALLEL):
            async with asyncio.TaskGroup() as group:
                for name in due[start : start + PARALLEL]:
                    group.create_task(self._bring_up_to_date(name), name=f"project-{name}")
        self._waiting = {name for name in self._waiting if name in self._paces and self._paces[name].is_waiting}

    def _is_due(self, pace: _Pace) -> bool:
        now, cadence = self._clock.monotonic(), self._cadence
        if now < pace.not_before:
            return False
        if pace.urgent:
            return True
        if pace.dirty and now >= max(pace.changed_at + cadence.quiet_s, pace.written_at + cadence.counts_s):
            return True
        return pace.text_dirty and now >= max(pace.changed_at + cadence.quiet_s, pace.text_at + cadence.text_s)

    def _on_record(self, old: Record | None, new: Record | None) -> None:
        for name in {name for record in (old, new) if record is not None for name in self._overlaps.counting(record)}:
            self._touch(name)
        for pool in {record.pool for record in (old, new) if record is not None}:
            raw = self._books.pools.get(pool)
            if raw is not None and raw["metadata"].get("deletionTimestamp") and not self._books.of_pool(pool):
                # It may have been the last one that held up the deletion.
                self._paces[pool].urgent = True

    def _on_pool(self, name: str) -> None:
        """A new edition is looked at without waiting. Our own status write changes none."""
        raw = self._books.pools.get(name)
        if raw is None:
            self._drop(name)
        else:
            self._touch(name)
            self._paces[name].urgent = _needs_scan(raw)
        self._overlaps.note(name, raw)

    def _on_reservation(self) -> None:
        for raw in self._books.pools.items():
            self._touch(raw["metadata"]["name"])

    def _drop(self, name: str) -> None:
        self._paces.pop(name, None)
        self._waiting.discard(name)
        self._left_alone.discard(name)

    def _touch(self, name: str) -> None:
        self._waiting.add(name)
        pace = self._paces.setdefault(name, _Pace())
        if not pace.dirty:
            pace.changed_at = self._clock.monotonic()
        pace.dirty = pace.text_dirty = True

    async def _bring_up_to_date(self, name: str) -> None:
        raw, pace = self._books.pools.get(name), self._paces.get(name)
        if raw is None or pace is None:
            self._drop(name)
            return
        if is_unadopted(raw):
            self._leave_alone(name)
            return
        try:
            await self._write(raw, pace)
        except (Conflict, NotFound):
            # Somebody wrote the pool in between: the watch brings what they wrote.
            self._try_later(pace, self._cadence.retry_s)
        except (Forbidden, Invalid, BadRequest) as error:
            # Permissions, a schema: another try helps only when a person has done something.
            _log.error("pool_status_refused", pool=name, why=str(error))
            self._try_later(pace, self._cadence.refused_s)
        except (ApiError, Unreachable) as error:
            _log.warning("pool_status_not_written", pool=name, why=str(error))
            self._try_later(pace, self._cadence.retry_s)
        except Exception:  # noqa: BLE001 - the border of one pool, for the sake of the others
            _log.exception("pool_projection_failed", pool=name)
            self._try_later(pace, self._cadence.refused_s)

    def _leave_alone(self, name: str) -> None:
        self._paces[name] = _Pace()
        if name not in self._left_alone:
            self._left_alone.add(name)
            _log.warning(
                "pool_left_alone",
                pool=name,
                why="status.allocatedIPs holds records of another Spiderpool, which this one has not taken over",
            )

    def _try_later(self, pace: _Pace, pause_s: float) -> None:
        pace.dirty = pace.text_dirty = pace.urgent = True
        pace.not_before = self._clock.monotonic() + pause_s

    async def _write(self, raw: Object, pace: _Pace) -> None:
        now, known, name = self._clock.monotonic(), decode_status(raw), raw["metadata"]["name"]
        scanning = _needs_scan(raw)
        records = self._books.of_pool(name)
        with_text = len(records) <= SHORT_TEXT or now >= pace.text_at + self._cadence.text_s
        pace.dirty = pace.urgent = False
        pace.text_dirty = not with_text
        if scanning:
            found = await marks.scan(self._client, name)
            # Whether the spec can be read plays no part: a pool that is nonsense must be able to go.
            if raw["metadata"].get("deletionTimestamp") and found.is_empty and self._may_act():
                await marks.remove_finalizer(self._client, SPIDER_IP_POOLS, raw)
                return
            records = found.records
        status = self._status(raw, records, before=known or NOTHING_YET, scanned=scanning, with_text=with_text)
        if status == known or not self._may_act():
            return
        await self._put(raw, status)
        pace.written_at = now
        if with_text:
            pace.text_at = now

    def _status(
        self, raw: Object, records: Sequence[Record], *, before: PoolStatus, scanned: bool, with_text: bool
    ) -> PoolStatus:
        now = self._clock.now()
        try:
            pool = decode_pool(raw)
        except Malformed as error:
            _log.error("pool_unreadable", why=str(error))
            edition, why = decode_edition(raw), str(error)
            return project_unreadable(
                edition, why, records, before=before, now=now, scanned=scanned, with_text=with_text
            )
        overlap = self._overlaps.of(pool.name)
        return project(
            pool,
            records,
            self._books.reserved(pool.version),
            before=before,
            now=now,
            overlap=overlap,
            strangers=[each for each in self._books.within(pool.total) if each.pool != pool.name],
            scanned=scanned,
            with_text=with_text,
            braked=self._braked.get(pool.name, 0),
            drift=stated(DRIFT, before.conditions) if self._drift is None else self._drift.get(pool.name),
        )

    async def _put(self, raw: Object, status: PoolStatus) -> None:
        written = await self._client.replace(SPIDER_IP_POOLS, encode_status(raw, status), subresource="status")
        # Shown to ourselves at once, so that the next turn starts from what was written.
        self._books.pools.note(written)


def _needs_scan(raw: Object) -> bool:
    """Whether no scan has answered this edition yet: a new generation, or a deletion that is still held up."""
    if raw["metadata"].get("deletionTimestamp"):
        return marks.has_finalizer(raw)
    known = decode_status(raw)
    return known is None or known.observed_generation != int(raw["metadata"].get("generation", 0))
