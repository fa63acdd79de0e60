"""The annotations of a new pod: what is refused at once, and what is hinted at."""

from __future__ import annotations

import pytest

from allocator.domain.errors import Invalid
from allocator.domain.pod_annotations import MAX_UNKNOWN, hints_for, problems_of
from allocator.domain.subnet_annotations import (
    IpNumber,
    SubnetNames,
    ip_number,
    is_reclaimed,
    subnets_of_pod,
)

PREFIX = "ipam.spidernet.io/"


def ours(annotations: dict[str, str]) -> dict[str, str]:
    return {f"{PREFIX}{key}": text for key, text in annotations.items()}


def hints(**annotations: str) -> list[str]:
    return [*hints_for(ours({key.replace("_", "-"): text for key, text in annotations.items()}))]


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        pytest.param("ippool", '{"ipv4": "a"}', "at ipv4 must be a list of pool names", id="ippool"),
        pytest.param("ippool", "rack[", 'is malformed: "rack[" is no pattern', id="a pattern in the short form"),
        pytest.param("ippool", '{"ipv6": ["a", "[z"]}', "at ipv6 is malformed", id="a pattern in JSON"),
        pytest.param("ippools", '[{"interface": "eth0"}]', "at [0] lists no pool", id="ippools"),
        pytest.param("routes", '[{"dst": "10.0.0.0/8"}]', "at [0].gw must be an IPv4 address", id="routes"),
        pytest.param("dns", '{"nameservers": ["ns1"]}', "at nameservers are addresses", id="dns"),
        pytest.param("subnet", '{"ipv4": []}', "lists no subnet", id="subnet"),
        pytest.param("subnet", '{"ipv4": [""]}', "at ipv4 must be a list of subnet names", id="an empty name"),
        pytest.param("subnet", '{"ipv4": ["rack*"]}', 'at ipv4 lists "rack*", which cannot be', id="no patterns here"),
        pytest.param("subnet", '{"interface": "a b", "ipv4": ["s"]}', "at interface must be", id="no interface"),
        pytest.param("subnets", "[]", "must be a list with at least one item", id="no subnets"),
        pytest.param("subnets", '[{"ipv4": ["s"]}]', "at [0].interface must be the name", id="subnets need names"),
        pytest.param(
            "subnets",
            '[{"interface": "eth0", "ipv4": ["s"]}, {"interface": "eth0", "ipv4": ["t"]}]',
            'at [1].interface "eth0" is listed twice',
            id="an interface twice",
        ),
        pytest.param(
            "subnets",
            '[{"interface": "eth0", "ipv4": ["s"]}, {"interface": "net1", "ipv4": ["s"]}]',
            'at [1].ipv4 begins with "s", as another item does',
            id="a subnet twice",
        ),
        pytest.param("ippool-ip-number", "-1", 'is "-1", which is no number', id="a negative number"),
        pytest.param("ippool-ip-number", "1+2", 'is "1+2", which is no number', id="a sum"),
        pytest.param("ippool-reclaim", "yes", 'is "yes"', id="a switch"),
        pytest.param("node-affinity", "off", 'is "off"', id="the switch of the affinity"),
    ],
)
def test_a_malformed_annotation_is_a_problem_of_its_field_with_a_right_example(key: str, text: str, told: str) -> None:
    (problem,) = problems_of(ours({key: text}))
    assert (problem.type, problem.field, problem.value) == ("Invalid", f"metadata.annotations[{PREFIX}{key}]", text)
    assert problem.message.startswith(f"annotation {PREFIX}{key} ")
    assert told in problem.message
    assert "a right value is" in problem.message


def test_all_malformed_annotations_are_told_at_once() -> None:
    wrong = ours({"routes": "1", "ippool": "{", "dns": "[]", "node-affinity": "no"})
    assert {problem.field for problem in problems_of(wrong)} == {f"metadata.annotations[{key}]" for key in wrong}


@pytest.mark.parametrize(
    "annotations",
    [
        {"ippool": "pool-a,pool-b"},
        {"ippool": '{"ipv4": ["a*"]}'},
        {"ippools": '[{"ipv4": ["a"]}, {"ipv4": ["b"]}]'},
        {"ippools": '[{"interface": "net1", "ipv4": ["a"]}]'},
        {"routes": "null", "dns": "{}"},
        {"node-affinity": "false"},
        {"node-affinity": "true"},
        {"subnet": '{"ipv4": ["s4", "s5"], "ipv6": ["s6"]}', "ippool-ip-number": "+2", "ippool-reclaim": "F"},
    ],
)
def test_what_the_agent_can_read_is_no_problem_whichever_interface_asks(annotations: dict[str, str]) -> None:
    assert problems_of(ours(annotations)) == []
    assert [*hints_for(ours(annotations))] == []


def test_an_annotation_that_another_one_beats_is_hinted_at_and_not_judged_as_no_agent_reads_it() -> None:
    both = ours({"ippools": '[{"ipv4": ["a"]}]', "ippool": "{"})
    assert problems_of(both) == []
    assert [*hints_for(both)] == [f"annotation {PREFIX}ippool is not looked at: {PREFIX}ippools beats it"]
    assert [problem.field for problem in problems_of(both | ours({"ippools": "["}))] == [
        f"metadata.annotations[{PREFIX}ippools]"
    ]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("ipool", f": is {PREFIX}ippool meant?"),
        ("ippols", f": is {PREFIX}ippools meant?"),
        ("route", f": is {PREFIX}routes meant?"),
        ("node_affinity", f": is {PREFIX}node-affinity meant?"),
    ],
)
def test_an_unknown_key_is_hinted_at_with_the_nearest_one(key: str, meant: str) -> None:
    assert [*hints_for({f"{PREFIX}{key}": "x"})] == [f'annotation "{PREFIX}{key}" is unknown{meant}']


def test_of_many_unknown_keys_the_first_are_hinted_at() -> None:
    assert len([*hints_for({f"{PREFIX}ippoo{number}": "x" for number in range(1000)})]) == MAX_UNKNOWN


def test_known_keys_and_those_of_others_are_no_matter() -> None:
    assert hints(default_route_nic="net1", force_in_use="true") == []
    assert [*hints_for({"ipam.spidernet.io": "x", "example.com/ipool": "x"})] == []


def test_a_key_of_namespaces_is_sent_there() -> None:
    (hint,) = hints(default_ipv4_ippool='["a"]')
    assert "set it on the namespace, or set ipam.spidernet.io/ippool on the pod" in hint
    (hint,) = hints(default_ipv6_subnet='["s6"]')
    assert "set it on the namespace, or set ipam.spidernet.io/subnet on the pod" in hint


# The forms that ask for a pool of one's own


def test_a_subnet_is_for_the_first_interface_unless_another_is_named() -> None:
    assert subnets_of_pod(ours({"subnet": '{"ipv4": ["s4"], "IPv6": ["s6"]}'})) == (
        SubnetNames("eth0", {4: ("s4",), 6: ("s6",)}),
    )
    assert subnets_of_pod(ours({"subnet": '{"interface": "net1", "ipv4": ["s4"]}'})) == (
        SubnetNames("net1", {4: ("s4",)}),
    )


def test_subnets_beats_subnet_and_keeps_the_order_of_each_list() -> None:
    text = '[{"interface": "eth0", "ipv4": ["a", "b"]}, {"interface": "net1", "ipv4": ["b"], "ipv6": []}]'
    assert subnets_of_pod(ours({"subnets": text, "subnet": '{"ipv4": ["never"]}'})) == (
        SubnetNames("eth0", {4: ("a", "b")}),
        SubnetNames("net1", {4: ("b",)}),
    )


def test_a_pod_without_these_annotations_has_none_of_it() -> None:
    assert (subnets_of_pod({}), ip_number({}), is_reclaimed({})) == ((), None, True)


@pytest.mark.parametrize(
    ("text", "number"), [("5", IpNumber(5, is_surplus=False)), ("+2", IpNumber(2, is_surplus=True))]
)
def test_a_number_is_fixed_or_a_surplus(text: str, number: IpNumber) -> None:
    assert ip_number(ours({"ippool-ip-number": text})) == number


@pytest.mark.parametrize(("text", "is_true"), [("1", True), ("True", True), ("f", False), ("FALSE", False)])
def test_a_switch_is_read_as_go_reads_it(text: str, *, is_true: bool) -> None:
    assert is_reclaimed(ours({"ippool-reclaim": text})) is is_true


def test_go_takes_no_other_spelling() -> None:
    with pytest.raises(Invalid):
        is_reclaimed(ours({"ippool-reclaim": "tRUE"}))
