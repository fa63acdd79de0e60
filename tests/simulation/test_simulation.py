"""Whatever the weather: the invariants of DESIGN.md hold at every step, and its bounds once all is calm.

The first half of the seeds; test_simulation_more.py has the second. SIMULATION_SEEDS says how many there are.
"""

from __future__ import annotations

import pytest

from tests.simulation import runs


@pytest.mark.parametrize(("first", "last"), runs.chunks(0))
def test_the_invariants_hold_in_any_weather(first: int, last: int) -> None:
    runs.must_hold(first, last)


@pytest.mark.parametrize("seed", [3, 8, 17, 19])
def test_a_seed_tells_the_same_story_again(seed: int) -> None:
    story = runs.run("--seed", str(seed), "--trace")
    told, _, figures = story.rstrip().rpartition("\n")
    again, _, _ = runs.run("--seed", str(seed), "--trace").rstrip().rpartition("\n")
    assert told.count("\n") > 100, figures
    assert again == told
