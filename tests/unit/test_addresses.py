"""Interval sets are sets: laws as properties (netaddr and Python's sets are the oracles), the notation as tables."""

import ipaddress
from dataclasses import dataclass

import netaddr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.domain.addresses import (
    COUNT_LIMIT,
    AddressError,
    IntervalSet,
    Version,
    address_of,
    object_name,
    parse_address,
    parse_network,
    to_address,
    version_of,
)
from tests.unit import values

BASE = int(ipaddress.IPv4Address("10.20.0.0"))
spans = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 20)).map(lambda pair: (BASE + pair[0], BASE + sum(pair))), max_size=8
)
sets = spans.map(lambda pairs: IntervalSet.of(4, pairs))


def oracle(of: IntervalSet) -> netaddr.IPSet:
    ranges = [netaddr.IPRange(a, b) for a, b in of.spans]
    return netaddr.IPSet([cidr for each in ranges for cidr in each.cidrs()])


@given(sets, sets)
def test_union_intersection_and_difference_agree_with_netaddr(left: IntervalSet, right: IntervalSet) -> None:
    assert oracle(left | right) == oracle(left) | oracle(right)
    assert oracle(left & right) == oracle(left) & oracle(right)
    assert oracle(left - right) == oracle(left) - oracle(right)


@given(sets, sets)
def test_every_result_is_in_canonical_form(left: IntervalSet, right: IntervalSet) -> None:
    for result in (left | right, left & right, left - right):
        assert IntervalSet.of(4, result.spans) == result


def test_a_list_that_was_read_a_moment_ago_is_not_read_again() -> None:
    texts = [f"10.0.{n}.1-10.0.{n}.9" for n in range(200)]
    assert IntervalSet.parse(4, texts) is IntervalSet.parse(4, list(texts))


@given(sets)
def test_texts_parse_back_to_the_same_set(any_set: IntervalSet) -> None:
    assert IntervalSet.parse(4, any_set.texts()) == any_set


@given(sets)
def test_nth_walks_every_address_in_order_and_no_other(any_set: IntervalSet) -> None:
    walked = [any_set.nth(index) for index in range(any_set.size)]
    assert walked == sorted(set(walked))
    assert all(address in any_set for address in walked)
    with pytest.raises(IndexError):
        any_set.nth(any_set.size)


@given(sets, st.integers(-2, 330))
def test_membership_agrees_with_netaddr(any_set: IntervalSet, offset: int) -> None:
    address = ipaddress.IPv4Address(BASE + offset)
    assert (address in any_set) == (str(address) in oracle(any_set))


@dataclass(frozen=True)
class Twins:
    """The same addresses twice: as an interval set, and naively as a Python set."""

    intervals: IntervalSet
    naive: frozenset[int]
    window: range


# Where the windows lie in which sets are compared address by address: both ends of both families, and somewhere.
WIDTH = 24
WINDOWS: list[tuple[Version, int]] = [(4, 0), (4, BASE), (4, 2**32 - WIDTH), (6, 0), (6, 2**128 - WIDTH)]


@st.composite
def twins(draw: st.DrawFn) -> tuple[Twins, Twins]:
    """Two sets of one family, in one window."""
    version, base = draw(st.sampled_from(WINDOWS))
    window = range(base, base + WIDTH)
    ends = st.tuples(st.integers(base, base + WIDTH - 1), st.integers(base, base + WIDTH - 1))
    pairs = st.lists(ends.map(lambda pair: (min(pair), max(pair))), max_size=5)
    left, right = (
        Twins(IntervalSet.of(version, some), frozenset(each for a, b in some for each in range(a, b + 1)), window)
        for some in (draw(pairs), draw(pairs))
    )
    return left, right


def walked(of: IntervalSet) -> list[int]:
    return [int(of.nth(index)) for index in range(of.size)]


@given(twins())
def test_every_operation_does_what_the_one_on_python_sets_does(pair: tuple[Twins, Twins]) -> None:
    left, right = pair
    assert walked(left.intervals | right.intervals) == sorted(left.naive | right.naive)
    assert walked(left.intervals & right.intervals) == sorted(left.naive & right.naive)
    assert walked(left.intervals - right.intervals) == sorted(left.naive - right.naive)
    assert (left.intervals <= right.intervals) == (left.naive <= right.naive)
    assert (left.intervals == right.intervals) == (left.naive == right.naive)


@given(twins())
def test_size_truth_membership_and_texts_are_those_of_the_python_set(pair: tuple[Twins, Twins]) -> None:
    mine, naive = pair[0].intervals, pair[0].naive
    assert (mine.size, mine.count, bool(mine)) == (len(naive), len(naive), bool(naive))
    for value in pair[0].window:
        assert (to_address(mine.version, value) in mine) == (value in naive)
    assert IntervalSet.parse(mine.version, mine.texts()) == mine
    assert IntervalSet.addresses(mine.version, (to_address(mine.version, value) for value in naive)) == mine


@given(twins())
def test_spans_are_maximal_runs_in_ascending_order(pair: tuple[Twins, Twins]) -> None:
    naive = pair[0].naive
    runs = [
        (first, next(value for value in range(first, first + WIDTH) if value + 1 not in naive))
        for first in sorted(naive)
        if first - 1 not in naive
    ]
    assert pair[0].intervals.spans == tuple(runs)


@given(st.sampled_from(WINDOWS), st.integers(0, WIDTH - 1), st.integers(0, 4))
def test_a_network_holds_every_address_from_its_first_to_its_last(
    window: tuple[Version, int], offset: int, free_bits: int
) -> None:
    version, base = window
    address = to_address(version, base + offset)
    bits = 32 if version == 4 else 128
    network = ipaddress.ip_network(f"{address}/{bits - free_bits}", strict=False)
    assert walked(IntervalSet.network(network)) == [int(each) for each in network]


@pytest.mark.parametrize(
    ("items", "stored", "size"),
    [
        pytest.param(["10.20.0.10-10.20.0.12"], ["10.20.0.10-10.20.0.12"], 3, id="one range"),
        pytest.param(["10.20.0.12", "10.20.0.10-10.20.0.11"], ["10.20.0.10-10.20.0.12"], 3, id="touching items merge"),
        pytest.param(["10.20.0.9", "10.20.0.9"], ["10.20.0.9"], 1, id="a double counts once"),
        pytest.param(["10.20.0.9-10.20.0.9"], ["10.20.0.9"], 1, id="a range of one is an address"),
        pytest.param(["10.20.0.255-10.20.1.1"], ["10.20.0.255-10.20.1.1"], 3, id="broadcast is not special"),
        pytest.param([], [], 0, id="nothing"),
    ],
)
def test_ipv4_items_have_one_stored_form(items: list[str], stored: list[str], size: int) -> None:
    parsed = IntervalSet.parse(4, items)
    assert (parsed.texts(), parsed.size) == (stored, size)


def test_ipv6_items_are_stored_in_rfc_5952_form() -> None:
    assert IntervalSet.parse(6, ["FD00::A", "fd00:0::b"]).texts() == ["fd00::a-fd00::b"]


def test_a_slash_64_is_one_span_and_its_count_is_held_at_int64() -> None:
    whole = IntervalSet.network(parse_network("fd00:7::/64"))
    assert (len(whole.spans), whole.size, whole.count) == (1, 2**64, COUNT_LIMIT)
    assert whole.nth(2**63) == ipaddress.IPv6Address("fd00:7::8000:0:0:0")


@pytest.mark.parametrize(
    ("subnet", "ips_items", "excluded", "stored", "count", "first"),
    [
        ("10.20.0.0/16", "10.20.0.10-10.20.0.12", "", "10.20.0.10-10.20.0.12", 3, "10.20.0.10"),
        ("10.20.0.0/16", "10.20.0.12 10.20.0.10-10.20.0.11", "10.20.0.10", "10.20.0.10-10.20.0.12", 2, "10.20.0.11"),
        ("10.20.0.0/16", "10.20.0.9 10.20.0.9", "", "10.20.0.9", 1, "10.20.0.9"),
        ("10.20.0.0/16", "10.20.0.255-10.20.1.1", "", "10.20.0.255-10.20.1.1", 3, "10.20.0.255"),
        ("10.20.0.0/16", "", "", "", 0, None),
        ("10.20.0.0/16", "10.20.0.1-10.20.0.5", "10.20.0.4-10.20.0.9", "10.20.0.1-10.20.0.5", 3, "10.20.0.1"),
        ("fd00:7::/64", "fd00:7::10-fd00:7::ffff:ffff", "", "fd00:7::10-fd00:7::ffff:ffff", 4294967280, "fd00:7::10"),
        (
            "fd00:7::/64",
            "fd00:7::-fd00:7::ffff:ffff:ffff:ffff",
            "",
            "fd00:7::-fd00:7::ffff:ffff:ffff:ffff",
            9223372036854775807,
            "fd00:7::",
        ),
    ],
    ids=[
        "a range",
        "an exclude",
        "a double",
        "broadcast",
        "nothing",
        "excludes beyond",
        "most of a /64",
        "a whole /64",
    ],
)
def test_a_pool_offers_its_ips_without_its_excludes_and_counts_them_as_int64(
    subnet: str, ips_items: str, excluded: str, stored: str, count: int, first: str | None
) -> None:
    version = version_of(parse_network(subnet))
    ips, excludes = (IntervalSet.parse(version, items.split()) for items in (ips_items, excluded))
    pool = values.pool("a", subnet.partition("/")[0], subnet, ips=ips, excludes=excludes)
    assert (pool.ips.texts(), pool.total.count) == (stored.split(), count)
    assert (str(pool.total.nth(0)) if pool.total else None) == first


def test_what_is_recorded_is_skipped_until_nothing_is_left() -> None:
    offered = IntervalSet.parse(4, ["10.20.0.10-10.20.0.12"]) - IntervalSet.parse(4, ["10.20.0.10"])
    offered -= IntervalSet.addresses(4, [parse_address("10.20.0.11")])
    assert str(offered.nth(0)) == "10.20.0.12"
    assert not offered - IntervalSet.addresses(4, [parse_address("10.20.0.12")])


@pytest.mark.parametrize(
    ("item", "advice"),
    [
        ("10.0.0.9-10.0.0.1", 'reversed: write "10.0.0.1-10.0.0.9"'),
        ("10.0.0.1 - 10.0.0.9", 'blanks: write "10.0.0.1-10.0.0.9"'),
        ("10.0.0.0/24", 'CIDR: write a range "first-last"'),
        ("10.0.0.1-10.0.0.3-10.0.0.9", "one range an item"),
        ("10.0.0.1-fd00::1", "an IPv4 address is needed"),
        ("010.0.0.1", "not an IP address"),
        ("1.2.3", "not an IP address"),
        ("", "not an IP address"),
        ("-10.0.0.1", "not an IP address"),
    ],
)
def test_a_bad_item_is_refused_with_advice(item: str, advice: str) -> None:
    with pytest.raises(AddressError) as refusal:
        IntervalSet.parse(4, [item])
    assert advice in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "advice"), [("fe80::1%eth0", 'zone: write "fe80::1"'), ("::ffff:10.0.0.1", 'write "10.0.0.1"')]
)
def test_zones_and_mapped_addresses_are_refused_with_advice(text: str, advice: str) -> None:
    with pytest.raises(AddressError) as refusal:
        parse_address(text)
    assert advice in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("10.20.0.1/16", 'write "10.20.0.0/16"'),
        ("FD00::/64", 'write "fd00::/64"'),
        ("10.20.0.0", "is not a CIDR"),
        ("fd00::%eth0/64", "has a zone"),
    ],
)
def test_a_network_must_be_in_canonical_form(text: str, advice: str) -> None:
    with pytest.raises(AddressError) as refusal:
        parse_network(text)
    assert advice in str(refusal.value)


@given(st.ip_addresses())
def test_object_names_are_one_to_one_with_addresses(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if isinstance(address, ipaddress.IPv4Address) or address.ipv4_mapped is None:
        assert address_of(object_name(address)) == address


def test_object_names_are_dns_subdomains() -> None:
    assert object_name(parse_address("10.1.2.3")) == "10.1.2.3"
    assert object_name(parse_address("fd00::1")) == "fd00-0-0-0-0-0-0-1"


@pytest.mark.parametrize("name", ["rack7", "010.0.0.1", "fd00--1", "fd00-0-0-0-0-0-0-01", "10.0.0.300"])
def test_other_names_name_no_address(name: str) -> None:
    with pytest.raises(AddressError):
        address_of(name)


def test_families_do_not_mix() -> None:
    with pytest.raises(TypeError):
        IntervalSet(4) | IntervalSet(6)
