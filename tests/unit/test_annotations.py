"""Pool annotations: what they mean, and what a user is told when they are wrong."""

import json

import pytest

from allocator.domain import errors
from allocator.domain.annotations import MAX_NAMES, MAX_PATTERNS, Asked, pools_of_namespace, pools_of_pod

IPPOOL = "ipam.spidernet.io/ippool"
IPPOOLS = "ipam.spidernet.io/ippools"
NETWORKS = "k8s.v1.cni.cncf.io/networks"


def of_pod(annotations: dict[str, str], interface: str = "eth0") -> tuple[Asked, ...]:
    return pools_of_pod(annotations, interface, clean_gateway=False)


def only(found: tuple[Asked, ...]) -> Asked:
    (asked,) = found
    return asked


def by_interface(found: tuple[Asked, ...]) -> dict[str, tuple[str, ...]]:
    return {asked.interface: asked.by_version[4] for asked in found}


def test_ippool_lists_pools_of_both_families_in_order() -> None:
    asked = only(of_pod({IPPOOL: '{"ipv4": ["b", "a"], "ipv6": ["c"]}'}, "net1"))
    assert (asked.interface, asked.by_version) == ("net1", {4: ("b", "a"), 6: ("c",)})


def test_keys_are_read_in_any_case_and_unknown_ones_passed_over_as_go_does() -> None:
    assert only(of_pod({IPPOOL: '{"IPv4": ["a"], "note": 1}'})).by_version == {4: ("a",)}


@pytest.mark.parametrize("text", ["pool-a,pool.b,rack*", " pool-a , pool.b,rack* "])
def test_the_short_form_lists_names_of_any_family(text: str) -> None:
    asked = only(of_pod({IPPOOL: text}))
    assert (asked.names, asked.by_version) == (("pool-a", "pool.b", "rack*"), {})


def test_ippools_gives_each_interface_its_own_pools_and_gateway_switch() -> None:
    text = '[{"interface": "eth0", "ipv4": ["a"]}, {"interface": "net1", "ipv4": ["b"], "cleangateway": true}]'
    found = of_pod({IPPOOLS: text, IPPOOL: '{"ipv4": ["never"]}'}, "net1")
    assert by_interface(found) == {"eth0": ("a",), "net1": ("b",)}
    assert [asked.clean_gateway for asked in found] == [False, True]


def test_the_switch_of_the_cni_configuration_is_for_all_but_ippools() -> None:
    assert only(pools_of_pod({IPPOOL: "a"}, "eth0", clean_gateway=True)).clean_gateway
    assert not only(pools_of_pod({IPPOOLS: '[{"ipv4": ["a"]}]'}, "eth0", clean_gateway=True)).clean_gateway


def test_a_single_ippools_item_without_a_name_is_about_the_interface_that_asks() -> None:
    assert by_interface(of_pod({IPPOOLS: '[{"ipv4": ["a"]}]'}, "net1")) == {"net1": ("a",)}


@pytest.mark.parametrize(
    ("networks", "interfaces"),
    [
        pytest.param({}, ["eth0", "net1", "net2"], id="no list of networks"),
        pytest.param({NETWORKS: "m1,m2"}, ["eth0", "net1", "net2"], id="networks without interfaces"),
        pytest.param({NETWORKS: "m1@fast,m2"}, ["eth0", "fast", "net2"], id="a network with an interface"),
        pytest.param(
            {NETWORKS: '[{"name": "m1"}, {"name": "m2", "interface": "slow"}]'}, ["eth0", "net1", "slow"], id="JSON"
        ),
        pytest.param({NETWORKS: "m1@fast"}, ["eth0", "fast", "net2"], id="fewer networks than items"),
        pytest.param({NETWORKS: "m1,m2,m3"}, ["eth0", "net1", "net2"], id="more networks than items"),
    ],
)
def test_ippools_items_without_names_are_told_apart_by_their_place_as_multus_names_interfaces(
    networks: dict[str, str], interfaces: list[str]
) -> None:
    text = '[{"ipv4": ["a"]}, {"ipv4": ["b"]}, {"ipv4": ["c"]}]'
    found = of_pod({IPPOOLS: text, **networks}, interfaces[1])
    assert by_interface(found) == dict(zip(interfaces, [("a",), ("b",), ("c",)], strict=True))


def test_a_pod_without_annotations_asks_for_nothing() -> None:
    assert of_pod({"other": "x"}) == ()


@pytest.mark.parametrize(
    ("annotations", "told"),
    [
        pytest.param({IPPOOL: '{"ipv4": ["a"]'}, "ippool is not JSON", id="no JSON"),
        pytest.param({IPPOOL: '"pool-a"'}, "ippool must be an object", id="a text"),
        pytest.param({IPPOOL: "Pool-A"}, 'ippool lists "Pool-A", which cannot be the name of a', id="no name"),
        pytest.param({IPPOOL: "ipv4: pool-a"}, 'ippool lists "ipv4: pool-a", which cannot be', id="YAML"),
        pytest.param({IPPOOL: "pool-a pool*"}, 'lists "pool-a pool*", which cannot be', id="blanks for commas"),
        pytest.param({IPPOOL: "pool-a,"}, 'ippool lists "", which cannot be', id="a comma too many"),
        pytest.param({IPPOOL: ""}, 'ippool lists "", which cannot be', id="empty"),
        pytest.param({IPPOOL: '{"ipv4": [".."]}'}, 'at ipv4 lists "..", which cannot be', id="a path"),
        pytest.param({IPPOOL: '{"ipv4": ["a/status"]}'}, 'lists "a/status", which cannot be', id="a path with a name"),
        pytest.param({IPPOOL: r'{"ipv4": ["\ud800*"]}'}, "must be a list of pool names, each a text", id="half a pair"),
        pytest.param({IPPOOL: '{"ipv4": [""]}'}, "must be a list of pool names, each a text", id="an empty name"),
        pytest.param({IPPOOL: "pool-a, pool-a"}, 'ippool lists the pool "pool-a" twice', id="a short double"),
        pytest.param({IPPOOL: "[]"}, "ippool must be an object", id="a list"),
        pytest.param({IPPOOL: "{}"}, "ippool lists no pool", id="an empty object"),
        pytest.param({IPPOOL: '{"ipv4": []}'}, "ippool lists no pool", id="an empty list"),
        pytest.param({IPPOOL: '{"ipv4": "a"}'}, "ippool at ipv4 must be a list of pool names", id="a bare name"),
        pytest.param({IPPOOL: '{"ipv4": ["a", 7]}'}, "ippool at ipv4 must be a list of pool names", id="a number"),
        pytest.param({IPPOOL: '{"ipv4": ["a", "a"]}'}, 'lists the pool "a" twice', id="a double"),
        pytest.param({IPPOOL: "[" * 100_000}, "ippool is", id="deep nesting"),
        pytest.param(
            {IPPOOL: json.dumps({"ipv4": [f"p{i}" for i in range(MAX_NAMES + 1)]})},
            f"at ipv4 lists {MAX_NAMES + 1} pools, more than {MAX_NAMES}",
            id="more names than anybody needs",
        ),
        pytest.param(
            {IPPOOL: ",".join(f"p{i}*" for i in range(MAX_PATTERNS + 1))},
            f"ippool lists {MAX_PATTERNS + 1} patterns, more than {MAX_PATTERNS}",
            id="more patterns than can be matched quickly",
        ),
        pytest.param(
            {IPPOOL: '{"ipv4": ["a", "rack["]}'}, 'at ipv4 is malformed: "rack[" is no pattern', id="a bracket"
        ),
        pytest.param(
            {IPPOOL: json.dumps({"ipv4": ["*" * 254]})}, f'lists "{40 * "*"}...", which cannot be', id="a long name"
        ),
        pytest.param({IPPOOLS: "[]"}, "ippools must be a list with at least one item", id="no item"),
        pytest.param(
            {IPPOOLS: '[{"interface": "net1", "ipv4": ["a"]}]'}, 'does not list the interface "eth0"', id="left out"
        ),
        pytest.param(
            {IPPOOLS: '[{"interface": "eth0", "ipv4": ["a"]}, {"ipv4": ["b"]}]'},
            "at [1].interface must name the interface, as other items do: name all or none",
            id="a nameless item",
        ),
        pytest.param(
            {IPPOOLS: '[{"interface": "", "ipv4": ["a"]}, {"interface": "net1", "ipv4": ["b"]}]'},
            "at [0].interface must name the interface",
            id="an empty name is none",
        ),
        pytest.param(
            {IPPOOLS: '[{"interface": 7, "ipv4": ["a"]}]'}, "at [0].interface must be the name", id="a number"
        ),
        pytest.param(
            {IPPOOLS: '[{"interface": "an interface", "ipv4": ["a"]}]'}, "at [0].interface must be", id="a blank"
        ),
        pytest.param(
            {IPPOOLS: r'[{"interface": "\ud800", "ipv4": ["a"]}]'}, "at [0].interface must be", id="half a pair again"
        ),
        pytest.param(
            {IPPOOLS: '[{"interface": "sixteen-letters-", "ipv4": ["a"]}]'}, "15 characters at most", id="too long"
        ),
        pytest.param({IPPOOLS: '[{"interface": "eth0"}]'}, "ippools at [0] lists no pool", id="an item without pools"),
        pytest.param(
            {IPPOOLS: '[{"interface": "eth0", "ipv4": ["a"], "cleangateway": "yes"}]'},
            "at [0].cleangateway must be true or false",
            id="a switch that is a text",
        ),
        pytest.param({IPPOOLS: '["a"]'}, "ippools at [0] must be an object", id="names without an object"),
        pytest.param(
            {IPPOOLS: json.dumps([{"interface": f"e{i}", "ipv4": ["a", "b"]} for i in range(MAX_NAMES)])},
            f"lists {2 * MAX_NAMES} pools",
            id="more names than anybody needs in all items",
        ),
        pytest.param(
            {IPPOOLS: '[{"ipv4": ["a"]}, {"ipv4": ["b"]}]', NETWORKS: "m1@fast"},
            'does not list the interface "eth1", only eth0, fast (by the items\' places)',
            id="no item has its place",
        ),
        pytest.param(
            {IPPOOLS: '[{"ipv4": ["a"]}, {"ipv4": ["b"]}, {"ipv4": ["c"]}]', NETWORKS: "m1@net2"},
            'at [2].interface "net2" is listed twice',
            id="two items with one place",
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
        of_pod(annotations, "eth1" if NETWORKS in annotations else "eth0")
    assert told in str(refusal.value)
    assert "a right value is" in str(refusal.value)


def test_a_list_of_networks_that_cannot_be_read_is_named_where_items_have_no_names() -> None:
    with pytest.raises(errors.Invalid, match=NETWORKS):
        of_pod({IPPOOLS: '[{"ipv4": ["a"]}, {"ipv4": ["b"]}]', NETWORKS: "{"})


def of_namespace(annotations: dict[str, str]) -> tuple[Asked, ...]:
    return pools_of_namespace(
        {f"ipam.spidernet.io/default-{key}-ippool": text for key, text in annotations.items()},
        "eth0",
        clean_gateway=True,
    )


def test_a_namespace_may_default_one_family_only() -> None:
    asked = only(of_namespace({"ipv4": "[]", "ipv6": '["c"]'}))
    assert (asked.by_version, asked.clean_gateway) == ({6: ("c",)}, True)
    assert asked.source == "namespace annotation ipam.spidernet.io/default-ipv6-ippool"


def test_a_namespace_with_empty_lists_defaults_nothing() -> None:
    assert of_namespace({"ipv4": "[]", "ipv6": "null"}) == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("pool-a", "default-ipv4-ippool is not JSON", id="no JSON"),
        pytest.param('{"ipv4": ["a"]}', "default-ipv4-ippool must be a list of pool names", id="an object"),
        pytest.param('["a", "a"]', 'default-ipv4-ippool lists the pool "a" twice', id="a double"),
    ],
)
def test_a_malformed_namespace_annotation_is_refused(text: str, told: str) -> None:
    with pytest.raises(errors.Invalid, match=told):
        of_namespace({"ipv4": text})


@pytest.mark.parametrize("text", ['{"ipv4": ["X"]}', "X,y", "X" * 5000, r'{"ipv4": ["\ud800"]}', "\u2028,é"])
def test_what_is_told_of_a_wrong_annotation_is_short_and_plain(text: str) -> None:
    """It becomes an event, a line of the log and a CNI error, each with its own idea of characters and lengths."""
    with pytest.raises(errors.Invalid) as refusal:
        of_pod({IPPOOL: text})
    assert str(refusal.value).isascii()
    assert len(str(refusal.value)) < 300
