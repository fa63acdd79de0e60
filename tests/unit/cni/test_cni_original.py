"""An agent of the original under this plugin: its routes, its answers, nothing that ours adds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.cni.harness import FakeAgent, Request, http

if TYPE_CHECKING:
    from tests.unit.cni.harness import Plugin

# go-openapi's own answers: an operation that this server does not have, a missing member.
NOT_HERE = http(501, {"code": 501, "message": "operation runtime.GetRuntimeReadiness has not yet been implemented"})
IPV4: dict[str, Any] = {
    "address": "10.20.0.10/16",
    "enableGatewayDetection": False,
    "gateway": "10.20.0.1",
    "ipPool": "rack7-v4",
    "nic": "eth0",
    "version": 4,
}
IPV6: dict[str, Any] = {"address": "fd00::a/64", "ipPool": "rack7-v6", "nic": "eth0", "version": 6, "vlan": 7}


@dataclass(slots=True)
class Original:
    """What it answers on its socket; the rest of its routes and all of ours are not there."""

    add: bytes = field(default_factory=lambda: http(200, {"ips": [IPV4], "routes": None}))
    delete: bytes = http(200)
    endpoint: bytes = http(404, "endpoint not found")

    def __call__(self, request: Request) -> bytes:
        known = {
            ("GET", "/v1/ipam/healthy"): http(200),
            ("POST", "/v1/ipam/ip"): self.add,
            ("DELETE", "/v1/ipam/ip"): self.delete,
            ("GET", "/v1/workloadendpoint?podNamespace=shop&podName=cart-7d9"): self.endpoint,
        }
        return known.get((request.method, request.target), NOT_HERE)


@pytest.mark.parametrize(
    ("answer", "ips", "routes"),
    [
        pytest.param({"ips": [IPV4], "routes": None}, ["10.20.0.10/16"], None, id="no routes is null, no dns"),
        pytest.param({"ips": [IPV4], "routes": []}, ["10.20.0.10/16"], None, id="no routes is an empty list"),
        pytest.param({"ips": [IPV4], "routes": None, "dns": {}}, ["10.20.0.10/16"], None, id="empty dns"),
        pytest.param(
            {"ips": [IPV6, IPV4], "routes": None}, ["10.20.0.10/16", "fd00::a/64"], None, id="families in any order"
        ),
        pytest.param({"ips": [IPV6], "routes": None}, ["fd00::a/64"], None, id="no gateway, a vlan"),
        pytest.param(
            {
                "ips": [IPV4, IPV4 | {"nic": "net1", "address": "10.30.0.10/24", "mac": "02:00:00:00:00:01"}],
                "routes": [
                    {"ifName": "eth0", "dst": "0.0.0.0/0", "gw": "10.20.0.1"},
                    {"ifName": "net1", "dst": "10.9.0.0/16", "gw": "10.30.0.1"},
                ],
            },
            ["10.20.0.10/16"],
            [{"dst": "0.0.0.0/0", "gw": "10.20.0.1"}],
            id="another interface in the same answer",
        ),
    ],
)
def test_an_answer_to_add_is_taken(
    plugin: Plugin, agent: FakeAgent, answer: dict[str, Any], ips: list[str], routes: list[Any] | None
) -> None:
    agent.answer = Original(add=http(200, answer))
    result = plugin.run("ADD").json()
    assert [ip["address"] for ip in result["ips"]] == ips
    assert result.get("routes") == routes
    assert result["dns"] == {}


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        pytest.param(http(500, "all IP addresses used out"), 999, "all IP addresses used out", id="bare string"),
        pytest.param(http(200, {"ips": None, "routes": None}), 999, "the agent gave eth0 no address", id="ips null"),
        pytest.param(
            http(422, {"code": 602, "message": "podUID in body is required"}),
            999,
            "podUID in body is required",
            id="422 with a code of its own",
        ),
        pytest.param(http(500), 999, "the agent gave no reason", id="500 without a word"),
        pytest.param(http(503, "overload"), 11, "overload", id="503 is for later"),
        pytest.param(NOT_HERE, 999, "has not yet been implemented", id="no such operation"),
    ],
)
def test_a_refused_add_is_an_error_with_its_words(
    plugin: Plugin, agent: FakeAgent, answer: bytes, code: int, message: str
) -> None:
    agent.answer = Original(add=answer)
    outcome = plugin.run("ADD")
    assert outcome.code == code
    assert message in outcome.json()["msg"]


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        pytest.param(http(200), 0, id="done"),
        pytest.param(http(500, "failed to release"), 1, id="refused: kept, where the original would leak"),
        pytest.param(NOT_HERE, 1, id="no such operation"),
    ],
)
def test_a_del_succeeds(plugin: Plugin, agent: FakeAgent, answer: bytes, kept: int) -> None:
    agent.answer = Original(delete=answer)
    assert plugin.run("DEL").status == 0
    assert len(plugin.intents()) == kept


def endpoint(**interface: Any) -> bytes:
    """Whose routes have no interface name, against its own schema."""
    routes = [{"ifName": None, "dst": "0.0.0.0/0", "gw": "10.20.0.1"}]
    members = {"podNamespace": "shop", "podName": "cart-7d9", "podUID": "9e0c6a52", "node": "n1"}
    return http(200, members | {"interfaces": [{"interface": "eth0", "routes": routes} | interface]})


@pytest.mark.root
def test_a_check_succeeds(plugin: Plugin, agent: FakeAgent, netns: Any) -> None:
    agent.answer = Original(endpoint=endpoint(ipv4="10.20.0.10/16", ipv4Pool="rack7-v4", ipv4Gateway="10.20.0.1"))
    config = plugin.config() | {"prevResult": {"ips": [{"address": "10.20.0.10/16"}]}}
    assert plugin.run("CHECK", config, CNI_NETNS=str(netns)).status == 0


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(http(404, "endpoint not found"), id="no endpoint"),
        pytest.param(http(422, {"code": 602, "message": "podName in query is required"}), id="missing parameter"),
        pytest.param(http(500, "cache"), id="failure"),
        pytest.param(endpoint(), id="no address"),
    ],
)
def test_a_check_fails(plugin: Plugin, agent: FakeAgent, answer: bytes) -> None:
    agent.answer = Original(endpoint=answer)
    config = plugin.config() | {"prevResult": {"ips": [{"address": "10.20.0.10/16"}]}}
    assert plugin.run("CHECK", config).code == 999


def test_its_health_is_its_status(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = Original()
    assert plugin.run("STATUS", plugin.config("1.1.0")).status == 0
    assert [request.target for request in agent.requests] == [
        "/v1/ipam/status",
        "/v1/runtime/readiness",
        "/v1/ipam/healthy",
    ]


def test_it_collects_no_garbage_on_request(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = Original()
    assert plugin.run("GC", plugin.config("1.1.0") | {"cni.dev/valid-attachments": []}).status == 0
