"""DEL: always a success for the runtime, never a lost release."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.cni.harness import SOON_S, http

if TYPE_CHECKING:
    from tests.unit.cni.harness import FakeAgent, Plugin

RELEASE = {
    "containerID": "4f0c",
    "ifName": "eth0",
    "netNamespace": "/var/run/netns/cni-1",
    "podNamespace": "shop",
    "podName": "cart-7d9",
    "podUID": "9e0c6a52",
}


def test_a_release_is_one_request_and_prints_nothing(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(200)
    outcome = plugin.run("DEL")
    assert (outcome.status, outcome.stdout, plugin.intents()) == (0, b"", [])
    (request,) = agent.requests
    assert (request.method, request.target, request.json()) == ("DELETE", "/v1/ipam/ip", RELEASE)


@pytest.mark.parametrize(
    ("config", "variables"),
    [
        pytest.param({}, {"CNI_NETNS": None}, id="no netns"),
        pytest.param({}, {"CNI_NETNS": ""}, id="empty netns"),
        pytest.param({}, {"CNI_ARGS": None}, id="no args"),
        pytest.param({}, {"CNI_ARGS": "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-7d9"}, id="no UID"),
        pytest.param({}, {"CNI_ARGS": "COLOUR=red;x=y=z;;"}, id="args without sense"),
        pytest.param({"name": None}, {}, id="no name"),
        pytest.param({"cniVersion": None}, {}, id="no version"),
        pytest.param({"cniVersion": None, "name": None, "type": None}, {}, id="only ipam"),
        pytest.param({"prevResult": None}, {}, id="no prevResult"),
    ],
)
def test_a_release_needs_container_and_interface_only(
    plugin: Plugin, agent: FakeAgent, config: dict[str, Any], variables: dict[str, str | None]
) -> None:
    agent.answer = http(200)
    whole = plugin.config() | config
    outcome = plugin.run("DEL", {key: value for key, value in whole.items() if value is not None}, **variables)
    assert (outcome.status, outcome.stdout) == (0, b"")
    sent = agent.requests[0].json()
    assert (sent["containerID"], sent["ifName"]) == ("4f0c", "eth0")
    assert set(sent) == set(RELEASE)


@pytest.mark.parametrize(
    "args", ["K8S_POD_NAMESPACE=shop;K8S_POD_NAME=a/../b;K8S_POD_UID=9e0c", "K8S_POD_NAMESPACE=s\udcff;K8S_POD_NAME=x"]
)
def test_a_release_for_a_pod_that_cannot_be_leaves_it_to_the_sandbox_whose_it_is(
    plugin: Plugin, agent: FakeAgent, args: str
) -> None:
    agent.answer = http(200)
    assert plugin.run("DEL", CNI_ARGS=args, CNI_NETNS="/x\udcff").status == 0
    nobody = {"podNamespace": "", "podName": "", "podUID": ""}
    assert agent.requests[0].json() == RELEASE | nobody | {"netNamespace": "/x\N{REPLACEMENT CHARACTER}"}


def test_wrong_settings_do_not_stop_a_release(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(200)
    outcome = plugin.run("DEL", plugin.config("1.0.0", log_level="loud", default_ipv4_ippool="v4"))
    assert outcome.status == 0
    assert len(agent.requests) == 1
    assert "ipam.log_level" in outcome.stderr


@pytest.mark.parametrize(
    "stdin",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"ipam": {"type": "spider', id="cut off"),
        pytest.param(b'{"ipam": {"type": "spiderpool"}}', id="only the type"),
        pytest.param(b'{"cniVersion": "1.0.0", "name": "underlay", "type": "macvlan"}', id="no ipam"),
        pytest.param(b'{"cniVersion": "9.9.9", "ipam": []}', id="unknown version"),
        pytest.param(b"x" * 2_000_000, id="2 MB"),
    ],
)
def test_a_release_is_kept_for_the_nodes_agent_whatever_is_left_of_the_configuration(
    plugin: Plugin, stdin: bytes
) -> None:
    """Without the settings: in the places where agent and plugin meet by default."""
    outcome = plugin.altered(elsewhere(plugin)).run("DEL", stdin)
    assert (outcome.status, outcome.stdout, plugin.intents()) == (0, b"", [RELEASE])


@pytest.mark.parametrize("stdin", [b"", b'{"ipam": {"type": "spiderpool"}}'])
def test_a_release_without_settings_reaches_the_nodes_agent(plugin: Plugin, agent: FakeAgent, stdin: bytes) -> None:
    agent.answer = http(200)
    assert plugin.altered(elsewhere(plugin)).run("DEL", stdin).status == 0
    assert [request.json() for request in agent.requests] == [RELEASE]
    assert plugin.intents() == []


def elsewhere(plugin: Plugin) -> str:
    """Default places under the test's own folder."""
    places = {key: value for key, value in plugin.ipam().items() if key != "type"}
    return f"from cni.call import PATH, SETTINGS; SETTINGS |= {{k: (v, PATH) for k, v in {places}.items()}}"


def test_five_releases_in_a_row_succeed(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(200)
    assert [plugin.run("DEL").status for _ in range(5)] == [0] * 5


def test_without_agent_the_release_is_kept_soon(plugin: Plugin) -> None:
    outcome = plugin.run("DEL")
    assert (outcome.status, outcome.stdout) == (0, b"")
    assert outcome.seconds < SOON_S
    folder = plugin.home / "state" / "intents"
    (intent,) = folder.iterdir()
    assert intent.name == "4f0c@eth0.json"
    assert json.loads(intent.read_bytes()) == RELEASE
    assert folder.stat().st_mode & 0o777 == 0o700
    assert intent.stat().st_mode & 0o777 == 0o600


def test_a_repeated_release_is_kept_once_and_another_interface_apart(plugin: Plugin) -> None:
    for interface in ("eth0", "eth0", "net1"):
        assert plugin.run("DEL", CNI_IFNAME=interface).status == 0
    assert sorted(intent["ifName"] for intent in plugin.intents()) == ["eth0", "net1"]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to see the order of the system calls")
def test_the_kept_release_is_on_disk_before_its_name_is(plugin: Plugin) -> None:
    """fsync of the file, rename, fsync of the folder: what a power cut needs, in this order."""
    telling = """
import os
def told(name, call):
    return lambda *arguments: os.write(2, name + b"\\n") and call(*arguments)
os.fsync, os.rename = told(b"fsync", os.fsync), told(b"rename", os.rename)
"""
    outcome = plugin.altered(telling).run("DEL")
    assert (outcome.status, outcome.stderr.split()) == (0, ["fsync", "rename", "fsync", "fsync"])


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(http(500, "the API server does not answer"), id="agent refuses"),
        pytest.param(http(422, {"code": 602, "message": "podUID in body is required"}), id="agent wants more"),
        pytest.param(http(200, b"x" * 2_000_000), id="2 MB"),
        pytest.param(b"garbage", id="garbage"),
        pytest.param(b"", id="breaks off"),
    ],
)
def test_a_release_that_the_agent_does_not_do_is_kept(plugin: Plugin, agent: FakeAgent, answer: bytes) -> None:
    agent.answer = answer
    outcome = plugin.run("DEL")
    assert (outcome.status, outcome.stdout, plugin.intents()) == (0, b"", [RELEASE])


def test_an_agent_that_hangs_does_not_hold_up_the_runtime_and_the_release_is_kept(
    plugin: Plugin, agent: FakeAgent
) -> None:
    agent.answer = None
    outcome = plugin.run("DEL")
    assert (outcome.status, plugin.intents()) == (0, [RELEASE])
    assert outcome.seconds < SOON_S
    assert float(agent.requests[0].headers["X-Spiderpool-Deadline-Seconds"]) < 2


def test_signals_while_the_agent_works_keep_the_release(plugin: Plugin, agent: FakeAgent) -> None:
    """Many, so that some come while the release is written."""
    agent.answer = None
    process = plugin.start("DEL")
    assert agent.got_request.wait(10)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=10)[0] == b""
    assert (process.returncode, plugin.intents()) == (0, [RELEASE])


def test_when_not_even_the_intent_can_be_kept_the_runtime_must_come_again(plugin: Plugin) -> None:
    (plugin.home / "state").write_text("a file where the folder should be")
    outcome = plugin.run("DEL")
    assert outcome.code == 11
    assert "intents" in outcome.json()["details"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a full tmpfs")
@pytest.mark.root
def test_on_a_full_disk_the_runtime_must_come_again_and_nothing_torn_stays(plugin: Plugin) -> None:
    config = json.dumps(plugin.config("1.0.0", state_dir="/mnt/state"))
    script = f"""
        mount -t tmpfs -o size=4k,mode=700 tmpfs /mnt && mkdir -p /mnt/state/intents || exit 77
        dd if=/dev/zero of=/mnt/fill bs=4k count=1 2>/dev/null
        echo '{config}' | {plugin.executable}; status=$?
        ls -A /mnt/state/intents >&2; exit $status
    """
    done = subprocess.run(
        ["unshare", "--mount", "/bin/sh", "-c", script],
        env=plugin.environment("DEL", PATH=os.environ["PATH"]),
        capture_output=True,
        check=False,
    )
    if done.returncode == 77 or b"unshare" in done.stderr:
        pytest.skip("may not mount a tmpfs here")
    assert json.loads(done.stdout)["code"] == 11
    assert done.stderr == b""


def test_twenty_releases_at_once_without_agent_are_all_kept(plugin: Plugin) -> None:
    processes = [plugin.start("DEL", CNI_CONTAINERID=f"c{number}") for number in range(20)]
    for process in processes:
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert sorted(intent["containerID"] for intent in plugin.intents()) == sorted(f"c{n}" for n in range(20))
