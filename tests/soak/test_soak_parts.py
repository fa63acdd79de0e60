"""What a soak judges by: the slope of a process' memory, and when a look at the books becomes a finding."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from allocator.kube.resources import PODS, SPIDER_IP_ADDRESSES
from tests.crash.runtime import Runtime, Told
from tests.soak.memory import slope
from tests.soak.report import Report
from tests.soak.watching import REPAIRED_WITHIN_S, Watch

MINUTE = 60.0
POD = {"metadata": {"namespace": "shop", "name": "cart", "uid": "u1"}}


def record(address: str = "10.0.0.1", uid: str = "u1") -> dict[str, Any]:
    holder = {"namespace": "shop", "pod": "cart", "podUID": uid, "interface": "eth0", "node": "n1"}
    return {
        "metadata": {"name": address},
        "spec": {"address": address, "ipVersion": 4, "pool": "p", "state": "Held", "holder": holder},
    }


class Lists:
    """The live lists, as a test wants them."""

    def __init__(self, records: list[dict[str, Any]], pods: list[dict[str, Any]]) -> None:
        self._lists = {SPIDER_IP_ADDRESSES: records, PODS: pods}

    async def items(self, resource: Any) -> list[dict[str, Any]]:
        return self._lists.get(resource, [])


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time is the test's."""

    now = 1000.0

    def time(self) -> float:
        return self.now


def looks(watch: Watch, *, at_s: list[float]) -> None:
    loop = Clock()
    try:
        for at in at_s:
            loop.now = 1000.0 + at
            loop.run_until_complete(watch.look())
    finally:
        loop.close()


def watch_of(lists: Lists, told: dict[str, Told]) -> Watch:
    return Watch(lists, Runtime({}, told), settle_s=20)  # type: ignore[arg-type]  # it lists, which is all


def growing(mib_in_ten_minutes: float, minutes: int, jump: float = 0.0) -> list[tuple[float, float]]:
    """A sample every five seconds, with a jump half-way."""
    times = [5.0 * number for number in range(minutes * 12)]
    return [(at, 80 + at / 600 * mib_in_ten_minutes + (jump if at > minutes * 30 else 0)) for at in times]


@pytest.mark.parametrize("grows", [0.0, 0.5, 3.0])
def test_a_process_that_grows_has_its_growth_as_slope(grows: float) -> None:
    assert slope(growing(grows, minutes=20)) == pytest.approx(grows, abs=0.01)


def test_a_process_that_jumped_once_does_not_grow() -> None:
    assert slope(growing(0.0, minutes=60, jump=5.0)) == 0.0


def test_what_a_process_takes_while_it_warms_up_is_no_slope() -> None:
    samples = growing(0.0, minutes=20)
    assert slope([(at, rss + (min(300, at))) for at, rss in samples]) == 0.0


def test_a_short_run_measures_no_slope() -> None:
    assert slope(growing(5.0, minutes=5)) is None


def test_a_living_pod_without_the_address_that_it_was_told_is_a_violation_at_once() -> None:
    watch = watch_of(Lists([], [POD]), {"u1": Told(POD, "c1", {"eth0": ("10.0.0.1",)})})
    looks(watch, at_s=[0])
    assert watch.violations == {"pod shop/cart (u1) was told 10.0.0.1 for eth0: nobody has it"}


def test_an_address_that_is_held_for_nobody_is_a_leak_when_it_stays() -> None:
    watch = watch_of(Lists([record()], []), {})
    looks(watch, at_s=[0, REPAIRED_WITHIN_S - 1])
    assert not watch.leaks
    looks(watch, at_s=[REPAIRED_WITHIN_S + 1])
    assert watch.leaks == {"10.0.0.1 of shop/cart (u1) on n1"}


def test_time_in_which_no_leader_could_last_counts_not() -> None:
    watch = watch_of(Lists([record()], []), {})
    looks(watch, at_s=[0])
    watch.disturbed_at(1000.0 + 50)
    looks(watch, at_s=[REPAIRED_WITHIN_S + 1, 50 + 20 + REPAIRED_WITHIN_S - 1])
    assert not watch.leaks
    looks(watch, at_s=[50 + 20 + REPAIRED_WITHIN_S + 1])
    assert len(watch.leaks) == 1


def test_what_is_left_at_the_end_has_leaked_however_short_it_was_seen() -> None:
    watch = watch_of(Lists([record()], []), {})
    asyncio.run(watch.last_look())
    assert watch.leaks == {"10.0.0.1 of shop/cart (u1) on n1"}


@pytest.mark.parametrize(
    ("found", "is_clean"),
    [
        ({}, True),
        ({"leaks": ["10.0.0.1"]}, False),
        ({"violations": ["I5"]}, False),
        ({"slopes": {"agent-n1": 1.2}}, False),
        ({"slopes": {"agent-n1": 0.9, "webhook": None}}, True),
        ({"pods": 0}, False),
        ({"looks": 0}, False),
        ({"pods": 300, "unstarted": {"exhausted": 3}}, True),
        ({"pods": 300, "unstarted": {"exhausted": 3, "no answer": 1}}, False),
    ],
    ids=str,
)
def test_a_run_is_clean_that_shows_something_without_leak_violation_and_growth(
    found: dict[str, Any], *, is_clean: bool
) -> None:
    nothing: dict[str, Any] = {
        "plane": "embedded", "seed": 1, "minutes": 10, "pods": 1, "adds": 1, "failed_adds": 0, "unstarted": {},
        "faults": {}, "deaths": 0, "looks": 1, "leaks": [], "longest_orphan_s": 0, "violations": [], "slopes": {},
        "rss_mib": {},
    }  # fmt: skip
    assert Report(**{**nothing, **found}).is_clean is is_clean
