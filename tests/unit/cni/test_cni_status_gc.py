"""STATUS and GC: commands about a network, without container and interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.cni.harness import SOON_S, FakeAgent, Request, http

if TYPE_CHECKING:
    from tests.unit.cni.harness import Outcome, Plugin

UNKNOWN_ROUTES = (404, 405, 501)


def run(plugin: Plugin, command: str, config: dict[str, Any] | None = None) -> Outcome:
    without = dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"))
    return plugin.run(command, config or plugin.config("1.1.0"), **without)


def test_status_asks_whether_the_networks_pools_can_serve(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(200)
    outcome = run(plugin, "STATUS", plugin.config("1.1.0", default_ipv4_ippool=["rack7"]))
    assert (outcome.status, outcome.stdout) == (0, b"")
    (request,) = agent.requests
    assert (request.method, request.target) == ("POST", "/v1/ipam/status")
    assert request.json() == {"defaultIPv4IPPool": ["rack7"], "defaultIPv6IPPool": None}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        pytest.param({"x_spiderpool_cni_code": "50"}, 50, id="not available"),
        pytest.param({"x_spiderpool_cni_code": "51"}, 51, id="limited: new containers fail, old ones work"),
        pytest.param({"x_spiderpool_cni_code": "11"}, 50, id="another code"),
        pytest.param({}, 50, id="no code"),
    ],
)
def test_a_refused_status_has_one_of_its_two_codes(
    plugin: Plugin, agent: FakeAgent, headers: dict[str, str], code: int
) -> None:
    agent.answer = http(500, "all pools are exhausted", **headers)
    outcome = run(plugin, "STATUS")
    assert (outcome.code, outcome.json()["msg"]) == (code, "all pools are exhausted")


@pytest.mark.parametrize("unknown", UNKNOWN_ROUTES)
@pytest.mark.parametrize(("ready", "code"), [(200, 0), (500, 50)])
def test_status_of_an_agent_without_the_route_is_its_readiness(
    plugin: Plugin, agent: FakeAgent, unknown: int, ready: int, code: int
) -> None:
    def answer(request: Request) -> bytes:
        return http(ready, "caches") if request.target == "/v1/runtime/readiness" else http(unknown, "no such route")

    agent.answer = answer
    outcome = run(plugin, "STATUS")
    assert (outcome.code if outcome.status else 0) == code


def test_status_of_something_that_is_no_agent_is_code_50(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(404, "not found")
    assert run(plugin, "STATUS").code == 50


def test_status_without_agent_is_code_50_at_once(plugin: Plugin) -> None:
    outcome = run(plugin, "STATUS")
    assert outcome.code == 50
    assert outcome.seconds < SOON_S


def attachments(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"containerID": container, "ifname": interface} for container, interface in pairs]


def test_gc_hands_network_and_valid_attachments_to_the_agent(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(200)
    valid = attachments(("4f0c", "eth0"), ("4f0c", "net1"))
    outcome = run(plugin, "GC", plugin.config("1.1.0") | {"cni.dev/valid-attachments": valid})
    assert (outcome.status, outcome.stdout) == (0, b"")
    (request,) = agent.requests
    assert (request.method, request.target) == ("POST", "/v1/ipam/gc")
    assert request.json() == {
        "networkName": "underlay",
        "validAttachments": [{"containerID": "4f0c", "ifName": "eth0"}, {"containerID": "4f0c", "ifName": "net1"}],
    }


def test_an_empty_list_is_a_list(plugin: Plugin, agent: FakeAgent) -> None:
    """Whether it can be true, with pods running, is for the agent to judge."""
    agent.answer = http(200)
    assert run(plugin, "GC", plugin.config("1.1.0") | {"cni.dev/valid-attachments": []}).status == 0
    assert agent.requests[0].json()["validAttachments"] == []


def test_what_either_of_two_lists_has_is_valid(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(200)
    lists = {
        "cni.dev/valid-attachments": attachments(("a", "eth0")),
        "cni.dev/attachments": attachments(("b", "eth0")),
    }
    assert run(plugin, "GC", plugin.config("1.1.0") | lists).status == 0
    assert [item["containerID"] for item in agent.requests[0].json()["validAttachments"]] == ["a", "b"]


def test_the_list_under_its_other_name_counts_alone(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(200)
    config = plugin.config("1.1.0") | {"cni.dev/attachments": attachments(("b", "eth0"))}
    assert run(plugin, "GC", config).status == 0
    assert agent.requests[0].json()["validAttachments"] == [{"containerID": "b", "ifName": "eth0"}]


@pytest.mark.parametrize(
    "lists",
    [
        pytest.param({}, id="missing"),
        pytest.param({"cni.dev/valid-attachments": None}, id="null"),
        pytest.param({"cni.dev/valid-attachments": {}}, id="object"),
        pytest.param({"cni.dev/valid-attachments": {"containerID": "a", "ifname": "eth0"}}, id="one, not in a list"),
        pytest.param({"cni.dev/valid-attachments": ["a/eth0"]}, id="strings"),
        pytest.param({"cni.dev/valid-attachments": [{"containerID": "a"}]}, id="no interface"),
        pytest.param({"cni.dev/valid-attachments": [{"containerID": "", "ifname": "eth0"}]}, id="empty container"),
        pytest.param({"cni.dev/valid-attachments": [{"containerID": "a", "ifName": "eth0"}]}, id="capital N"),
        pytest.param({"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "\ud800"}]}, id="half a character"),
        pytest.param({"cni.dev/valid-attachments": [], "cni.dev/attachments": "all"}, id="the other is a string"),
    ],
)
def test_a_list_that_is_missing_or_torn_is_code_7_and_asks_nothing(
    plugin: Plugin, agent: FakeAgent, lists: dict[str, Any]
) -> None:
    assert run(plugin, "GC", plugin.config("1.1.0") | lists).code == 7
    assert agent.requests == []


def test_gc_fails_with_the_agents_words_and_code(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(500, "this would release 40 of 50 attachments", x_spiderpool_cni_code="11")
    outcome = run(plugin, "GC", plugin.config("1.1.0") | {"cni.dev/valid-attachments": []})
    assert (outcome.code, outcome.json()["msg"]) == (11, "this would release 40 of 50 attachments")


def test_gc_without_agent_is_for_later(plugin: Plugin) -> None:
    assert run(plugin, "GC", plugin.config("1.1.0") | {"cni.dev/valid-attachments": []}).code == 11


@pytest.mark.parametrize("unknown", UNKNOWN_ROUTES)
def test_gc_does_nothing_with_an_agent_that_does_not_know_it(plugin: Plugin, agent: FakeAgent, unknown: int) -> None:
    agent.answer = http(unknown, {"code": unknown, "message": "operation has not yet been implemented"})
    outcome = run(plugin, "GC", plugin.config("1.1.0") | {"cni.dev/valid-attachments": []})
    assert (outcome.status, outcome.stdout) == (0, b"")
    assert plugin.log_lines()[0]["level"] == "warn"
