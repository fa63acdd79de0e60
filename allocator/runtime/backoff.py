"""How long to wait before the next try."""

import itertools
from collections.abc import Iterator
from typing import Protocol


class Random(Protocol):
    """The part of `random.Random` that jitter needs."""

    def uniform(self, a: float, b: float, /) -> float: ...


def delays(*, base_s: float, cap_s: float, rng: Random) -> Iterator[float]:
    """Seconds to wait before each next try, without end: full jitter over an exponential bound.

    The n-th delay (0-based) is uniform between 0 and min(cap_s, base_s * 2**n). Full jitter, not a jittered
    tail, because clients that failed at the same moment (an API server restart) must not come back together.
    ValueError unless 0 < base_s <= cap_s.
    """
    if not 0 < base_s <= cap_s:
        raise ValueError(f"back-off needs 0 < base_s <= cap_s, not base_s={base_s} cap_s={cap_s}")
    return _delays(base_s, cap_s, rng)


def _delays(base_s: float, cap_s: float, rng: Random) -> Iterator[float]:
    bound = base_s
    for _ in itertools.count():
        yield rng.uniform(0.0, bound)
        bound = min(cap_s, bound * 2)
