"""Pool annotations: what they mean, and what a user is told when they are wrong."""

import pytest

from allocator.domain import errors
from allocator.domain.annotations import PoolNames, pools_of_namespace, pools_of_pod

IPPOOL = "ipam.spidernet.io/ippool"
IPPOOLS = "ipam.spidernet.io/ippools"


def of_pod(annotations: dict[str, str], interface: str = "eth0") -> PoolNames | None:
    found = pools_of_pod(annotations, interface, clean_gateway=False)
    return next((each for each in found if each.interface == interface), None)


def test_ippool_lists_pools_of_both_families_in_order() -> None:
    names = of_pod({IPPOOL: '{"ipv4": ["b", "a"], "ipv6": ["c"]}'})
    assert names is not None
    assert names.by_version == {4: ("b", "a"), 6: ("c",)}


def test_keys_are_read_in_any_case_as_go_reads_them() -> None:
    names = of_pod({IPPOOL: '{"IPv4": ["a"]}'})
    assert names is not None
    assert names.by_version == {4: ("a",)}


def test_ippools_gives_each_interface_its_own_pools_and_gateway_switch() -> None:
    text = '[{"interface": "eth0", "ipv4": ["a"]}, {"interface": "net1", "ipv4": ["b"], "cleangateway": true}]'
    names = of_pod({IPPOOLS: text, IPPOOL: '{"ipv4": ["never"]}'}, "net1")
    assert names is not None
    assert (names.by_version, names.clean_gateway) == ({4: ("b",)}, True)


def test_a_single_ippools_item_needs_no_interface() -> None:
    names = of_pod({IPPOOLS: '[{"ipv4": ["a"]}]'})
    assert names is not None
    assert names.by_version == {4: ("a",)}


def test_a_pod_without_annotations_asks_for_nothing() -> None:
    assert of_pod({"other": "x"}) is None


@pytest.mark.parametrize(
    ("annotations", "told"),
    [
        pytest.param({IPPOOL: "pool-a"}, "ippool is not JSON", id="no JSON"),
        pytest.param({IPPOOL: "[]"}, "ippool must be an object", id="a list"),
        pytest.param({IPPOOL: "{}"}, "ippool lists no pool", id="an empty object"),
        pytest.param({IPPOOL: '{"ipv4": []}'}, "ippool lists no pool", id="an empty list"),
        pytest.param({IPPOOL: '{"ipv4": "a"}'}, "ippool at ipv4 must be a list of pool names", id="a bare name"),
        pytest.param({IPPOOL: '{"ipv4": ["a", 7]}'}, "ippool at ipv4 must be a list of pool names", id="a number"),
        pytest.param({IPPOOL: '{"ipv4": ["a", "a"]}'}, 'lists the pool "a" twice', id="a double"),
        pytest.param({IPPOOL: "[" * 100_000}, "ippool is", id="deep nesting"),
        pytest.param({IPPOOLS: "[]"}, "ippools must be a list with at least one item", id="no item"),
        pytest.param(
            {IPPOOLS: '[{"interface": "net1", "ipv4": ["a"]}]'}, 'does not list the interface "eth0"', id="left out"
        ),
        pytest.param(
            {IPPOOLS: '[{"interface": "eth0", "ipv4": ["a"]}, {"ipv4": ["b"]}]'},
            "at [1].interface must name the interface",
            id="a nameless item",
        ),
        pytest.param(
            {IPPOOLS: '[{"interface": "eth0", "ipv4": ["a"]}, {"interface": "eth0", "ipv4": ["b"]}]'},
            'at [1].interface "eth0" is listed twice',
            id="an interface twice",
        ),
    ],
)
def test_a_malformed_annotation_is_named_with_the_place_and_a_right_example(
    annotations: dict[str, str], told: str
) -> None:
    with pytest.raises(errors.Invalid) as refusal:
        of_pod(annotations)
    assert told in str(refusal.value)
    assert "a right value is" in str(refusal.value)


def test_a_namespace_may_default_one_family_only() -> None:
    (names,) = pools_of_namespace({"ipam.spidernet.io/default-ipv6-ippool": '["c"]'}, "eth0", clean_gateway=True)
    assert (names.by_version, names.clean_gateway) == ({6: ("c",)}, True)


def test_a_malformed_namespace_annotation_is_refused() -> None:
    with pytest.raises(errors.Invalid, match="default-ipv4-ippool is not JSON"):
        pools_of_namespace({"ipam.spidernet.io/default-ipv4-ippool": "pool-a"}, "eth0", clean_gateway=False)
