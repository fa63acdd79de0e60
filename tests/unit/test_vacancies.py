"""Vacant addresses as spans that change in place, held to a set of numbers."""

from hypothesis import given
from hypothesis import strategies as st

from allocator.domain.addresses import IntervalSet
from allocator.vacancies import Vacancies

SMALL = st.integers(0, 30)
MOVES = st.lists(st.tuples(st.booleans(), SMALL), max_size=40)


@given(st.sets(SMALL), MOVES, SMALL)
def test_vacancies_behave_as_a_set_of_numbers(start: set[int], moves: list[tuple[bool, int]], asked: int) -> None:
    vacancies = Vacancies(IntervalSet.of(4, ((value, value) for value in start)))
    model = set(start)
    for gives, value in moves:
        (vacancies.give if gives else vacancies.take)(value)
        (model.add if gives else model.discard)(value)
    assert vacancies.size == len(model)
    assert [vacancies.nth(index) for index in range(len(model))] == sorted(model)
    assert [value for value in range(31) if value in vacancies] == sorted(model)
    if model:
        assert vacancies.next_from(asked) == min(model, key=lambda value: (value < asked, value))


@given(st.sets(SMALL), SMALL)
def test_the_head_of_a_set_is_its_lowest_addresses(values: set[int], count: int) -> None:
    whole = IntervalSet.of(4, ((value, value) for value in values))
    head = IntervalSet.of(4, ((value, value) for value in sorted(values)[:count]))
    assert whole.head(count) == head


def test_a_whole_ipv6_network_costs_no_more_than_one_address() -> None:
    vacancies = Vacancies(IntervalSet(6, ((0, 2**64 - 1),)))
    vacancies.take(5)
    assert vacancies.next_from(5) == 6
    assert vacancies.nth(2**64 - 2) == 2**64 - 1
