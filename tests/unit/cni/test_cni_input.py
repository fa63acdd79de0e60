"""What the environment and stdin may say, and which CNI error code answers what they may not."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.unit.cni.harness import FakeAgent, Plugin

VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


def test_version_needs_neither_stdin_nor_other_variables(plugin: Plugin) -> None:
    done = subprocess.run(
        [plugin.executable],
        stdin=subprocess.DEVNULL,
        env=plugin.base_environment | {"CNI_COMMAND": "VERSION"},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == {"cniVersion": "1.1.0", "supportedVersions": VERSIONS}


def test_version_answers_while_stdin_stays_open(plugin: Plugin) -> None:
    process = subprocess.Popen(
        [plugin.executable],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=plugin.base_environment | {"CNI_COMMAND": "VERSION"},
    )
    assert process.wait(timeout=10) == 0
    output, _ = process.communicate()
    assert json.loads(output)["supportedVersions"] == VERSIONS


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        pytest.param("add", {}, id="command in small letters"),
        pytest.param("EXPLODE", {}, id="unknown command"),
        pytest.param(None, {}, id="no command"),
        pytest.param("ADD", {"CNI_CONTAINERID": None}, id="no container"),
        pytest.param("ADD", {"CNI_CONTAINERID": "../../x"}, id="container climbs"),
        pytest.param("ADD", {"CNI_CONTAINERID": "-x"}, id="container starts with a dash"),
        pytest.param("ADD", {"CNI_CONTAINERID": "x\n"}, id="container ends with a line feed"),
        pytest.param("ADD", {"CNI_CONTAINERID": "x" * 201}, id="container too long"),
        pytest.param("ADD", {"CNI_IFNAME": None}, id="no interface"),
        pytest.param("ADD", {"CNI_IFNAME": "../../x"}, id="interface climbs"),
        pytest.param("ADD", {"CNI_IFNAME": ".."}, id="interface dot dot"),
        pytest.param("ADD", {"CNI_IFNAME": "eth 0"}, id="interface with space"),
        pytest.param("ADD", {"CNI_IFNAME": "eth0:1"}, id="interface alias"),
        pytest.param("ADD", {"CNI_IFNAME": "e" * 16}, id="interface too long"),
        pytest.param("ADD", {"CNI_IFNAME": "eth\udcff"}, id="interface that is no UTF-8"),
        pytest.param("ADD", {"CNI_NETNS": None}, id="no netns"),
        pytest.param("CHECK", {"CNI_NETNS": ""}, id="empty netns"),
        pytest.param("ADD", {"CNI_ARGS": None}, id="no args, so no pod"),
        pytest.param("ADD", {"CNI_ARGS": "K8S_POD_NAMESPACE=shop"}, id="no pod name"),
        pytest.param("ADD", {"CNI_ARGS": "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=a&b"}, id="no name of a pod"),
        pytest.param("ADD", {"CNI_ARGS": "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=a\udcff"}, id="a name that is no UTF-8"),
        pytest.param("ADD", {"CNI_ARGS": "K8S_POD_NAMESPACE=a=b;K8S_POD_NAME=x"}, id="= in a value"),
        pytest.param("ADD", {"CNI_ARGS": "K8S_POD_NAMESPACE;K8S_POD_NAME=x"}, id="pair without ="),
        pytest.param("ADD", {"CNI_ARGS": "K8S_POD_NAMESPACE=a;K8S_POD_NAME=x;COLOUR=red"}, id="unknown key"),
        pytest.param(
            "ADD",
            {"CNI_ARGS": "IgnoreUnknown=0;K8S_POD_NAMESPACE=a;K8S_POD_NAME=x;COLOUR=red"},
            id="unknown key refused in words",
        ),
        pytest.param(
            "ADD",
            {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=x;COLOUR=" + "r" * 65536},
            id="64 KiB of args",
        ),
        pytest.param("DEL", {"CNI_CONTAINERID": "../../x"}, id="DEL: container climbs"),
        pytest.param("DEL", {"CNI_IFNAME": "../../x"}, id="DEL: interface climbs"),
    ],
)
def test_a_wrong_environment_is_code_4_and_writes_nothing(
    plugin: Plugin, command: str | None, variables: dict[str, str | None]
) -> None:
    outcome = plugin.run(command, **variables)
    assert outcome.code == 4
    assert {path.name for path in plugin.home.rglob("*")} <= {"log", "spiderpool.log"}


@pytest.mark.parametrize(
    "args",
    [
        pytest.param("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-7d9", id="no UID, as old runtimes"),
        pytest.param("IgnoreUnknown=true;COLOUR=red;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-7d9", id="true"),
        pytest.param("K8S_POD_INFRA_CONTAINER_ID=4f0c;IP=;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-7d9;", id="all"),
    ],
)
def test_these_args_are_taken(plugin: Plugin, agent: FakeAgent, args: str) -> None:
    assert plugin.run("ADD", CNI_ARGS=args).status == 0
    sent = agent.requests[0].json()
    assert (sent["podNamespace"], sent["podName"], sent["podUID"]) == ("shop", "cart-7d9", "")


@pytest.mark.parametrize(
    "stdin",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="list"),
        pytest.param(b'{"cniVersion": "1.0.0"', id="cut off"),
        pytest.param(b'{"cniVersion": "1.0.0", "name": "\xff"}', id="not UTF-8"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, id="nested 100,000 deep"),
        pytest.param(b"[" * 100_000, id="100,000 brackets"),
        pytest.param(b'{"cniVersion": "1.0.0", "cniVersion": "0.4.0"}', id="a key twice"),
        pytest.param(b'{"cniVersion": "1.0.0", "ipam": {"x": NaN}}', id="NaN"),
        pytest.param(b'{"cniVersion": "1.0.0", "x": ' + b"9" * 5000 + b"}", id="5,000 digits"),
        pytest.param(b'{"cniVersion": "1.0.0"} {}', id="two documents"),
        pytest.param(b'{"x": "' + b"a" * 10_000_000 + b'"}', id="10 MB"),
    ],
)
def test_stdin_that_is_no_configuration_is_code_6(plugin: Plugin, stdin: bytes) -> None:
    outcome = plugin.run("ADD", stdin)
    assert outcome.code == 6


def test_10_mb_on_stdin_fit_into_64_mib_of_address_space(plugin: Plugin) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"ulimit -v 65536; exec {plugin.executable}"],
        input=b'{"x": "' + b"a" * 10_000_000 + b'"}',
        env=plugin.environment("ADD"),
        capture_output=True,
        check=False,
    )
    assert json.loads(done.stdout)["code"] == 6


def test_stdin_that_is_closed_is_code_5(plugin: Plugin) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {plugin.executable} <&-"],
        env=plugin.environment("ADD"),
        capture_output=True,
        check=False,
    )
    assert json.loads(done.stdout)["code"] == 5


def test_stdin_that_never_ends_is_given_up(plugin: Plugin) -> None:
    hasty = plugin.altered("import cni.commands; cni.commands.ADD_DEADLINE_S = -4")  # and 5 s more
    process = subprocess.Popen(
        [hasty.executable],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=plugin.environment("ADD"),
    )
    assert process.wait(timeout=10) == 1
    output, _ = process.communicate()
    assert json.loads(output)["code"] == 11
    assert "SIGALRM" in json.loads(output)["msg"]


@pytest.mark.parametrize("version", ["9.9.9", "0.1.0", "0.2.0", "", None, 1.0, {}])
def test_an_unknown_version_is_code_1_and_the_known_ones_are_named(plugin: Plugin, version: Any) -> None:
    outcome = plugin.run("ADD", plugin.config() | {"cniVersion": version})
    assert outcome.code == 1
    assert all(known in outcome.json()["details"] for known in VERSIONS)


@pytest.mark.parametrize(
    ("command", "version"),
    [("CHECK", "0.3.0"), ("CHECK", "0.3.1"), *((c, v) for c in ("STATUS", "GC") for v in VERSIONS[:-1])],
)
def test_a_command_that_the_version_does_not_have_is_code_1(plugin: Plugin, command: str, version: str) -> None:
    outcome = plugin.run(command, plugin.config(version))
    assert outcome.code == 1
    assert outcome.json()["cniVersion"] == version


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        pytest.param({"name": None}, "name", id="no name"),
        pytest.param({"name": "a/b"}, "name", id="name with a slash"),
        pytest.param({"ipam": None}, "ipam", id="no ipam"),
        pytest.param({"ipam": "spiderpool"}, "ipam", id="ipam is a string"),
    ],
)
def test_a_wrong_network_is_code_7_and_the_member_is_named(plugin: Plugin, changes: dict[str, Any], named: str) -> None:
    outcome = plugin.run("ADD", plugin.config() | {"ipam": plugin.ipam()} | changes)
    assert outcome.code == 7
    assert named in outcome.json()["msg"]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("log_level", "loud"),
        ("log_level", 3),
        ("log_file_max_size", "many"),
        ("log_file_max_size", 1.5),
        ("log_file_max_age", True),
        ("log_file_max_count", []),
        ("log_file_path", "spiderpool.log"),
        ("log_file_path", "/a\0b"),
        ("log_file_path", "/a\ud800"),
        ("default_ipv4_ippool", ["a\ud800"]),
        ("ipam_unix_socket_path", "agent.sock"),
        ("state_dir", 7),
        ("default_ipv4_ippool", "v4"),
        ("default_ipv6_ippool", [6]),
        ("clean_gateway", "yes"),
        ("match_master_subnet", 1),
    ],
)
def test_a_wrong_setting_is_code_7_and_the_member_is_named(plugin: Plugin, member: str, value: Any) -> None:
    outcome = plugin.run("ADD", plugin.config("1.0.0", **{member: value}))
    assert outcome.code == 7
    assert f"ipam.{member} must be" in outcome.json()["msg"]


def test_all_wrong_settings_are_named_at_once(plugin: Plugin) -> None:
    message = plugin.run("ADD", plugin.config("1.0.0", log_level=1, clean_gateway=1)).json()["msg"]
    assert "log_level" in message
    assert "clean_gateway" in message


def test_the_samples_numbers_as_strings_are_taken(plugin: Plugin, agent: FakeAgent) -> None:
    config = plugin.config(
        "0.3.1", log_level="DEBUG", log_file_max_size="100", log_file_max_age="30", log_file_max_count=7
    )
    assert plugin.run("ADD", config).status == 0


def test_negative_numbers_mean_the_default(plugin: Plugin, agent: FakeAgent) -> None:
    config = plugin.config("1.0.0", log_file_max_size=-1, log_file_max_age="-1", log_file_max_count=-1)
    assert plugin.run("ADD", config).status == 0
    assert len(plugin.log_lines()) == 1
