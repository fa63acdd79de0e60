"""How long a released address cools, and how long a pod's deletion was watched."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from allocator.domain import errors
from allocator.domain.addresses import object_name
from allocator.domain.reclaim import UNSEEN_END_DELAY, Ending, NodeState, Sighting
from allocator.domain.record import State
from controller.endings import Endings
from controller.tidy import GRACE_S, QUARANTINE_RETRY_S, RETRY_S, SLACK_S, Cooled
from tests.unit.fake_clock import FakeClock
from tests.unit.records import NOON, a_pod, a_record, cooling

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from allocator.domain.record import Record
    from allocator.domain.request import Pod
    from controller.books import Books
    from controller.reclaim import Hands


class Bench:
    """Books, hands and ledger of a Cooled in one: what it reads and does, and nothing else."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.on_record: list[Callable[[Record | None, Record | None], None]] = []
        self.records: dict[str, Record] = {}
        self.fails: dict[str, Exception] = {}
        self.ledger = self.receipts = self.witness = self
        self.pods: dict[str, Pod] = {}
        self.node = NodeState.READY
        self.may_act = lambda: True
        self.cooled = Cooled(cast("Books", self), cast("Hands", self), reuse_delay=timedelta(seconds=30))

    def record(self, key: str) -> Record | None:
        return self.records.get(key)

    def show(self, record: Record) -> None:
        self.records[object_name(record.address)] = record
        for tell in self.on_record:
            tell(None, record)

    async def delete(self, record: Record) -> None:
        name = object_name(record.address)
        if name in self.fails:
            raise self.fails.pop(name)
        await asyncio.sleep(0)
        del self.records[name]

    async def replace(self, record: Record) -> Record:
        self.show(replace(record, resource_version=record.resource_version + "1"))
        return record

    async def look(self, record: Record) -> Sighting:
        pod = self.pods.get(record.holder.pod) if record.holder else None
        return Sighting(record=record, pod=pod, node=self.node)

    def quarantine_ended(self, after: Record) -> None:
        assert after.state is State.COOLING

    async def after(self, seconds: float) -> list[str]:
        """What is left when so much time has passed."""
        self.clock.advance(seconds)
        await self.cooled.turn()
        return sorted(self.records)

    async def state_after(self, seconds: float) -> State:
        await self.after(seconds)
        return self.records["10.20.0.1"].state


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_controller_whose_clock_is_wrong_lets_an_address_cool_as_long_as_its_release_said(hours: int) -> None:
    bench, wrong = Bench(), timedelta(hours=hours)
    bench.show(a_record(state=State.COOLING, since=NOON - wrong, until=NOON - wrong + timedelta(seconds=30)))
    assert await bench.after(30 + SLACK_S - 0.1) == ["10.20.0.10"]
    assert await bench.after(0.1) == []


async def test_a_long_cooling_time_is_kept_to() -> None:
    bench = Bench()
    bench.show(cooling("10.20.0.10", until_s=600))
    assert await bench.after(600) == ["10.20.0.10"]
    assert await bench.after(SLACK_S) == []


QUARANTINE = timedelta(hours=2)


def quarantined(*, since: datetime) -> Record:
    return a_record("10.20.0.1", state=State.QUARANTINED, since=since, until=since + QUARANTINE)


async def test_a_quarantine_ends_by_time_and_the_address_then_cools_like_any_other() -> None:
    bench = Bench()
    bench.show(quarantined(since=NOON))
    assert await bench.state_after(QUARANTINE.total_seconds() + SLACK_S) is State.QUARANTINED
    assert await bench.state_after(GRACE_S - 0.1) is State.QUARANTINED
    assert await bench.state_after(0.1) is State.COOLING
    assert await bench.after(31) == []


async def test_after_a_quarantine_an_address_cools_for_long_where_nobody_saw_the_end_of_its_pod() -> None:
    bench = Bench()
    bench.node = NodeState.NOT_READY
    bench.show(quarantined(since=NOON))
    await bench.after(QUARANTINE.total_seconds() + SLACK_S)
    assert await bench.state_after(GRACE_S) is State.COOLING
    assert await bench.after(UNSEEN_END_DELAY.total_seconds()) == ["10.20.0.1"]


async def test_no_quarantine_ends_under_a_pod_that_may_run() -> None:
    bench = Bench()
    bench.pods["cart"] = a_pod()
    bench.show(quarantined(since=NOON))
    assert await bench.state_after(QUARANTINE.total_seconds() + 600) is State.QUARANTINED
    del bench.pods["cart"]
    assert await bench.state_after(QUARANTINE_RETRY_S) is State.QUARANTINED
    assert await bench.state_after(GRACE_S) is State.COOLING


async def test_a_new_leader_does_not_begin_a_quarantine_anew() -> None:
    bench = Bench()
    bench.show(quarantined(since=NOON - QUARANTINE + timedelta(seconds=10)))
    await bench.after(11)
    assert await bench.state_after(GRACE_S) is State.COOLING


@pytest.mark.parametrize("error", [RuntimeError("what no adapter maps"), errors.Unavailable("try later")])
async def test_one_record_that_cannot_be_deleted_holds_up_no_other_and_is_tried_again(error: Exception) -> None:
    bench = Bench()
    for number in range(10, 15):
        bench.show(cooling(f"10.20.0.{number}", until_s=30))
    bench.fails["10.20.0.12"] = error
    assert await bench.after(40) == ["10.20.0.12"]
    assert await bench.after(RETRY_S) == []


def terminating(deleted_at: str = "2026-01-01T12:00:30Z", **meta: Any) -> dict[str, Any]:
    return {"metadata": {"uid": "uid-1", "deletionTimestamp": deleted_at, "deletionGracePeriodSeconds": 30, **meta}}


def test_a_deletion_is_watched_from_the_first_time_that_its_timestamp_was_seen() -> None:
    clock = FakeClock()
    endings = Endings(clock)
    assert endings.see({"metadata": {"uid": "uid-1"}}) is None
    endings.see(terminating())
    clock.advance(7)
    assert endings.see(terminating()) == Ending(timedelta(seconds=30), watched=timedelta(seconds=7))
    moved = terminating("2026-01-01T12:00:08Z", deletionGracePeriodSeconds=1)
    assert endings.see(moved) == Ending(timedelta(seconds=1), watched=timedelta(0))
    clock.advance(7)
    endings.forget("uid-1")
    assert endings.see(moved) == Ending(timedelta(seconds=1), watched=timedelta(0))
