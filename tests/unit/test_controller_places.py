"""The index of records by address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from allocator.domain.addresses import IntervalSet, to_address
from controller.places import Places
from tests.unit import values

if TYPE_CHECKING:
    from allocator.domain.record import Record

FIRST = 0x0A140000
SPANS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=4)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans())), SPANS)
def test_those_in_a_range_are_found_in_order_after_any_coming_and_going(
    steps: list[tuple[int, bool]], spans: list[tuple[int, int]]
) -> None:
    places, pod = Places(), values.pod()
    standing: dict[int, Record] = {}
    for offset, comes in steps:
        record = values.record(str(to_address(4, FIRST + offset)), pod, pool=f"p{len(standing)}")
        if comes:
            places.put(record)
            standing[FIRST + offset] = record
        elif FIRST + offset in standing:
            places.drop(standing.pop(FIRST + offset))
    asked = IntervalSet.of(4, ((FIRST + first, FIRST + first + more) for first, more in spans))
    assert [*places.within(asked)] == [standing[value] for value in sorted(standing) if to_address(4, value) in asked]
    assert [*places.within(IntervalSet(6, ((0, 2**128 - 1),)))] == []
