"""The rules of one SpiderIPPool or SpiderSubnet, as a table: what is written, and where and why it is refused."""

from __future__ import annotations

import time
from typing import Any

import pytest

from allocator.domain import defaulting, validation
from allocator.domain.validation import Families

BOTH = Families()
SUBNET = "10.20.0.0/16"


def pool(spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderIPPool",
        "metadata": {"name": "p", **metadata},
        "spec": spec,
    }


def refused(spec: dict[str, Any], families: Families = BOTH, **metadata: Any) -> list[tuple[str, str, str]]:
    completed = defaulting.complete_pool(pool(spec, **metadata))
    return [(e.type, e.field, e.message) for e in validation.validate_pool(completed, families)]


ACCEPTED = {
    "one range": {"subnet": SUBNET, "ips": ["10.20.0.10-10.20.0.12"]},
    "unsorted": {"subnet": SUBNET, "ips": ["10.20.0.12", "10.20.0.10-10.20.0.11"], "excludeIPs": ["10.20.0.10"]},
    "twice the same": {"subnet": SUBNET, "ips": ["10.20.0.9", "10.20.0.9"]},
    "across an octet": {"subnet": SUBNET, "ips": ["10.20.0.255-10.20.1.1"]},
    "none": {"subnet": SUBNET},
    "excludes beyond ips": {"subnet": SUBNET, "ips": ["10.20.0.1-10.20.0.5"], "excludeIPs": ["10.20.0.4-10.20.0.9"]},
    "a range of one": {"subnet": SUBNET, "ips": ["10.20.0.1-10.20.0.1"]},
    "network and broadcast": {"subnet": "10.0.0.0/24", "ips": ["10.0.0.0-10.0.0.255"]},
    "slash 32": {"subnet": "10.0.0.1/32", "ips": ["10.0.0.1"]},
    "slash 31": {"subnet": "10.0.0.0/31", "ips": ["10.0.0.0-10.0.0.1"]},
    "slash 128": {"subnet": "fd00::1/128", "ips": ["fd00::1"]},
    "everything v4": {"subnet": "0.0.0.0/0", "ips": ["10.0.0.1"]},
    "everything v6": {"subnet": "::/0", "ips": ["fd00::1"]},
    "multicast": {"subnet": "224.0.0.0/24", "ips": ["224.0.0.9"]},
    "v6": {"subnet": "fd00:7::/64", "ips": ["fd00:7::10-fd00:7::ffff:ffff"]},
    "v6 upper case": {"subnet": "fd00::/64", "ips": ["FD00::A", "fd00::b"]},
    "whole /64": {"subnet": "fd00:7::/64", "ips": ["fd00:7::-fd00:7::ffff:ffff:ffff:ffff"]},
    "gateway excluded": {
        "subnet": SUBNET,
        "ips": ["10.20.0.10-10.20.0.12"],
        "gateway": "10.20.0.10",
        "excludeIPs": ["10.20.0.10"],
    },
    "route": {"subnet": SUBNET, "routes": [{"dst": "10.99.0.1/16", "gw": "10.20.0.254"}]},
    "no routes": {"subnet": SUBNET, "routes": []},
    "names": {"subnet": SUBNET, "multusName": ["netops/macvlan-bond0", "macvlan"], "nodeName": ["n1", "n1"]},
    "empty node selector": {"subnet": SUBNET, "nodeAffinity": {}},
    "selector": {"subnet": SUBNET, "podAffinity": {"matchExpressions": [{"key": "a/b", "operator": "Exists"}]}},
    "null fields": {"subnet": SUBNET, "ips": None, "gateway": None, "podAffinity": None, "default": None},
}


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_right_pool_is_accepted(spec: dict[str, Any]) -> None:
    assert refused(spec) == []


REFUSED = {
    "reversed": ({"ips": ["10.20.0.9-10.20.0.1"]}, "Invalid", "spec.ips[0]", 'write "10.20.0.1-10.20.0.9"'),
    "reversed among others": (
        {"ips": ["10.20.0.20", "10.20.0.9-10.20.0.1"]},
        "Invalid",
        "spec.ips[1]",
        'is reversed: write "10.20.0.1-10.20.0.9"',
    ),
    "outside": ({"ips": ["10.21.0.1"]}, "Invalid", "spec.ips[0]", "outside spec.subnet 10.20.0.0/16"),
    "partly outside": ({"ips": ["10.20.255.1-10.21.0.1"]}, "Invalid", "spec.ips[0]", "to 10.20.255.255"),
    "prefix length": ({"ips": ["10.20.0.1/24"]}, "Invalid", "spec.ips[0]", "CIDR"),
    "blanks": ({"ips": ["10.20.0.1 - 10.20.0.4"]}, "Invalid", "spec.ips[0]", 'write "10.20.0.1-10.20.0.4"'),
    "three ends": ({"ips": ["10.20.0.1-10.20.0.3-10.20.0.9"]}, "Invalid", "spec.ips[0]", 'more than one "-"'),
    "short form": ({"ips": ["10.20.0.1-20"]}, "Invalid", "spec.ips[0]", '"20" is not an IP address'),
    "leading zero": ({"ips": ["010.20.0.1"]}, "Invalid", "spec.ips[0]", "not an IP address"),
    "mapped": ({"ips": ["::ffff:10.20.0.1"]}, "Invalid", "spec.ips[0]", 'IPv4-mapped: write "10.20.0.1"'),
    "zone": ({"ips": ["fe80::1%eth0"]}, "Invalid", "spec.ips[0]", "zone"),
    "other family": ({"ips": ["fd00::1"]}, "Invalid", "spec.ips[0]", "an IPv4 address is needed"),
    "mixed families": ({"ips": ["10.20.0.1-fd00::1"]}, "Invalid", "spec.ips[0]", "IPv4"),
    "empty item": ({"ips": [""]}, "Invalid", "spec.ips[0]", "not an IP address"),
    "number": ({"ips": [7]}, "Invalid", "spec.ips[0]", "text"),
    "no list": ({"ips": "10.20.0.1"}, "Invalid", "spec.ips", "list"),
    "exclude outside": ({"excludeIPs": ["10.30.0.1"]}, "Invalid", "spec.excludeIPs[0]", "outside"),
    "gateway in ips": (
        {"ips": ["10.20.0.10-10.20.0.12"], "gateway": "10.20.0.10"},
        "Invalid",
        "spec.ips[0]",
        "contains the gateway 10.20.0.10",
    ),
    "gateway outside": ({"gateway": "10.21.0.1"}, "Invalid", "spec.gateway", "outside spec.subnet"),
    "gateway no address": ({"gateway": "router"}, "Invalid", "spec.gateway", "not an IP address"),
    "gateway of the other family": ({"gateway": "fd00::1"}, "Invalid", "spec.gateway", "IPv6"),
    "default route": (
        {"routes": [{"dst": "0.0.0.0/0", "gw": "10.20.0.1"}]},
        "Invalid",
        "spec.routes[0].dst",
        "set spec.gateway",
    ),
    "hidden default route": (
        {"routes": [{"dst": "10.0.0.0/0", "gw": "10.20.0.1"}]},
        "Invalid",
        "spec.routes[0].dst",
        "default route",
    ),
    "same route twice": (
        {"routes": [{"dst": "10.99.0.0/16", "gw": "10.20.0.1"}, {"dst": "10.99.0.7/16", "gw": "10.20.0.2"}]},
        "Duplicate",
        "spec.routes[1].dst",
        "spec.routes[0]",
    ),
    "route to an address": (
        {"routes": [{"dst": "10.99.0.1", "gw": "10.20.0.1"}]},
        "Invalid",
        "spec.routes[0].dst",
        "CIDR",
    ),
    "route with a netmask": (
        {"routes": [{"dst": "10.99.0.0/255.255.0.0", "gw": "10.20.0.1"}]},
        "Invalid",
        "spec.routes[0].dst",
        "CIDR",
    ),
    "route of the other family": (
        {"routes": [{"dst": "fd00::/64", "gw": "10.20.0.1"}]},
        "Invalid",
        "spec.routes[0].dst",
        "IPv6",
    ),
    "next hop outside": (
        {"routes": [{"dst": "10.99.0.0/16", "gw": "10.21.0.1"}]},
        "Invalid",
        "spec.routes[0].gw",
        "outside",
    ),
    "route without next hop": (
        {"routes": [{"dst": "10.99.0.0/16"}]},
        "Required",
        "spec.routes[0].gw",
        "write an address",
    ),
    "no route": ({"routes": ["10.99.0.0/16"]}, "Invalid", "spec.routes[0]", "gw"),
    "empty pod selector": ({"podAffinity": {}}, "Invalid", "spec.podAffinity", "empty"),
    "In without values": (
        {"nodeAffinity": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
        "Required",
        "spec.nodeAffinity.matchExpressions[0].values",
        "In needs values",
    ),
    "Exists with values": (
        {"namespaceAffinity": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
        "Forbidden",
        "spec.namespaceAffinity.matchExpressions[0].values",
        "takes no values",
    ),
    "unknown operator": (
        {"podAffinity": {"matchExpressions": [{"key": "a", "operator": "Gt"}]}},
        "Invalid",
        "spec.podAffinity.matchExpressions[0].operator",
        "In, NotIn, Exists, DoesNotExist",
    ),
    "bad label key": (
        {"podAffinity": {"matchLabels": {"-a": "b"}}},
        "Invalid",
        "spec.podAffinity.matchLabels",
        "label key",
    ),
    "bad label value": (
        {"podAffinity": {"matchLabels": {"a": "b c"}}},
        "Invalid",
        "spec.podAffinity.matchLabels[a]",
        "label value",
    ),
    "network with a capital": (
        {"multusName": ["netops/macVlan"]},
        "Invalid",
        "spec.multusName[0]",
        'has "V" in its',
    ),
    "network name with a space": (
        {"multusName": ["net ops/x"]},
        "Invalid",
        "spec.multusName[0]",
        'has " " in its namespace',
    ),
    "network without a name": ({"multusName": ["netops/"]}, "Invalid", "spec.multusName[0]", "needs a name"),
    "network without a namespace": ({"multusName": ["/x"]}, "Invalid", "spec.multusName[0]", "needs a namespace"),
    "network that ends wrong": ({"multusName": ["a/b-"]}, "Invalid", "spec.multusName[0]", "begins and ends with"),
    "bad network name": ({"multusName": ["a/b/c"]}, "Invalid", "spec.multusName[0]", "netops/macvlan-bond0"),
    "bad flag": ({"disable": "yes"}, "Invalid", "spec.disable", "true or false"),
}


@pytest.mark.parametrize(("spec", "kind", "field", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_field_is_refused_and_named(spec: dict[str, Any], kind: str, field: str, words: str) -> None:
    [(found_kind, found_field, message)] = refused({"subnet": SUBNET, **spec})
    assert (found_kind, found_field) == (kind, field)
    assert words in message


@pytest.mark.parametrize(
    ("spec", "problems"),
    [
        pytest.param({}, [("Invalid", "spec.ipVersion"), ("Required", "spec.subnet")], id="no subnet"),
        pytest.param({"subnet": "10.20.0.1/16"}, [("Invalid", "spec.subnet")], id="host bits"),
        pytest.param({"subnet": "FD00::/64", "ipVersion": 6}, [("Invalid", "spec.subnet")], id="upper case"),
        pytest.param({"subnet": SUBNET, "ipVersion": 6}, [("Invalid", "spec.subnet")], id="family differs"),
        pytest.param({"subnet": SUBNET, "ipVersion": 5}, [("NotSupported", "spec.ipVersion")], id="family five"),
        pytest.param({"subnet": SUBNET, "ipVersion": True}, [("NotSupported", "spec.ipVersion")], id="family true"),
        pytest.param(
            {"subnet": 7, "ipVersion": 4, "ips": ["x"], "gateway": [], "routes": 1},
            [
                ("Invalid", "spec.subnet"),
                ("Invalid", "spec.ips[0]"),
                ("Invalid", "spec.gateway"),
                ("Invalid", "spec.routes"),
            ],
            id="everything at once",
        ),
    ],
)
def test_all_problems_come_in_one_answer(spec: dict[str, Any], problems: list[tuple[str, str]]) -> None:
    assert [(kind, field) for kind, field, _ in refused(spec)] == problems


def test_the_canonical_form_is_named() -> None:
    assert 'write "10.20.0.0/16"' in refused({"subnet": "10.20.0.1/16", "ipVersion": 4})[0][2]
    assert 'write "fd00::/64"' in refused({"subnet": "FD00::/64", "ipVersion": 6})[0][2]


def test_a_family_that_is_switched_off_is_refused() -> None:
    assert refused({"subnet": SUBNET}, Families(ipv4=False)) == [
        ("Forbidden", "spec.ipVersion", "IPv4 is switched off: set enableIPv4 in the ConfigMap")
    ]


def test_an_automatic_pool_takes_only_its_own_labels() -> None:
    labels = {"ipam.spidernet.io/owner-application-name": "cart"}
    affinity = {"matchLabels": {"ipam.spidernet.io/app-name": "cart", "mine": "x"}, "matchExpressions": [{}]}
    found = refused({"subnet": SUBNET, "podAffinity": affinity}, labels=labels)
    assert [(kind, field) for kind, field, _ in found] == [("Invalid", "spec.podAffinity")] * 2


@pytest.mark.parametrize("raw", [{}, {"spec": None}, {"spec": []}, {"spec": "x"}], ids=str)
def test_an_object_without_a_spec_is_refused(raw: dict[str, Any]) -> None:
    assert [e.field for e in validation.validate_pool(defaulting.complete_pool(raw), BOTH)] == ["spec"]


def test_subnet_and_family_are_immutable() -> None:
    old = pool({"subnet": SUBNET, "ipVersion": 4})
    new = pool({"subnet": "fd00::/64", "ipVersion": 6})
    found = validation.validate_pool_update(old, new, BOTH)
    assert [(e.type, e.field) for e in found] == [("Forbidden", "spec.ipVersion"), ("Forbidden", "spec.subnet")]


def test_a_family_taken_out_is_derived_again() -> None:
    old = pool({"subnet": SUBNET, "ipVersion": 4})
    new = defaulting.complete_pool(pool({"subnet": SUBNET}))
    assert validation.validate_pool_update(old, new, BOTH) == []


def test_a_subnet_follows_the_rules_of_networks() -> None:
    raw = {"spec": {"subnet": SUBNET, "ips": ["10.21.0.1"], "gateway": "10.22.0.1"}}
    found = validation.validate_subnet(defaulting.complete_subnet(raw), BOTH)
    assert [e.field for e in found] == ["spec.ips[0]", "spec.gateway"]


def test_a_huge_list_is_refused_quickly() -> None:
    spec = {
        "subnet": "10.0.0.0/8",
        "ips": [f"10.{n // 65536}.{n // 256 % 256}.{n % 256}" for n in range(0, 200_000, 2)],
    }
    began = time.process_time()
    [(kind, field, message)] = refused(spec)
    # Copying the list is all that is done with it.
    assert time.process_time() - began < 1.0
    assert (kind, field) == ("Invalid", "spec.ips")
    assert "100000 items: write at most 4096" in message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.routes", [{"dst": f"x{n}", "gw": f"y{n}"} for n in range(60_000)]),
        ("spec.nodeName", [0] * 200_000),
        ("spec.multusName", ["A"] * 200_000),
        ("spec.podAffinity.matchLabels", {f"{n}!": "!" for n in range(200_000)}),
        ("spec.nodeAffinity.matchExpressions", [{"key": "!"} for _ in range(100_000)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_list_that_nobody_means_is_one_problem_and_keeps_nobody_waiting(path: str, value: Any) -> None:
    spec: dict[str, Any] = {"subnet": SUBNET}
    *parents, key = path.removeprefix("spec.").split(".")
    inner = spec
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[key] = value
    [(kind, field, message)] = refused(spec)
    assert (kind, field) == ("Invalid", path)
    assert "write at most 10000" in message


@pytest.mark.parametrize(
    ("subnet", "ips"), [("10.0.0.0/8", "10.0.0.1-10.255.255.254"), ("fd00::/8", "fd00::1-fdff::1")]
)
def test_a_huge_range_costs_what_a_small_one_costs(subnet: str, ips: str) -> None:
    began = time.process_time()
    assert refused({"subnet": subnet, "ips": [ips]}) == []
    assert time.process_time() - began < 0.1
