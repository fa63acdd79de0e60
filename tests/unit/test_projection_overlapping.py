"""Which pools overlap, over all of them at once: as the webhook's rule finds it for each."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.domain.addresses import IntervalSet, parse_network, version_of
from allocator.domain.overlap import Extent, pool_clashes
from allocator.domain.overlapping import overlapping
from controller.overlaps import Overlaps

NETWORKS = ("10.0.0.0/28", "10.0.0.0/29", "10.0.0.8/29", "10.0.0.16/28", "10.0.0.0/27", "fd00::/124", "fd00::/125")


def extent(name: str, network: str, spans: list[tuple[int, int]]) -> Extent:
    """`spans` count from the first address of the network."""
    subnet = parse_network(network)
    first = int(subnet.network_address)
    ips = IntervalSet.of(version_of(subnet), ((first + low, first + high) for low, high in spans))
    return Extent("SpiderIPPool", name, f"uid-{name}", subnet, ips)


SPANS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)).map(lambda pair: (min(pair), max(pair))), max_size=3)


@given(st.lists(st.tuples(st.sampled_from(NETWORKS), SPANS), max_size=8))
def test_it_finds_what_the_rule_finds_pair_by_pair(drawn: list[tuple[str, list[tuple[int, int]]]]) -> None:
    pools = [extent(f"p{number}", network, spans) for number, (network, spans) in enumerate(drawn)]
    slowly = {pool.name: tuple(sorted(clash.neighbour.name for clash in pool_clashes(pool, pools))) for pool in pools}
    assert overlapping(pools) == {name: others for name, others in slowly.items() if others}


def test_thousands_of_pools_side_by_side_take_no_time_to_speak_of() -> None:
    pools = [extent(f"p{number}", "10.0.0.0/8", [(number * 16, number * 16 + 15)]) for number in range(5000)]
    began = time.monotonic()
    assert overlapping(pools) == {}
    assert time.monotonic() - began < 1


def raw_pool(name: str, items: list[str], generation: int = 1, subnet: str = "10.0.0.0/24") -> dict[str, object]:
    meta = {"name": name, "uid": f"uid-{name}", "generation": generation}
    return {"kind": "SpiderIPPool", "metadata": meta, "spec": {"subnet": subnet, "ips": items}}


def test_both_pools_are_told_when_an_overlap_begins_and_when_it_ends() -> None:
    overlaps = Overlaps()
    overlaps.note("a", raw_pool("a", ["10.0.0.1-10.0.0.9"]))
    overlaps.note("b", raw_pool("b", ["10.0.0.9"]))
    overlaps.note("c", raw_pool("c", ["10.0.0.10"]))
    assert overlaps.bring_up_to_date() == {"a", "b"}
    assert (overlaps.of("a"), overlaps.of("b"), overlaps.of("c")) == (("b",), ("a",), ())
    assert overlaps.bring_up_to_date() == frozenset()
    overlaps.note("a", raw_pool("a", ["10.0.0.1-10.0.0.8"], generation=2))
    assert overlaps.bring_up_to_date() == {"a", "b"}
    assert overlaps.of("b") == ()


@pytest.mark.parametrize("after", [None, raw_pool("b", ["10.0.0.9"], generation=2, subnet="nonsense")])
def test_a_pool_that_went_or_cannot_be_read_any_more_overlaps_nothing(after: dict[str, object] | None) -> None:
    overlaps = Overlaps()
    for name in ("a", "b"):
        overlaps.note(name, raw_pool(name, ["10.0.0.9"]))
    overlaps.bring_up_to_date()
    overlaps.note("b", after)
    assert "a" in overlaps.bring_up_to_date()
    assert overlaps.of("a") == ()
