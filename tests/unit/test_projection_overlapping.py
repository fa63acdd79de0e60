"""Which pools overlap, and which of them has what they share, over all of them at once."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.domain.addresses import IntervalSet, parse_network, version_of
from allocator.domain.basis import Basis
from allocator.domain.overlap import Extent, pool_clashes
from allocator.domain.overlapping import overlaps
from allocator.domain.pool import Edition, Reservation
from controller.overlaps import Overlaps
from tests.unit import values
from tests.unit.values import NOON, by_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocator.domain.pool import Pool

NETWORKS = ("10.0.0.0/28", "10.0.0.0/29", "10.0.0.8/29", "10.0.0.16/28", "10.0.0.0/27", "fd00::/124", "fd00::/125")


def pool(name: str, network: str, *spans: tuple[int, int], at: int = 0, **changes: Any) -> Pool:
    """`spans` count from the first address of the network, `at` from noon in seconds."""
    subnet = parse_network(network)
    first = int(subnet.network_address)
    ips = IntervalSet.of(version_of(subnet), ((first + low, first + high) for low, high in spans))
    made = values.pool(name, "fd00::1" if subnet.version == 6 else "10.0.0.1", network)
    return replace(made, ips=ips, created=NOON + timedelta(seconds=at), **changes)


def usable(*pools: Pool) -> dict[str, list[str]]:
    basis = Basis(by_name(*pools), ())
    return {each.name: basis.usable(each).texts() for each in pools}


A = pool("a", "10.0.0.0/24", (10, 19), at=1)


@pytest.mark.parametrize(
    ("pools", "expected"),
    [
        pytest.param(
            [A, pool("b", "10.0.0.0/24", (15, 24), at=2)],
            {"a": ["10.0.0.10-10.0.0.19"], "b": ["10.0.0.20-10.0.0.24"]},
            id="the later one begins where the earlier one ends",
        ),
        pytest.param(
            [A, pool("b", "10.0.0.0/24", (15, 24), at=0)],
            {"a": ["10.0.0.10-10.0.0.14"], "b": ["10.0.0.15-10.0.0.24"]},
            id="names play no part",
        ),
        pytest.param(
            [replace(A, edition=Edition("y", 1)), pool("b", "10.0.0.0/24", (15, 24), at=1, edition=Edition("x", 1))],
            {"a": ["10.0.0.10-10.0.0.14"], "b": ["10.0.0.15-10.0.0.24"]},
            id="of the same second the lower uid is the earlier",
        ),
        pytest.param(
            [replace(A, excludes=IntervalSet.parse(4, ["10.0.0.15"])), pool("b", "10.0.0.0/24", (14, 20), at=2)],
            {"a": ["10.0.0.10-10.0.0.14", "10.0.0.16-10.0.0.19"], "b": ["10.0.0.15", "10.0.0.20"]},
            id="what the earlier one excludes it does not have",
        ),
        pytest.param(
            [A, pool("b", "10.0.0.0/25", (10, 30), at=2)],
            {"a": ["10.0.0.10-10.0.0.19"], "b": []},
            id="a later network within has nothing",
        ),
        pytest.param(
            [A, pool("b", "10.0.0.0/16", (20, 300), at=2)],
            {"a": ["10.0.0.10-10.0.0.19"], "b": ["10.0.1.0-10.0.1.44"]},
            id="a later network around has what is outside the whole earlier network",
        ),
        pytest.param(
            [A, pool("b", "10.0.0.0/24", (10, 19), at=2), pool("c", "10.0.0.0/24", (10, 20), at=3)],
            {"a": ["10.0.0.10-10.0.0.19"], "b": [], "c": ["10.0.0.20"]},
            id="of three each has what no earlier one has",
        ),
        pytest.param(
            [replace(A, disabled=True), pool("b", "10.0.0.0/24", (15, 24), at=2)],
            {"a": ["10.0.0.10-10.0.0.19"], "b": ["10.0.0.20-10.0.0.24"]},
            id="a disabled pool keeps its own",
        ),
        pytest.param(
            [replace(A, edition=Edition("uid-a", 2, terminating=True)), pool("b", "10.0.0.0/24", (15, 24), at=2)],
            {"a": ["10.0.0.10-10.0.0.19"], "b": ["10.0.0.20-10.0.0.24"]},
            id="so does one that is being deleted",
        ),
        pytest.param(
            [replace(A, problem="nonsense"), pool("b", "10.0.0.0/24", (15, 24), at=2)],
            {"a": ["10.0.0.10-10.0.0.19"], "b": ["10.0.0.15-10.0.0.24"]},
            id="one that cannot be read has nothing",
        ),
        pytest.param(
            [A, pool("b", "10.0.0.0/24", (15, 24), at=2, unadopted=True)],
            {"a": ["10.0.0.10-10.0.0.14"], "b": ["10.0.0.15-10.0.0.24"]},
            id="what another Spiderpool has handed out nobody else does",
        ),
        pytest.param(
            [A, pool("b", "10.0.1.0/24", (10, 19), at=2), pool("c", "fd00::/64", (10, 19), at=3)],
            {"a": ["10.0.0.10-10.0.0.19"], "b": ["10.0.1.10-10.0.1.19"], "c": ["fd00::a-fd00::13"]},
            id="pools apart",
        ),
    ],
)
def test_the_earlier_pool_has_the_overlap(pools: list[Pool], expected: dict[str, list[str]]) -> None:
    assert usable(*pools) == expected
    assert usable(*reversed(pools)) == expected


def test_the_gateway_of_the_earlier_pool_is_no_address_of_the_later_one() -> None:
    earlier = replace(A, gateway=A.subnet[10])
    assert usable(earlier, pool("b", "10.0.0.0/24", (10, 20), at=2))["b"] == ["10.0.0.20"]


def test_a_reservation_takes_from_both() -> None:
    later = pool("b", "10.0.0.0/24", (15, 24), at=2)
    reserved = Reservation("r", Edition("r", 1), IntervalSet.parse(4, ["10.0.0.19-10.0.0.20"]))
    basis = Basis(by_name(A, later), [reserved])
    assert basis.usable(A).texts() == ["10.0.0.10-10.0.0.18"]
    assert basis.usable(later).texts() == ["10.0.0.21-10.0.0.24"]


def test_the_window_of_a_pool_begins_with_what_is_left_of_it() -> None:
    later = pool("b", "10.0.0.0/24", (15, 24), at=2)
    assert Basis(by_name(A, later), (), limit=2).usable(later).texts() == ["10.0.0.20-10.0.0.21"]


SPANS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)).map(lambda pair: (min(pair), max(pair))), max_size=3)
DRAWN = st.lists(
    st.tuples(st.sampled_from(NETWORKS), SPANS, SPANS, st.integers(0, 2), st.sampled_from(["", "disabled", "problem"])),
    max_size=7,
)


@st.composite
def clusters(draw: st.DrawFn) -> list[Pool]:
    pools = []
    for number, (network, spans, excludes, at, state) in enumerate(draw(DRAWN)):
        made = pool(f"p{number}", network, *spans, at=at)
        made = replace(made, excludes=pool("x", network, *excludes).ips, disabled=state == "disabled")
        pools.append(replace(made, problem="nonsense" if state == "problem" else ""))
    return pools


def one_by_one(pools: Sequence[Pool]) -> dict[str, set[str]]:
    """The rule again, address by address: the oracle."""
    found: dict[str, set[str]] = {}
    ordered = sorted((each for each in pools if not each.problem), key=lambda each: (each.created, each.edition.uid))
    for index, mine in enumerate(ordered):
        earlier = ordered[:index]
        found[mine.name] = {
            str(address)
            for address in mine.subnet
            if address in mine.ips and address not in mine.excludes
            if not any(other.subnet != mine.subnet and address in other.subnet for other in earlier)
            if not any(other.subnet == mine.subnet and address in other.total for other in earlier)
        }
    return found


def members(pools: Sequence[Pool]) -> dict[str, set[str]]:
    basis = Basis(by_name(*pools), ())
    return {
        each.name: {str(address) for address in each.subnet if address in basis.usable(each)}
        for each in pools
        if not each.problem
    }


@given(clusters())
def test_each_pool_hands_out_what_the_rule_leaves_it_and_no_address_is_of_two(pools: list[Pool]) -> None:
    found = members(pools)
    assert found == one_by_one(pools)
    assert sum(map(len, found.values())) == len(set().union(*found.values()))


@given(clusters(), st.data())
def test_a_pool_that_goes_takes_nothing_from_another(pools: list[Pool], data: st.DataObject) -> None:
    if not pools:
        return
    gone = data.draw(st.sampled_from(pools))
    before, after = members(pools), members([each for each in pools if each is not gone])
    assert all(before[name] <= left for name, left in after.items())


@given(clusters())
def test_it_finds_what_the_webhooks_rule_finds_pair_by_pair(pools: list[Pool]) -> None:
    pools = [each for each in pools if not each.problem]
    extents = [Extent("SpiderIPPool", each.name, each.edition.uid, each.subnet, each.total) for each in pools]
    slowly = {each.name: {clash.neighbour.name for clash in pool_clashes(each, extents)} for each in extents}
    found = {name: {*overlap.earlier, *overlap.later} for name, overlap in overlaps(pools).items()}
    assert found == {name: others for name, others in slowly.items() if others}


@pytest.mark.parametrize(
    "pools",
    [
        pytest.param(
            [pool(f"p{number}", "10.0.0.0/8", (number * 16, number * 16 + 15)) for number in range(5000)],
            id="in one network",
        ),
        pytest.param(
            [pool(f"p{number}", f"10.{number // 256}.{number % 256}.0/24", (1, 9)) for number in range(5000)],
            id="in networks of their own",
        ),
    ],
)
def test_thousands_of_pools_side_by_side_take_no_time_to_speak_of(pools: list[Pool]) -> None:
    began = time.monotonic()
    assert overlaps(pools) == {}
    assert time.monotonic() - began < 1


def test_a_network_around_thousands_of_others_takes_no_time_to_speak_of() -> None:
    pools = [pool(f"p{number}", f"10.{number // 256}.{number % 256}.0/24", (1, 9)) for number in range(5000)]
    around = pool("around", "10.0.0.0/8", (0, 2**24 - 1), at=1)
    began = time.monotonic()
    assert overlaps([around, *pools])["around"].ceded.size == 5000 * 256
    assert time.monotonic() - began < 2


def raw_pool(name: str, items: list[str], generation: int = 1, subnet: str = "10.0.0.0/24") -> dict[str, object]:
    meta = {"name": name, "uid": f"uid-{name}", "generation": generation, "creationTimestamp": "2026-11-22T12:00:00Z"}
    return {"kind": "SpiderIPPool", "metadata": meta, "spec": {"subnet": subnet, "ips": items}}


def others_of(overlaps: Overlaps, name: str) -> tuple[str, ...]:
    found = overlaps.of(name)
    return () if found is None else (*found.earlier, *found.later)


def test_both_pools_are_told_when_an_overlap_begins_and_when_it_ends() -> None:
    overlaps = Overlaps()
    overlaps.note("a", raw_pool("a", ["10.0.0.1-10.0.0.9"]))
    overlaps.note("b", raw_pool("b", ["10.0.0.9"]))
    overlaps.note("c", raw_pool("c", ["10.0.0.10"]))
    assert overlaps.bring_up_to_date() == {"a", "b"}
    assert [others_of(overlaps, name) for name in "abc"] == [("b",), ("a",), ()]
    assert overlaps.bring_up_to_date() == frozenset()
    overlaps.note("a", raw_pool("a", ["10.0.0.1-10.0.0.8"], generation=2))
    assert overlaps.bring_up_to_date() == {"a", "b"}
    assert overlaps.of("b") is None


def test_a_pool_is_told_when_the_overlap_moves() -> None:
    overlaps = Overlaps()
    overlaps.note("a", raw_pool("a", ["10.0.0.1-10.0.0.9"]))
    overlaps.note("b", raw_pool("b", ["10.0.0.8-10.0.0.12"]))
    overlaps.bring_up_to_date()
    overlaps.note("a", raw_pool("a", ["10.0.0.1-10.0.0.10"], generation=2))
    assert overlaps.bring_up_to_date() == {"b"}


def test_a_pool_comes_first_while_it_carries_another_spiderpools_records() -> None:
    overlaps = Overlaps()
    adopted = raw_pool("b", ["10.0.0.9"])
    overlaps.note("a", raw_pool("a", ["10.0.0.1-10.0.0.9"]))
    overlaps.note("b", {**adopted, "status": {"allocatedIPs": "{}"}})
    overlaps.bring_up_to_date()
    assert (found := overlaps.of("a")) is not None
    assert found.ceded.texts() == ["10.0.0.9"]
    overlaps.note("b", adopted)
    assert overlaps.bring_up_to_date() == {"a", "b"}


@pytest.mark.parametrize("after", [None, raw_pool("b", ["10.0.0.9"], generation=2, subnet="nonsense")])
def test_a_pool_that_went_or_cannot_be_read_any_more_overlaps_nothing(after: dict[str, object] | None) -> None:
    overlaps = Overlaps()
    for name in ("a", "b"):
        overlaps.note(name, raw_pool(name, ["10.0.0.9"]))
    overlaps.bring_up_to_date()
    overlaps.note("b", after)
    assert "a" in overlaps.bring_up_to_date()
    assert overlaps.of("a") is None
