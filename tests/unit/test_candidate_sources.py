"""Where the list of pools comes from, and what patterns and the short form in it stand for."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest

from allocator.domain import errors
from allocator.domain.candidates import Subject, doubtful, listed, sift, summary
from tests.unit import values
from tests.unit.values import by_name, four, six

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocator.domain.annotations import PoolNames
    from allocator.domain.pool import Pool

IPPOOL = "ipam.spidernet.io/ippool"
IPPOOLS = "ipam.spidernet.io/ippools"
DEFAULT_V4 = "ipam.spidernet.io/default-ipv4-ippool"

FOURS = by_name(four("rack7-b"), four("rack7-a"), four("rack9"), six("rack7-six"))


def names_of(
    annotations: Mapping[str, str],
    pools: Mapping[str, Pool] = FOURS,
    *,
    namespace: Mapping[str, str] | None = None,
    interface: str = "eth0",
    **request: Any,
) -> tuple[PoolNames, ...]:
    pod = values.pod(annotations=annotations)
    around = replace(values.NOWHERE, namespace_annotations=namespace or {})
    return listed(replace(values.request(pod, interface=interface), **request), pod, around, pools)


SOURCES: list[tuple[str, dict[str, Any]]] = [
    ("annotation ipam.spidernet.io/ippools", {"annotations": {IPPOOLS: '[{"ipv4": ["one"]}]'}}),
    ("annotation ipam.spidernet.io/ippool", {"annotations": {IPPOOL: '{"ipv4": ["two"]}'}}),
    (f"namespace annotation {DEFAULT_V4}", {"namespace": {DEFAULT_V4: '["three"]'}}),
    ("CNI configuration", {"default_ipv4_pools": ("four",)}),
    ("cluster default pools", {}),
]


@pytest.mark.parametrize("first", range(len(SOURCES)), ids=[source for source, _ in SOURCES])
def test_the_first_source_that_says_anything_is_final(first: int) -> None:
    given: dict[str, Any] = {"annotations": {}, "pools": by_name(four("five", default=True), four("six"))}
    for _, asked in reversed(SOURCES[first:]):
        given["annotations"] = {**given["annotations"], **asked.get("annotations", {})}
        given |= {key: value for key, value in asked.items() if key != "annotations"}
    (names,) = names_of(**given)
    assert (names.source, names.by_version) == (
        SOURCES[first][0],
        {4: (["one", "two", "three", "four", "five"][first],)},
    )


def test_a_source_that_lists_one_family_gives_no_other_even_with_defaults() -> None:
    pools = by_name(four("a"), six("b", default=True))
    (names,) = names_of({IPPOOL: '{"ipv4": ["a"]}'}, pools, default_ipv6_pools=("b",))
    assert names.by_version == {4: ("a",)}


@pytest.mark.parametrize("annotation", ["{}", '{"ipv4": []}', '{"ipv4": null, "ipv6": []}'])
def test_an_annotation_without_a_pool_is_refused_and_not_passed_over(annotation: str) -> None:
    with pytest.raises(errors.Invalid, match="ippool lists no pool"):
        names_of({IPPOOL: annotation}, default_ipv4_pools=("rack9",))


def test_subnet_annotations_mean_nothing_while_the_feature_is_off() -> None:
    (names,) = names_of({"ipam.spidernet.io/subnet": '{"ipv4": ["s"]}', IPPOOL: '{"ipv4": ["rack9"]}'})
    assert names.by_version == {4: ("rack9",)}


def test_a_pool_twice_in_the_cni_configuration_is_refused_by_the_settings_name() -> None:
    with pytest.raises(errors.Invalid, match='default_ipv6_ippool of the CNI configuration lists the pool "a" twice'):
        names_of({}, default_ipv6_pools=("a", "a"))


def test_the_clusters_default_pools_come_in_alphabetical_order_by_family() -> None:
    pools = by_name(four("b", default=True), six("c", default=True), four("a", default=True), four("d"))
    (names,) = names_of({}, pools)
    assert names.by_version == {4: ("a", "b"), 6: ("c",)}


def test_without_any_source_the_refusal_says_where_to_name_a_pool() -> None:
    with pytest.raises(errors.NoPool, match=r"annotation ipam\.spidernet\.io/ippool .* spec\.default: true"):
        names_of({})


def test_the_clean_gateway_of_the_configuration_is_for_all_sources_but_ippools() -> None:
    pools = by_name(four("rack9", default=True))
    for given, namespace in (({IPPOOL: "rack9"}, {}), ({}, {DEFAULT_V4: '["rack9"]'}), ({}, {})):
        assert names_of(given, pools, namespace=namespace, clean_gateway=True)[0].clean_gateway
    assert not names_of({IPPOOLS: '[{"ipv4": ["rack9"]}]'}, pools, clean_gateway=True)[0].clean_gateway


# Patterns and the short form


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"annotations": {IPPOOLS: '[{"ipv4": ["rack9", "rack7*"]}]'}}, id="ippools"),
        pytest.param({"annotations": {IPPOOL: '{"ipv4": ["rack9", "rack7*"]}'}}, id="ippool"),
        pytest.param({"annotations": {}, "namespace": {DEFAULT_V4: '["rack9", "rack7*"]'}}, id="namespace"),
        pytest.param({"annotations": {}, "default_ipv4_pools": ("rack9", "rack7*")}, id="configuration"),
    ],
)
def test_a_pattern_becomes_the_pools_of_its_family_in_its_place(given: dict[str, Any]) -> None:
    (names,) = names_of(**given)
    assert names.by_version == {4: ("rack9", "rack7-a", "rack7-b")}


@pytest.mark.parametrize("pools", [by_name(*order) for order in permutations(FOURS.values())])
def test_a_pattern_gives_the_same_order_whatever_the_cache_holds_first(pools: dict[str, Pool]) -> None:
    (names,) = names_of({IPPOOL: '{"ipv4": ["*"], "ipv6": ["*"]}'}, pools)
    assert names.by_version == {4: ("rack7-a", "rack7-b", "rack9"), 6: ("rack7-six",)}


def test_a_malformed_pattern_is_refused_with_its_annotation() -> None:
    with pytest.raises(errors.Invalid, match=r'ipam\.spidernet\.io/ippool at ipv4 is malformed: "rack\[" is no pat'):
        names_of({IPPOOL: '{"ipv4": ["rack["]}'})


def test_a_pattern_without_a_match_is_told_and_does_not_take_its_family_away() -> None:
    (names,) = names_of({IPPOOL: '{"ipv4": ["rack9", "hall*"], "ipv6": ["hall*"]}'})
    assert names.by_version == {4: ("rack9", "hall*"), 6: ("hall*",)}
    subject = Subject(values.pod(), "eth0", 6)
    found, refusals = sift(
        names.by_version[6], FOURS, subject, values.NOWHERE, usable=lambda pool: pool.ips, overlap=lambda _: None
    )
    assert (found, summary(refusals)) == ((), "hall*: no IPv6 SpiderIPPool has such a name")
    assert doubtful(refusals) == ()


def test_the_short_form_takes_the_families_from_the_pools_and_keeps_the_order() -> None:
    (names,) = names_of({IPPOOL: "rack9, rack7-six, rack7-a"})
    assert names.by_version == {4: ("rack9", "rack7-a"), 6: ("rack7-six",)}


def test_a_pattern_in_the_short_form_is_for_both_families() -> None:
    (names,) = names_of({IPPOOL: "rack7*"})
    assert names.by_version == {4: ("rack7-a", "rack7-b"), 6: ("rack7-six",)}


@pytest.mark.parametrize(
    ("text", "told", "to_read_again"),
    [
        pytest.param("rack9,hall", "hall: there is no SpiderIPPool of this name", ("hall",), id="a name"),
        pytest.param("rack9,hall*", "hall*: no SpiderIPPool has such a name", (), id="a pattern"),
    ],
)
def test_an_unknown_name_in_the_short_form_is_refused_since_its_family_is_unknown(
    text: str, told: str, to_read_again: tuple[str, ...]
) -> None:
    with pytest.raises(errors.NoPool) as refusal:
        names_of({IPPOOL: text})
    assert str(refusal.value) == f"the annotation ipam.spidernet.io/ippool cannot be followed: {told}"
    assert refusal.value.doubtful == to_read_again


def test_an_add_covers_every_interface_that_ippools_lists() -> None:
    text = '[{"interface": "eth0", "ipv4": ["rack9"]}, {"interface": "net1", "ipv4": ["rack7*"]}]'
    for interface in ("eth0", "net1"):
        found = names_of({IPPOOLS: text}, interface=interface)
        assert [(each.interface, each.by_version) for each in found] == [
            ("eth0", {4: ("rack9",)}),
            ("net1", {4: ("rack7-a", "rack7-b")}),
        ]
