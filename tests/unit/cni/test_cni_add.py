"""ADD: one request, a checked answer, a result of the version asked for."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from tests.unit.cni.harness import ADDED, SOON_S, FakeAgent, http

if TYPE_CHECKING:
    from tests.unit.cni.harness import Plugin

DUAL: dict[str, Any] = {
    "ips": [
        {"address": "10.20.0.10/16", "gateway": "10.20.0.1", "ipPool": "v4", "nic": "eth0", "version": 4, "vlan": 7},
        {"address": "fd00::a/64", "ipPool": "v6", "nic": "eth0", "version": 6},
        {"address": "10.30.0.10/24", "gateway": "10.30.0.1", "nic": "net1", "version": 4},
    ],
    "routes": [
        {"ifName": "eth0", "dst": "10.99.0.0/16", "gw": "10.20.0.254"},
        {"ifName": "net1", "dst": "0.0.0.0/0", "gw": "10.30.0.1"},
    ],
    "dns": {},
}


def test_the_request_is_the_agents_api(plugin: Plugin, agent: FakeAgent) -> None:
    config = plugin.config("1.0.0", default_ipv4_ippool=["rack7-v4"], clean_gateway=True, match_master_subnet=False)
    assert plugin.run("ADD", config).status == 0
    (request,) = agent.requests
    assert (request.method, request.target) == ("POST", "/v1/ipam/ip")
    assert request.headers["Content-Type"] == "application/json"
    assert 59 < float(request.headers["X-Spiderpool-Deadline-Seconds"]) <= 60
    assert request.json() == {
        "containerID": "4f0c",
        "ifName": "eth0",
        "netNamespace": "/var/run/netns/cni-1",
        "podNamespace": "shop",
        "podName": "cart-7d9",
        "podUID": "9e0c6a52",
        "defaultIPv4IPPool": ["rack7-v4"],
        "defaultIPv6IPPool": None,
        "cleanGateway": True,
        "networkName": "underlay",
    }


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_the_result_has_this_interfaces_addresses_and_routes(plugin: Plugin, agent: FakeAgent, version: str) -> None:
    agent.answer = http(200, DUAL)
    outcome = plugin.run("ADD", plugin.config(version))
    assert outcome.status == 0
    assert outcome.json() == {
        "cniVersion": version,
        "ips": [{"address": "10.20.0.10/16", "gateway": "10.20.0.1"}, {"address": "fd00::a/64"}],
        "routes": [{"dst": "10.99.0.0/16", "gw": "10.20.0.254"}],
        "dns": {},
    }


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0"])
def test_before_version_1_every_address_carries_its_family(plugin: Plugin, agent: FakeAgent, version: str) -> None:
    agent.answer = http(200, DUAL)
    assert plugin.run("ADD", plugin.config(version)).json() == {
        "cniVersion": version,
        "ips": [
            {"version": "4", "address": "10.20.0.10/16", "gateway": "10.20.0.1"},
            {"version": "6", "address": "fd00::a/64"},
        ],
        "routes": [{"dst": "10.99.0.0/16", "gw": "10.20.0.254"}],
        "dns": {},
    }


def test_another_interface_gets_its_own_part_of_the_same_answer(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(200, DUAL)
    result = plugin.run("ADD", CNI_IFNAME="net1").json()
    assert result["ips"] == [{"address": "10.30.0.10/24", "gateway": "10.30.0.1"}]


def test_ipv4_comes_first_whatever_the_answers_order(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(200, DUAL | {"ips": DUAL["ips"][::-1]})
    assert [ip["address"] for ip in plugin.run("ADD").json()["ips"]] == ["10.20.0.10/16", "fd00::a/64"]


@pytest.mark.parametrize(
    ("dns", "expected"),
    [
        pytest.param(None, {}, id="null"),
        pytest.param({}, {}, id="empty"),
        pytest.param({"nameservers": [], "domain": "", "search": None}, {}, id="nothing said"),
        pytest.param({"nameservers": ["10.20.0.2", "fd00::2"]}, {"nameservers": ["10.20.0.2", "fd00::2"]}, id="some"),
        pytest.param(
            {"nameservers": ["10.20.0.2"], "domain": "a.b", "search": ["b"], "options": ["ndots:2"], "colour": "red"},
            {"nameservers": ["10.20.0.2"], "domain": "a.b", "search": ["b"], "options": ["ndots:2"]},
            id="all, and one that CNI does not know",
        ),
    ],
)
def test_the_answers_dns_is_the_results(
    plugin: Plugin, agent: FakeAgent, dns: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    agent.answer = http(200, ADDED | {"dns": dns})
    assert plugin.run("ADD").json()["dns"] == expected


@pytest.mark.parametrize("ips", [None, []])
def test_no_address_for_this_interface_is_an_error(plugin: Plugin, agent: FakeAgent, ips: list[Any] | None) -> None:
    agent.answer = http(200, {"ips": ips, "routes": None})
    assert plugin.run("ADD").code == 999


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"hello", id="not HTTP"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.0 2000 OK\r\n\r\n{}", id="status of four digits"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: many\r\n\r\n{}", id="length in words"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(ADDED).encode()[:-9], id="JSON cut off, no length"),
        pytest.param(http(200), id="no body"),
        pytest.param(http(200, b"[]"), id="list"),
        pytest.param(http(200, b"[" * 100_000), id="nested 100,000 deep"),
        pytest.param(http(200, {"ips": {"a": 1}}), id="ips is an object"),
        pytest.param(http(200, {"ips": ["10.20.0.10/16"]}), id="ips has strings"),
        pytest.param(http(200, {"ips": [{"nic": "eth0", "version": 4}]}), id="no address"),
        pytest.param(http(200, {"ips": [{"address": "10.20.0.10", "nic": "eth0", "version": 4}]}), id="no prefix"),
        pytest.param(http(200, {"ips": [{"address": "10.20.0.10/33", "nic": "eth0", "version": 4}]}), id="/33"),
        pytest.param(http(200, {"ips": [{"address": "10.20.0.300/8", "nic": "eth0", "version": 4}]}), id="octet 300"),
        pytest.param(http(200, {"ips": [{"address": "fe80::1%eth0/64", "nic": "eth0", "version": 6}]}), id="zone"),
        pytest.param(http(200, {"ips": [{"address": "10.20.0.10/16", "nic": "eth0", "version": 6}]}), id="family"),
        pytest.param(http(200, {"ips": [{"address": "10.20.0.10/16", "version": 4}]}), id="no nic"),
        pytest.param(
            http(200, {"ips": [{"address": "10.20.0.10/16", "gateway": "fd00::1", "nic": "eth0", "version": 4}]}),
            id="gateway of the other family",
        ),
        pytest.param(http(200, ADDED | {"routes": [{"ifName": "eth0", "dst": "x", "gw": "10.0.0.1"}]}), id="dst"),
        pytest.param(http(200, ADDED | {"routes": [{"ifName": "eth0", "dst": "10.0.0.0/8"}]}), id="route without gw"),
        pytest.param(http(200, ADDED | {"dns": "10.20.0.2"}), id="dns is a string"),
        pytest.param(http(200, ADDED | {"dns": {"nameservers": "10.20.0.2"}}), id="nameservers is a string"),
        pytest.param(http(200, ADDED | {"dns": {"nameservers": ["a.b"]}}), id="nameserver by name"),
        pytest.param(http(200, ADDED | {"dns": {"search": [1]}}), id="search has numbers"),
        pytest.param(http(200, ADDED | {"dns": {"domain": ["a.b"]}}), id="domain is a list"),
    ],
)
def test_an_answer_without_sense_is_code_6(plugin: Plugin, agent: FakeAgent, answer: bytes) -> None:
    agent.answer = answer
    assert plugin.run("ADD").code == 6


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-", id="in the headers"),
        pytest.param(http(200, ADDED)[:-5], id="in the body"),
    ],
)
def test_an_agent_that_breaks_off_means_try_again(plugin: Plugin, agent: FakeAgent, answer: bytes) -> None:
    agent.answer = answer
    assert plugin.run("ADD").code == 11


def test_an_answer_of_10_mb_is_code_5(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(200, b'"' + b"a" * 10_000_000 + b'"')
    assert plugin.run("ADD").code == 5


@pytest.mark.parametrize(
    ("answer", "code", "message", "details"),
    [
        pytest.param(
            http(500, "pool v4 is full", x_spiderpool_reason="Exhausted", x_spiderpool_cni_code="11"),
            11,
            "pool v4 is full",
            "Exhausted",
            id="ours",
        ),
        pytest.param(http(500, "no IP available"), 999, "no IP available", "500", id="the original's"),
        pytest.param(http(500, "x", x_spiderpool_cni_code="a lot"), 999, "x", "500", id="code in words"),
        pytest.param(
            http(422, {"code": 602, "message": "podUID in body is required"}),
            999,
            "podUID in body is required",
            "422",
            id="schema",
        ),
        pytest.param(http(503, b"starting\n"), 11, "starting", "503", id="plain text, busy"),
        pytest.param(http(500), 999, "the agent gave no reason", "500", id="no text"),
        pytest.param(http(500, b"\xff\xfe"), 999, "\N{REPLACEMENT CHARACTER}" * 2, "500", id="not UTF-8"),
        pytest.param(http(500, "x" * 100_000), 999, "x" * 2000, "500", id="a long text is cut"),
        pytest.param(http(302, "elsewhere"), 999, "elsewhere", "302", id="redirect"),
    ],
)
def test_the_agents_error_is_passed_on(
    plugin: Plugin, agent: FakeAgent, answer: bytes, code: int, message: str, details: str
) -> None:
    agent.answer = answer
    outcome = plugin.run("ADD")
    assert outcome.code == code
    assert outcome.json()["msg"] == message
    assert details in outcome.json()["details"]


def test_without_a_socket_add_says_try_again_soon(plugin: Plugin) -> None:
    outcome = plugin.run("ADD")
    assert outcome.code == 11
    assert str(plugin.socket_path) in outcome.json()["msg"]
    assert "spiderpool-agent" in outcome.json()["details"]
    assert 1.5 < outcome.seconds < SOON_S


def test_add_waits_for_an_agent_that_restarts(plugin: Plugin) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(plugin.socket_path))  # a socket file that nobody listens on: the agent was killed
    stale.close()
    process = plugin.start("ADD")
    with pytest.raises(TimeoutError):
        wait(process, 0.3)
    plugin.socket_path.unlink()
    with FakeAgent(plugin.socket_path):
        output, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert json.loads(output)["ips"][0]["address"] == "10.20.0.10/16"


def wait(process: Any, seconds: float) -> None:
    try:
        process.wait(seconds)
    except Exception as error:
        raise TimeoutError from error


def test_a_full_queue_of_connections_is_waited_for(plugin: Plugin) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(plugin.socket_path))
    listener.listen(0)
    filling = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    for client in filling:
        client.setblocking(False)
        client.connect_ex(str(plugin.socket_path))
    outcome = plugin.run("ADD")
    for sock in (*filling, listener):
        sock.close()
    assert outcome.code == 11
    assert outcome.seconds < SOON_S


@pytest.mark.parametrize("path", ["/" + "x" * 200, "/etc/passwd/agent.sock"], ids=["too long", "not a folder"])
def test_a_socket_path_that_cannot_be_is_code_5_at_once(plugin: Plugin, path: str) -> None:
    outcome = plugin.run("ADD", plugin.config("1.0.0", ipam_unix_socket_path=path))
    assert outcome.code == 5
    assert path in outcome.json()["msg"]
    assert outcome.seconds < SOON_S


@pytest.fixture
def hasty(plugin: Plugin) -> Plugin:
    """The plugin with a deadline of half a second in place of a minute."""
    return plugin.altered("import cni.commands; cni.commands.ADD_DEADLINE_S = 0.5")


def test_an_agent_that_hangs_costs_the_deadline_and_no_more(hasty: Plugin) -> None:
    with FakeAgent(hasty.socket_path) as agent:
        agent.answer = None
        outcome = hasty.run("ADD")
    assert outcome.code == 11
    assert 0.5 <= outcome.seconds < SOON_S


def test_an_agent_that_sends_a_byte_now_and_then_meets_the_same_deadline(hasty: Plugin) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(hasty.socket_path))
    listener.listen()

    def trickle() -> None:
        client, _ = listener.accept()
        answer = iter(http(200, ADDED) * 100)
        pause = threading.Event()
        try:
            while not pause.wait(0.05):
                client.sendall(bytes([next(answer)]))
        except (BrokenPipeError, ConnectionResetError):
            client.close()

    thread = threading.Thread(target=trickle)
    thread.start()
    outcome = hasty.run("ADD")
    thread.join(timeout=5)
    listener.close()
    assert outcome.code == 11
    assert outcome.seconds < SOON_S


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_add_with_an_error_document(plugin: Plugin, agent: FakeAgent, number: signal.Signals) -> None:
    agent.answer = None
    process = plugin.start("ADD")
    assert agent.got_request.wait(10)
    started = time.monotonic()
    process.send_signal(number)
    output, errors = process.communicate(timeout=10)
    assert time.monotonic() - started < 1
    assert process.returncode == 1
    assert json.loads(output)["code"] == 11
    assert number.name in json.loads(output)["msg"]
    assert b"Traceback" not in errors


def test_a_bug_is_code_999_with_a_traceback_on_stderr_only(plugin: Plugin) -> None:
    outcome = plugin.altered("import cni.commands; cni.commands.COMMANDS['ADD'] = lambda call: 1 / 0").run("ADD")
    assert outcome.status == 1
    assert outcome.json()["code"] == 999
    assert "ZeroDivisionError" in outcome.json()["msg"]
    assert "Traceback" in outcome.stderr


def test_stdout_that_is_closed_fails_the_command(plugin: Plugin, agent: FakeAgent) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {plugin.executable} >&-"],
        input=json.dumps(plugin.config()).encode(),
        env=plugin.environment("ADD"),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1


async def test_the_server_library_of_our_agent_understands_the_request(plugin: Plugin) -> None:
    seen: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return web.json_response(ADDED)

    app = web.Application()
    app.router.add_post("/v1/ipam/ip", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(plugin.socket_path)).start()
    try:
        outcome = await asyncio.to_thread(plugin.run, "ADD")
    finally:
        await runner.cleanup()
    assert outcome.status == 0
    assert seen[0]["podName"] == "cart-7d9"
