"""CHECK: what the runtime believes, what the agent has on record, and what the interface really has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.cni.harness import FakeAgent, http

if TYPE_CHECKING:
    from pathlib import Path

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


@pytest.mark.root
@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_check_succeeds_while_record_and_interface_have_the_addresses(
    plugin: Plugin, agent: FakeAgent, netns: Path, version: str
) -> None:
    agent.answer = http(200, ENDPOINT)
    outcome = plugin.run("CHECK", plugin.config(version) | {"prevResult": PREVIOUS}, CNI_NETNS=str(netns))
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, b"", "")
    (request,) = agent.requests
    assert (request.method, request.target) == ("GET", "/v1/workloadendpoint?podNamespace=shop&podName=cart-7d9")


@pytest.mark.root
def test_the_address_of_a_point_to_point_link_is_its_own_and_not_the_peers(
    plugin: Plugin, agent: FakeAgent, netns: Path
) -> None:
    for address, status in (("10.30.0.1/32", 0), ("10.30.0.2/32", 1)):
        agent.answer = http(200, ENDPOINT | {"interfaces": [{"interface": "eth0", "ipv4": address}]})
        previous = {"prevResult": {"ips": [{"address": address}]}}
        assert plugin.run("CHECK", plugin.config() | previous, CNI_NETNS=str(netns)).status == status


@pytest.mark.root
@pytest.mark.parametrize(
    ("address", "family"), [("10.20.0.11/16", "ipv4"), ("fd00::b/64", "ipv6"), ("192.0.2.9/24", "ipv4")]
)
def test_check_fails_for_an_address_that_is_held_but_not_configured_whatever_the_runtime_knows(
    plugin: Plugin, agent: FakeAgent, netns: Path, address: str, family: str
) -> None:
    agent.answer = http(200, ENDPOINT | {"interfaces": [{"interface": "eth0", family: address}]})
    for known in ([{"address": address}], []):
        outcome = plugin.run("CHECK", plugin.config() | {"prevResult": {"ips": known}}, CNI_NETNS=str(netns))
        assert outcome.code == 999
        assert f"should have {address}, which is not configured" in outcome.json()["msg"]


@pytest.mark.root
def test_check_fails_without_the_interface(plugin: Plugin, agent: FakeAgent, netns: Path) -> None:
    agent.answer = http(200, ENDPOINT)
    previous = {"ips": [{"address": "10.30.0.10/24"}]}
    config = plugin.config() | {"prevResult": previous}
    outcome = plugin.run("CHECK", config, CNI_NETNS=str(netns), CNI_IFNAME="net1")
    assert outcome.code == 999
    assert "there is no interface net1" in outcome.json()["msg"]


def test_check_fails_when_the_namespace_is_gone(plugin: Plugin, agent: FakeAgent, tmp_path: Path) -> None:
    agent.answer = http(200, ENDPOINT)
    outcome = plugin.run("CHECK", plugin.config() | {"prevResult": PREVIOUS}, CNI_NETNS=str(tmp_path / "netns"))
    assert outcome.code == 999
    assert outcome.json()["msg"] == f"the network namespace {tmp_path}/netns is gone"


def test_check_fails_for_a_file_that_is_no_namespace(plugin: Plugin, agent: FakeAgent, tmp_path: Path) -> None:
    agent.answer = http(200, ENDPOINT)
    (tmp_path / "netns").write_text("")
    outcome = plugin.run("CHECK", plugin.config() | {"prevResult": PREVIOUS}, CNI_NETNS=str(tmp_path / "netns"))
    assert outcome.code == 999
    assert "cannot enter the network namespace" in outcome.json()["msg"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param({"interfaces": []}, "holds no address", id="nothing held"),
        pytest.param({"interfaces": None}, "holds no address", id="null"),
        pytest.param({"interfaces": [{"interface": "eth0", "ipv4": "10.20.0.11/16"}]}, "10.20.0.10/16", id="other"),
        pytest.param({"interfaces": [{"interface": "eth0", "ipv4": "10.20.0.10/24"}]}, "10.20.0.10/16", id="prefix"),
        pytest.param({"interfaces": [{"interface": "net1", "ipv4": "10.20.0.10/16"}]}, "holds no address", id="nic"),
        pytest.param({"interfaces": [{"interface": "eth0", "ipv4": "10.20.0.10/16"}]}, "fd00:0::a/64", id="no ipv6"),
        pytest.param({"podUID": "another"}, "another", id="another pod of that name"),
    ],
)
def test_check_names_what_differs(plugin: Plugin, agent: FakeAgent, change: dict[str, Any], named: str) -> None:
    agent.answer = http(200, ENDPOINT | change)
    outcome = plugin.run("CHECK", plugin.config() | {"prevResult": PREVIOUS})
    assert outcome.code == 999
    assert named in outcome.json()["msg"]


def test_check_fails_without_a_record_even_when_the_runtime_knows_no_address(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(200, ENDPOINT | {"interfaces": []})
    assert plugin.run("CHECK", plugin.config() | {"prevResult": {}}).code == 999


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
