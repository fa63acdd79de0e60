"""CHECK, STATUS and GC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.cni.harness import FakeAgent, Request, http

if TYPE_CHECKING:
    from tests.unit.cni.harness import Plugin

ENDPOINT: dict[str, Any] = {
    "podNamespace": "shop",
    "podName": "cart-7d9",
    "podUID": "9e0c6a52",
    "node": "node-1",
    "interfaces": [
        {"interface": "eth0", "ipv4": "10.20.0.10/16", "ipv4Pool": "v4", "ipv6": "fd00::a/64", "routes": None},
        {"interface": "net1", "ipv4": "10.30.0.10/24"},
    ],
}
PREVIOUS: dict[str, Any] = {
    "interfaces": [{"name": "eth0", "sandbox": "/var/run/netns/cni-1"}, {"name": "other"}],
    "ips": [
        {"address": "10.20.0.10/16", "interface": 0},
        {"address": "fd00:0::a/64"},
        {"address": "192.0.2.9/24", "interface": 1},
    ],
}


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_check_succeeds_while_the_agent_lists_the_addresses(plugin: Plugin, agent: FakeAgent, version: str) -> None:
    agent.answer = http(200, ENDPOINT)
    outcome = plugin.run("CHECK", plugin.config(version) | {"prevResult": PREVIOUS})
    assert (outcome.status, outcome.stdout) == (0, b"")
    assert agent.requests[0].method == "GET"
    assert agent.requests[0].target == "/v1/workloadendpoint?podNamespace=shop&podName=cart-7d9"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param({"interfaces": []}, "10.20.0.10/16", id="nothing held"),
        pytest.param({"interfaces": None}, "10.20.0.10/16", id="null"),
        pytest.param({"interfaces": [{"interface": "eth0", "ipv4": "10.20.0.11/16"}]}, "10.20.0.10/16", id="other"),
        pytest.param({"interfaces": [{"interface": "eth0", "ipv4": "10.20.0.10/24"}]}, "10.20.0.10/16", id="prefix"),
        pytest.param({"interfaces": [{"interface": "net1", "ipv4": "10.20.0.10/16"}]}, "10.20.0.10/16", id="nic"),
        pytest.param({"interfaces": [{"interface": "eth0", "ipv4": "10.20.0.10/16"}]}, "fd00:0::a/64", id="no ipv6"),
        pytest.param({"podUID": "another"}, "another", id="another pod of that name"),
    ],
)
def test_check_names_what_differs(plugin: Plugin, agent: FakeAgent, change: dict[str, Any], named: str) -> None:
    agent.answer = http(200, ENDPOINT | change)
    outcome = plugin.run("CHECK", plugin.config() | {"prevResult": PREVIOUS})
    assert outcome.code == 999
    assert named in outcome.json()["msg"]


def test_check_fails_for_a_pod_that_the_agent_does_not_know(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(404, "no endpoint shop/cart-7d9")
    outcome = plugin.run("CHECK", plugin.config() | {"prevResult": PREVIOUS})
    assert outcome.code == 999
    assert outcome.json()["msg"] == "no endpoint shop/cart-7d9"


@pytest.mark.parametrize("answer", [http(200, b"[]"), http(200, {"interfaces": 1}), http(200, {"interfaces": [1]})])
def test_check_refuses_an_answer_without_sense(plugin: Plugin, agent: FakeAgent, answer: bytes) -> None:
    agent.answer = answer
    assert plugin.run("CHECK", plugin.config() | {"prevResult": PREVIOUS}).code == 6


def test_check_needs_the_result_of_add(plugin: Plugin) -> None:
    outcome = plugin.run("CHECK")
    assert outcome.code == 7
    assert "prevResult" in outcome.json()["msg"]


STATUS_ONLY: dict[str, str | None] = dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"))


def test_status_asks_the_agent_whether_it_is_ready(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(200)
    outcome = plugin.run("STATUS", plugin.config("1.1.0"), **STATUS_ONLY)
    assert (outcome.status, outcome.stdout) == (0, b"")
    assert [request.target for request in agent.requests] == ["/v1/runtime/readiness"]


def test_status_of_an_original_agent_is_its_health(plugin: Plugin, agent: FakeAgent) -> None:
    def answer(request: Request) -> bytes:
        return http(200) if request.target == "/v1/ipam/healthy" else http(501, {"code": 501, "message": "not yet"})

    agent.answer = answer
    assert plugin.run("STATUS", plugin.config("1.1.0"), **STATUS_ONLY).status == 0


def test_status_of_an_agent_that_is_not_ready_is_code_50(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(500, "caches are not synced")
    outcome = plugin.run("STATUS", plugin.config("1.1.0"), **STATUS_ONLY)
    assert outcome.code == 50
    assert outcome.json()["msg"] == "caches are not synced"


def test_status_without_agent_is_code_50(plugin: Plugin) -> None:
    outcome = plugin.run("STATUS", plugin.config("1.1.0"), **STATUS_ONLY)
    assert outcome.code == 50
    assert outcome.seconds < 2


def test_gc_with_an_empty_list_releases_nothing(plugin: Plugin, agent: FakeAgent) -> None:
    config = plugin.config("1.1.0") | {"cni.dev/valid-attachments": []}
    outcome = plugin.run("GC", config, **STATUS_ONLY)
    assert (outcome.status, outcome.stdout, agent.requests) == (0, b"", [])
