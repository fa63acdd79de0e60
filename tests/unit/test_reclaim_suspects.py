"""Two sightings, and the brake."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controller.suspects import Brake, Suspects
from tests.unit.records import NOON


def seen(suspects: Suspects[str], at_s: float, *, key: str = "10.0.0.1", edition: str = "1") -> None:
    suspects.see(key, edition, "gone", now=NOON + timedelta(seconds=at_s), monotonic=at_s)


def keys(suspects: Suspects[str], at_s: float) -> list[str]:
    return [suspect.key for suspect in suspects.due(at_s, grace_s=20)]


def test_a_first_sighting_is_never_due() -> None:
    suspects: Suspects[str] = Suspects()
    seen(suspects, 0)
    assert keys(suspects, 19.9) == []
    assert keys(suspects, 20) == ["10.0.0.1"]


def test_seeing_it_again_does_not_start_the_clock_again() -> None:
    suspects: Suspects[str] = Suspects()
    seen(suspects, 0)
    seen(suspects, 10)
    assert keys(suspects, 20) == ["10.0.0.1"]
    assert next(iter(suspects)).first_at == NOON


def test_a_record_that_changed_in_between_starts_again() -> None:
    suspects: Suspects[str] = Suspects()
    seen(suspects, 0)
    seen(suspects, 10, edition="2")
    assert keys(suspects, 20) == []


def test_one_that_was_cleared_starts_again() -> None:
    suspects: Suspects[str] = Suspects()
    seen(suspects, 0)
    suspects.clear("10.0.0.1")
    seen(suspects, 10)
    assert keys(suspects, 20) == []


def test_what_a_sweep_does_not_see_any_more_is_no_suspect() -> None:
    suspects: Suspects[str] = Suspects()
    seen(suspects, 0)
    seen(suspects, 0, key="10.0.0.2")
    suspects.keep_only({"10.0.0.2"})
    assert keys(suspects, 30) == ["10.0.0.2"]


def swept(brake: Brake, count: int, total: int, at_s: float, *, since_s: float = 0) -> int:
    """How many of `count`, first seen at `since_s`, the brake lets go after such a sweep."""
    names = [str(number) for number in range(count)]
    brake.sweep(dict.fromkeys(names, since_s), total, at_s)
    return sum(brake.lets(name, count, total) for name in names)


@pytest.mark.parametrize(
    ("count", "total"),
    [
        pytest.param(50, 50, id="all of a few"),
        pytest.param(1000, 10_000, id="a tenth of many"),
        pytest.param(0, 0, id="nothing"),
    ],
)
def test_the_brake_lets_an_ordinary_sweep_go_at_once(count: int, total: int) -> None:
    brake = Brake()
    assert swept(brake, count, total, 0) == count
    assert not brake.is_on


def test_the_brake_holds_all_of_a_sweep_that_would_free_too_much() -> None:
    brake = Brake()
    assert swept(brake, 51, 500, 0) == 0
    assert brake.is_on


def test_the_brake_lets_go_what_a_sweep_half_a_minute_later_still_says() -> None:
    brake = Brake()
    swept(brake, 51, 500, 0)
    assert swept(brake, 51, 500, 29.9) == 0
    assert swept(brake, 51, 500, 30) == 51
    assert not brake.is_on


def test_time_alone_does_not_release_the_brake() -> None:
    brake = Brake()
    swept(brake, 51, 500, 0)
    assert not brake.lets("0", 51, 500)


def test_the_brake_holds_newcomers_of_a_confirmed_sweep_back() -> None:
    brake = Brake()
    seen = {"old": 0.0, **{str(number): 20.0 for number in range(60)}}
    brake.sweep(seen, 500, 30)
    assert [brake.lets(name, len(seen), 500) for name in ("old", "0")] == [True, False]
    assert brake.is_on


def test_the_brake_starts_again_for_what_was_seen_alive_in_between() -> None:
    brake = Brake()
    swept(brake, 51, 500, 0)
    assert swept(brake, 51, 500, 40, since_s=20) == 0


def test_the_brake_asks_for_a_sweep_once_that_would_let_something_go() -> None:
    brake = Brake()
    swept(brake, 51, 500, 10)
    assert not brake.wants_sweep(29.9)
    assert brake.wants_sweep(30)
    swept(brake, 51, 500, 30)
    assert not brake.wants_sweep(40)
