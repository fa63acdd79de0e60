"""The forms of the agent's answers, member by member: the original's plugin reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.api import Detection, add_response, workload_endpoint
from allocator.domain.addresses import parse_address
from allocator.domain.dns import PodDns
from allocator.domain.endpoint import Assigned
from allocator.domain.pool import Route
from tests.unit import values

FAR = Route("10.99.0.0/16", "10.20.0.254")
FOUR = Assigned(
    interface="eth0",
    address=parse_address("10.20.0.10"),
    prefix_length=16,
    pool="rack7-v4",
    gateway=parse_address("10.20.0.1"),
    routes=(FAR,),
    clean_gateway=False,
)
SIX = replace(
    FOUR,
    address=parse_address("fd00:20::10"),
    prefix_length=64,
    pool="rack7-v6",
    gateway=parse_address("fd00:20::1"),
    routes=(),
)
BARE = replace(FOUR, interface="net1", address=parse_address("10.30.0.10"), pool="bare", gateway=None, routes=())
WITHOUT = Detection()


def answered(*assigned: Assigned, detection: Detection = WITHOUT) -> dict[str, Any]:
    return add_response(assigned, detection)


def test_an_answer_has_the_addresses_and_routes_of_every_interface() -> None:
    assert answered(FOUR, SIX, BARE) == {
        "ips": [
            {"address": "10.20.0.10/16", "gateway": "10.20.0.1", "ipPool": "rack7-v4", "nic": "eth0", "version": 4},
            {"address": "fd00:20::10/64", "gateway": "fd00:20::1", "ipPool": "rack7-v6", "nic": "eth0", "version": 6},
            {"address": "10.30.0.10/16", "ipPool": "bare", "nic": "net1", "version": 4},
        ],
        "routes": [
            {"ifName": "eth0", "dst": "10.99.0.0/16", "gw": "10.20.0.254"},
            {"ifName": "eth0", "dst": "0.0.0.0/0", "gw": "10.20.0.1"},
            {"ifName": "eth0", "dst": "::/0", "gw": "fd00:20::1"},
        ],
        "dns": {},
    }


def test_every_interface_with_a_gateway_has_a_default_route_of_its_own() -> None:
    routes = answered(FOUR, replace(FOUR, interface="net1", routes=()))["routes"]
    assert [route["ifName"] for route in routes if route["dst"] == "0.0.0.0/0"] == ["eth0", "net1"]


@pytest.mark.parametrize(
    ("changes", "routes"),
    [
        pytest.param({"clean_gateway": True}, ["10.99.0.0/16"], id="a clean gateway"),
        pytest.param({"gateway": None}, ["10.99.0.0/16"], id="no gateway"),
        pytest.param({"gateway": None, "routes": ()}, [], id="nothing, and still the member"),
        pytest.param({"routes": (Route("0.0.0.0/0", "10.20.0.9"),)}, ["0.0.0.0/0"], id="a default route of its own"),
    ],
)
def test_the_default_route_is_left_out_where_it_is_not_wanted(changes: dict[str, Any], routes: list[str]) -> None:
    answer = answered(replace(FOUR, **changes))
    assert [route["dst"] for route in answer["routes"]] == routes


def test_a_clean_gateway_is_still_named_as_the_gateway() -> None:
    assert answered(replace(FOUR, clean_gateway=True))["ips"][0]["gateway"] == "10.20.0.1"


def test_an_answer_names_the_servers_that_are_asked_for_and_nothing_empty() -> None:
    assert answered(replace(FOUR, dns=PodDns(nameservers=("10.20.0.53",), search=("a.b",))))["dns"] == {
        "nameservers": ["10.20.0.53"],
        "search": ["a.b"],
    }


def test_a_workload_endpoint_has_both_families_of_an_interface_together_and_routes_with_its_name() -> None:
    assert workload_endpoint(values.pod(), (FOUR, SIX, BARE)) == {
        "podNamespace": "shop",
        "podName": "cart-1",
        "podUID": "u1",
        "node": "n1",
        "interfaces": [
            {
                "interface": "eth0",
                "ipv4": "10.20.0.10/16",
                "ipv4Pool": "rack7-v4",
                "ipv4Gateway": "10.20.0.1",
                "ipv6": "fd00:20::10/64",
                "ipv6Pool": "rack7-v6",
                "ipv6Gateway": "fd00:20::1",
                "routes": [{"ifName": "eth0", "dst": "10.99.0.0/16", "gw": "10.20.0.254"}],
            },
            {"interface": "net1", "ipv4": "10.30.0.10/16", "ipv4Pool": "bare", "routes": []},
        ],
    }


def test_the_originals_plugin_is_told_what_to_look_for_on_the_wire() -> None:
    both = Detection(conflict=True, gateway=True)
    (told,) = answered(FOUR, detection=both)["ips"]
    assert told["enableIPConflictDetection"] is told["enableGatewayDetection"] is True
    (shared,) = answered(replace(FOUR, shared=True), detection=both)["ips"]
    assert "enableIPConflictDetection" not in shared
    (untold,) = answered(FOUR)["ips"]
    assert untold.keys().isdisjoint({"enableIPConflictDetection", "enableGatewayDetection"})
