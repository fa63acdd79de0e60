"""The second half of the seeds, and whether the simulation can see: without a safeguard it must fail."""

from __future__ import annotations

import pytest

from tests.simulation import runs
from tests.simulation.weakened import SAFEGUARDS

# Far more than it takes to miss any of them, also when the product draws otherwise: it ends with the first failure.
SEARCHED = 2000


@pytest.mark.parametrize(("first", "last"), runs.chunks(1))
def test_the_invariants_hold_in_any_weather(first: int, last: int) -> None:
    runs.must_hold(first, last)


@pytest.mark.parametrize("name", SAFEGUARDS)
def test_a_missing_safeguard_is_noticed(name: str) -> None:
    _, numbers = SAFEGUARDS[name]
    found = runs.failures(runs.run("--seeds", f"0:{SEARCHED}", "--without", name, "--first"))
    assert {number for _, number in found} & numbers, found
