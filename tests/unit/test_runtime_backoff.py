import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.runtime.backoff import delays


class Highest:
    def uniform(self, a: float, b: float, /) -> float:
        return max(a, b)


def test_the_bound_doubles_up_to_the_cap() -> None:
    assert list(itertools.islice(delays(base_s=1, cap_s=30, rng=Highest()), 7)) == [1, 2, 4, 8, 16, 30, 30]


@given(st.floats(0.01, 10), st.floats(10, 100), st.integers())
def test_every_delay_lies_between_zero_and_its_bound(base_s: float, cap_s: float, seed: int) -> None:
    found = list(itertools.islice(delays(base_s=base_s, cap_s=cap_s, rng=random.Random(seed)), 20))  # noqa: S311
    assert all(0 <= delay <= min(cap_s, base_s * 2**turn) for turn, delay in enumerate(found))


def test_a_long_outage_does_not_overflow_the_bound() -> None:
    last = next(itertools.islice(delays(base_s=1, cap_s=30, rng=Highest()), 5000, None))
    assert last == 30


@pytest.mark.parametrize(("base_s", "cap_s"), [(0, 1), (-1, 1), (2, 1)])
def test_bounds_that_make_no_sense_are_refused_before_the_first_delay(base_s: float, cap_s: float) -> None:
    with pytest.raises(ValueError, match="base_s"):
        delays(base_s=base_s, cap_s=cap_s, rng=Highest())
