"""What admission completes, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.domain import applications, defaulting, selector_rules, validation
from allocator.domain.addresses import parse_network
from allocator.domain.jsonpatch import patch_of


def complete(spec: Any, **metadata: Any) -> dict[str, Any]:
    return defaulting.complete_pool({"kind": "SpiderIPPool", "metadata": {"name": "p", **metadata}, "spec": spec})


@pytest.mark.parametrize(
    ("items", "stored"),
    [
        (["10.20.0.5", "10.20.0.1-10.20.0.3", "10.20.0.4"], ["10.20.0.1-10.20.0.5"]),
        (["10.20.0.1-10.20.0.3", "10.20.0.2-10.20.0.8"], ["10.20.0.1-10.20.0.8"]),
        (["10.20.0.12", "10.20.0.10-10.20.0.11"], ["10.20.0.10-10.20.0.12"]),
        (["10.20.0.9", "10.20.0.9"], ["10.20.0.9"]),
        (["10.20.0.10-10.20.0.12"], ["10.20.0.10-10.20.0.12"]),
        (["10.20.0.7-10.20.0.7"], ["10.20.0.7"]),
        (["10.20.0.9-10.20.0.1"], ["10.20.0.9-10.20.0.1"]),
        (["10.20.0.9-10.20.0.1", "10.20.0.20"], ["10.20.0.9-10.20.0.1", "10.20.0.20"]),
        ([7, "10.20.0.1"], [7, "10.20.0.1"]),
        ([], []),
    ],
    ids=str,
)
def test_ranges_are_merged_and_wrong_ones_left_to_validation(items: list[Any], stored: list[Any]) -> None:
    completed = complete({"subnet": "10.20.0.0/16", "ips": items, "excludeIPs": items})
    assert completed["spec"]["ips"] == stored
    assert completed["spec"]["excludeIPs"] == stored


def test_ipv6_gets_its_canonical_form() -> None:
    assert complete({"subnet": "fd00::/64", "ips": ["FD00::A", "fd00::b"]})["spec"]["ips"] == ["fd00::a-fd00::b"]


def test_family_label_and_finalizer_are_added() -> None:
    completed = complete({"subnet": "10.20.0.0/16"}, finalizers=["mine"], labels={"a": "b"})
    assert completed["spec"]["ipVersion"] == 4
    assert completed["metadata"]["labels"] == {"a": "b", "ipam.spidernet.io/ippool-cidr": "10-20-0-0-16"}
    assert completed["metadata"]["finalizers"] == ["mine", "spiderpool.spidernet.io"]


def test_a_wrong_label_is_put_right() -> None:
    labels = {"ipam.spidernet.io/ippool-cidr": "wrong"}
    assert complete({"subnet": "10.20.0.0/16"}, labels=labels)["metadata"]["labels"] == {
        "ipam.spidernet.io/ippool-cidr": "10-20-0-0-16"
    }


def test_a_subnet_has_a_label_of_its_own() -> None:
    completed = defaulting.complete_subnet({"metadata": {"name": "s"}, "spec": {"subnet": "fd00:db8::/32"}})
    assert completed["metadata"]["labels"] == {"ipam.spidernet.io/subnet-cidr": "fd00-db8---32"}


@pytest.mark.parametrize(
    ("network", "label"),
    [("172.18.40.0/24", "172-18-40-0-24"), ("fd00:10::/64", "fd00-10---64"), ("::/64", "0---64"), ("::/0", "0---0")],
)
def test_the_label_is_a_valid_label_value(network: str, label: str) -> None:
    assert defaulting.cidr_label(parse_network(network)) == label
    assert selector_rules.NAME.fullmatch(label)


def test_a_terminating_object_is_left_alone() -> None:
    raw = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"subnet": "10.20.0.0/16"}}
    assert defaulting.complete_pool(raw) == raw


def test_the_family_of_a_reservation_comes_from_its_first_item() -> None:
    completed = defaulting.complete_reservation({"spec": {"ips": ["fd00::5", "fd00::4"]}})
    assert completed["spec"] == {"ips": ["fd00::4-fd00::5"], "ipVersion": 6}
    assert defaulting.complete_reservation({"spec": {"ips": ["x"]}})["spec"] == {"ips": ["x"]}


def test_the_request_is_not_edited() -> None:
    raw: dict[str, Any] = {
        "metadata": {"name": "p"},
        "spec": {"subnet": "10.20.0.0/16", "ips": ["10.20.0.2", "10.20.0.1"]},
    }
    defaulting.complete_pool(raw)
    assert raw == {"metadata": {"name": "p"}, "spec": {"subnet": "10.20.0.0/16", "ips": ["10.20.0.2", "10.20.0.1"]}}


def test_the_patch_says_only_what_was_meant() -> None:
    raw = {
        "metadata": {"name": "p", "finalizers": ["mine"], "labels": {"a": "b"}},
        "spec": {"subnet": "10.20.0.0/16", "ips": ["10.20.0.2", "10.20.0.1"]},
    }
    assert patch_of(raw, defaulting.complete_pool(raw)) == [
        {"op": "add", "path": "/metadata/finalizers/-", "value": "spiderpool.spidernet.io"},
        {"op": "add", "path": "/metadata/labels/ipam.spidernet.io~1ippool-cidr", "value": "10-20-0-0-16"},
        {"op": "replace", "path": "/spec/ips", "value": ["10.20.0.1-10.20.0.2"]},
        {"op": "add", "path": "/spec/ipVersion", "value": 4},
    ]


item = (
    st.sampled_from(
        [
            "10.20.0.1",
            "10.20.0.1-10.20.0.9",
            "10.20.0.8-10.20.0.12",
            "10.20.0.9-10.20.0.1",
            "FD00::1",
            "fd00::2-fd00::5",
            "x",
            "",
        ]
    )
    | st.integers()
    | st.none()
)
value = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(item, max_size=4)
spec = (
    st.none()
    | st.text(max_size=3)
    | st.fixed_dictionaries(
        {},
        optional={
            "subnet": st.sampled_from(["10.20.0.0/16", "10.20.0.1/16", "fd00::/64", "::/0", "", "x"]) | value,
            "ipVersion": st.sampled_from([4, 6, 5, None]),
            "ips": value,
            "excludeIPs": value,
            "gateway": value,
            "routes": value,
            "podAffinity": value
            | st.fixed_dictionaries({}, optional={"matchLabels": value, "matchExpressions": value}),
            "multusName": value,
        },
    )
)
metadata = st.fixed_dictionaries({"name": st.text(max_size=3)}, optional={"labels": value, "finalizers": value})
anything = st.fixed_dictionaries({}, optional={"metadata": metadata, "spec": spec, "status": value})


@given(anything)
def test_completing_twice_changes_nothing_and_never_fails(raw: dict[str, Any]) -> None:
    for complete_kind in (defaulting.complete_pool, defaulting.complete_subnet, defaulting.complete_reservation):
        once = complete_kind(raw)
        assert complete_kind(once) == once
        assert patch_of(once, complete_kind(once)) == []
        assert jsonpatch.apply_patch(raw, patch_of(raw, once)) == once


@given(anything)
def test_any_object_is_judged_without_failing(raw: dict[str, Any]) -> None:
    families = validation.Families()
    validation.validate_pool_update(raw, defaulting.complete_pool(raw), families)
    validation.validate_subnet_update(raw, defaulting.complete_subnet(raw), families)
    validation.validate_reservation_update(raw, defaulting.complete_reservation(raw), families)


OWNER: dict[str, Any] = {
    "metadata": {"name": "dc1"},
    "spec": {
        "subnet": "10.20.0.0/16",
        "gateway": "10.20.0.1",
        "routes": [{"dst": "10.99.0.0/16", "gw": "10.20.0.254"}],
    },
}


def test_a_pool_of_a_subnets_network_is_labelled_and_takes_over_what_it_leaves_out() -> None:
    completed = defaulting.complete_pool({"metadata": {}, "spec": {"subnet": "10.20.0.0/16"}}, OWNER)
    assert completed["metadata"]["labels"][defaulting.OWNER_LABEL] == "dc1"
    assert "ownerReferences" not in completed["metadata"]
    assert completed["spec"]["gateway"] == "10.20.0.1"
    assert completed["spec"]["routes"] == OWNER["spec"]["routes"]
    assert defaulting.complete_pool(completed, OWNER) == completed


def test_what_a_pool_says_itself_stays_and_an_empty_list_keeps_the_subnets_routes_away() -> None:
    spec = {"subnet": "10.20.0.0/16", "gateway": "10.20.0.9", "routes": []}
    completed = defaulting.complete_pool({"metadata": {}, "spec": spec}, OWNER)
    assert (completed["spec"]["gateway"], completed["spec"]["routes"]) == ("10.20.0.9", [])


def test_what_is_taken_out_of_a_labelled_pool_stays_out() -> None:
    labelled = defaulting.complete_pool({"metadata": {}, "spec": {"subnet": "10.20.0.0/16"}}, OWNER)
    del labelled["spec"]["gateway"]
    assert "gateway" not in defaulting.complete_pool(labelled, OWNER)["spec"]


def test_the_name_of_a_subnet_that_is_too_long_for_a_label_ends_in_its_hash() -> None:
    assert applications.label_value("a" * 63) == "a" * 63
    long, other = applications.label_value("a" * 64), applications.label_value("a" * 65)
    assert len(long) == len(other) == 63
    assert long != other
    assert selector_rules.is_label_value(applications.label_value("a" * 51 + "." * 2 + "b" * 60))
