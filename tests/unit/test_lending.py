"""What subnets lend: the text of the accounts, who gets how much, and how one pool grows and shrinks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.domain.addresses import IntervalSet
from allocator.domain.lending import (
    Holding,
    Loan,
    Resizing,
    Shares,
    by_hand,
    decode_accounts,
    encode_accounts,
    lent,
    resized,
    shares,
    told,
    total,
)

FIRST = 0x0A140201  # 10.20.2.1
NOTHING = IntervalSet(4)


def ips(*lasts: int | tuple[int, int]) -> IntervalSet:
    """10.20.2.x, single or from-to."""
    ends = [each if isinstance(each, tuple) else (each, each) for each in lasts]
    return IntervalSet.of(4, [(FIRST - 1 + first, FIRST - 1 + last) for first, last in ends])


def holding(recorded: IntervalSet, **changes: Any) -> Holding:
    """Of the subnet dc1: what it has it offers, and nobody uses it."""
    whole = Holding(pool="a", subnet="dc1", recorded=recorded, offered=recorded, in_use=NOTHING, is_observed=True)
    return replace(whole, **changes)


SETS = st.sets(st.integers(1, 20)).map(lambda lasts: ips(*lasts))


# The text


def test_the_accounts_are_read_as_the_original_writes_them() -> None:
    text = '{"hand":{"ips":["10.20.2.18-10.20.2.20"]},"auto4":{"ips":["10.20.2.1"],"application":"apps_v1_Job_a_b"}}'
    assert decode_accounts({"controlledIPPools": text}, 4) == {
        "hand": Loan(ips((18, 20))),
        "auto4": Loan(ips(1), "apps_v1_Job_a_b"),
    }


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="no text"),
        pytest.param("", id="an empty one"),
        pytest.param("{", id="half of one"),
        pytest.param("[]", id="a list"),
        pytest.param('{"a": 5}', id="an entry that is none"),
        pytest.param('{"a": {"ips": ["10.20.2"]}}', id="no addresses"),
        pytest.param('{"a": {"ips": ["fd00::1"]}}', id="of the other family"),
    ],
)
def test_what_cannot_be_read_is_left_out(text: str | None) -> None:
    assert decode_accounts({"controlledIPPools": text}, 4) == {}


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.tuples(SETS, st.sampled_from(["", "apps_v1_Job_a_b"]))))
def test_accounts_that_are_written_are_read_again(entries: dict[str, tuple[IntervalSet, str]]) -> None:
    accounts = {name: Loan(*entry) for name, entry in entries.items()}
    text = encode_accounts(accounts)
    assert (text is None) == (not accounts)
    assert decode_accounts({"controlledIPPools": text}, 4) == accounts


def test_what_is_lent_is_what_all_have() -> None:
    accounts = {"a": Loan(ips((1, 3))), "b": Loan(ips(4, 9))}
    assert lent(accounts, 4) == ips((1, 4), 9)
    assert total(accounts.values()) == 5


# How much


TWO = [holding(ips((1, 3)), pool="a"), holding(ips((11, 12)), pool="b", subnet="dc2")]


@pytest.mark.parametrize(
    ("size", "holdings", "room", "wanted"),
    [
        pytest.param(3, [], {"dc1": 9}, Shares(birth="dc1", rest=3), id="born where there is room"),
        pytest.param(3, [], {"dc1": 2, "dc2": 3}, Shares(birth="dc2", rest=3), id="born in the second"),
        pytest.param(3, [], {"dc1": 2, "dc2": 2}, Shares(missing=3), id="not half here and half there"),
        pytest.param(3, [], {}, Shares(missing=3), id="no subnet"),
        pytest.param(0, [], {"dc1": 9}, Shares(), id="no pool for nobody"),
        pytest.param(5, TWO, {}, Shares({"a": 3, "b": 2}), id="as it is"),
        pytest.param(4, TWO, {}, Shares({"a": 3, "b": 1}), id="the last gives back first"),
        pytest.param(2, TWO, {}, Shares({"a": 2, "b": 0}), id="then the one before"),
        pytest.param(0, TWO, {}, Shares({"a": 0, "b": 0}), id="all of it"),
        pytest.param(7, TWO, {"dc1": 2, "dc2": 9}, Shares({"a": 5, "b": 2}), id="the first grows where it can"),
        pytest.param(7, TWO, {"dc1": 1, "dc2": 9}, Shares({"a": 3, "b": 4}), id="the second where it cannot"),
        pytest.param(7, TWO[:1], {"dc1": 1, "dc2": 9}, Shares({"a": 3}, "dc2", 4), id="a second pool"),
        pytest.param(7, TWO, {"dc1": 1, "dc2": 1}, Shares({"a": 3, "b": 2}, missing=2), id="too much: as it was"),
    ],
)
def test_a_size_is_shared_out(size: int, holdings: list[Holding], room: dict[str, int], wanted: Shares) -> None:
    assert shares(size, holdings, room) == wanted


@given(
    st.integers(0, 12),
    st.lists(st.integers(0, 5), max_size=3),
    st.dictionaries(st.sampled_from(["dc0", "dc1", "dc2"]), st.integers(0, 8)),
)
def test_shares_make_up_the_size_or_nothing_moves(size: int, has: list[int], room: dict[str, int]) -> None:
    holdings = [
        holding(ips((1, count)) if count else NOTHING, pool=f"p{nth}", subnet=f"dc{nth}")
        for nth, count in enumerate(has)
    ]
    found = shares(size, holdings, room)
    if found.missing:
        assert found.by_pool == {each.pool: each.recorded.size for each in holdings}
        assert found.missing == size - sum(has)
        assert all(free < found.missing for free in room.values())
    else:
        assert sum(found.by_pool.values()) + found.rest == size
        assert found.birth is None or room[found.birth] >= found.rest


# One pool


@pytest.mark.parametrize(
    ("before", "share", "free", "after"),
    [
        pytest.param(
            holding(NOTHING), 3, ips((1, 20)), Resizing(ips((1, 3)), ips((1, 3))), id="the lowest ones"
        ),
        pytest.param(
            holding(ips((1, 3))), 5, ips(5, (7, 9)), Resizing(ips((1, 3), 5, 7), ips((1, 3), 5, 7)), id="grows"
        ),
        pytest.param(holding(ips((1, 3))), 5, ips(5), Resizing(ips((1, 3), 5), ips((1, 3), 5)), id="as far as it goes"),
        pytest.param(holding(ips((1, 3))), 3, ips((4, 9)), Resizing(ips((1, 3)), ips((1, 3))), id="stays"),
        pytest.param(
            holding(ips((1, 5)), in_use=ips((1, 3), 5)), 3, NOTHING, Resizing(ips((1, 5)), ips((1, 5))),
            id="keeps all while too many are in use",
        ),
        pytest.param(
            holding(ips((1, 5)), in_use=ips(3, 5)), 3, NOTHING, Resizing(ips((1, 5)), ips((3, 5))),
            id="offers the lowest idle ones no more",
        ),
        pytest.param(
            holding(ips((1, 5)), offered=ips((3, 5)), is_observed=False),
            3, NOTHING, Resizing(ips((1, 5)), ips((3, 5))),
            id="and waits until that has been seen",
        ),
        pytest.param(
            holding(ips((1, 5)), offered=ips((3, 5))), 3, NOTHING, Resizing(ips((1, 5)), ips((3, 5)), ips((3, 5))),
            id="before it gives them back",
        ),
        pytest.param(
            holding(ips((1, 5)), offered=ips(1, 3, 5)), 3, NOTHING, Resizing(ips((1, 5)), ips(1, 3, 5), ips(1, 3, 5)),
            id="goes on with what was begun",
        ),
        pytest.param(
            holding(ips((1, 5)), offered=ips(3, 5)), 5, NOTHING, Resizing(ips((1, 5)), ips((1, 5))),
            id="takes up again what was not given back",
        ),
        pytest.param(holding(ips((1, 3))), 0, NOTHING, Resizing(ips((1, 3)), NOTHING), id="all of it"),
    ],
)  # fmt: skip
def test_a_pool_takes_a_step(before: Holding, share: int, free: IntervalSet, after: Resizing) -> None:
    assert resized(before, share, free, ips((1, 20))) == after


def test_what_the_subnet_has_no_longer_is_not_offered_and_given_back_once_that_was_seen() -> None:
    before = holding(ips((1, 5)))
    first = resized(before, 5, NOTHING, ips((1, 3)))
    assert first == Resizing(ips((1, 5)), ips((1, 3)))
    assert resized(replace(before, offered=first.offered), 5, NOTHING, ips((1, 3))).settled == ips((1, 3))


@st.composite
def holdings(draw: st.DrawFn) -> Holding:
    recorded = draw(SETS)
    return holding(
        recorded, offered=draw(SETS) & recorded, in_use=draw(SETS) & recorded, is_observed=draw(st.booleans())
    )


@given(holdings(), SETS, SETS, st.integers(0, 20))
def test_a_step_takes_nothing_from_others_and_nothing_from_pods(
    before: Holding, good: IntervalSet, free: IntervalSet, share: int
) -> None:
    recorded = before.recorded
    free = (free & good) - recorded
    step = resized(before, share, free, good)
    assert step.offered <= step.recorded & good
    assert recorded <= step.recorded <= recorded | free
    assert before.in_use & good <= step.offered
    if step.settled is not None:
        assert before.is_observed
        assert step.settled == step.offered == before.offered


def test_a_pool_made_by_hand_has_what_the_subnet_offers_and_no_other_has() -> None:
    assert by_hand(ips((15, 25)), ips((1, 20)), ips(16)) == ips(15, (17, 20))


def test_who_gets_nothing_is_told_what_is_missing_and_what_to_do() -> None:
    text = told(3, 5, ["dc1", "dc2"])
    assert text.startswith("3 of 5 addresses are missing")
    assert "(dc1, dc2)" in text
    assert "add addresses to spec.ips" in text
