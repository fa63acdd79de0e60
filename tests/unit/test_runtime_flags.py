"""What the command lines of the daemons have in common."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer

from allocator.runtime.flags import HostPort, host_port

if TYPE_CHECKING:
    from collections.abc import Sequence

DAEMONS = {
    "spiderpool-agent": ("--node", "x"),
    "spiderpool-webhook": (),
    "spiderpool-controller": ("--namespace", "spiderpool"),
}


def run(daemon: str, arguments: Sequence[str], **environ: str) -> subprocess.CompletedProcess[str]:
    """The installed script, in an environment without settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SPIDERPOOL_")}
    script = Path(sys.executable).parent / daemon
    command = [str(script), *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        env={**clean, **environ},
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", HostPort("127.0.0.1", 80)),
        ("node-1.example:65535", HostPort("node-1.example", 65535)),
        ("[fd00::1]:80", HostPort("fd00::1", 80)),
        (":80", HostPort("", 80)),
        (" 80 ", HostPort("", 80)),
        ("127.0.0.1:0", HostPort("127.0.0.1", 0)),
        (":0", HostPort("", 0)),
        ("0", None),
    ],
)
def test_an_address_to_listen_on_is_a_host_and_a_port_or_a_port_or_nothing(text: str, address: HostPort | None) -> None:
    assert host_port(text) == address


@pytest.mark.parametrize(
    "text", ["", "host", "host:", "fd00::1:80", "[fd00::1]80", "[]:80", ":65536", ":-1", ":٣", "a:b:80"]
)
def test_other_texts_are_no_address_to_listen_on(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="give HOST:PORT"):
        host_port(text)


@pytest.mark.parametrize("text", [":80", "n1:80", "[fd00::1]:80"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert str(host_port(text)) == text


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_kubeconfig_that_is_not_there_is_one_line_and_empty_variables_are_unset(daemon: str) -> None:
    empty = dict.fromkeys(("SPIDERPOOL_LOG_LEVEL", "SPIDERPOOL_HEALTH_PORT", "SPIDERPOOL_WEBHOOK_PORT"), "")
    outcome = run(daemon, ["--kubeconfig", "/nowhere", *DAEMONS[daemon]], **empty)
    assert outcome.returncode == 2
    line = json.loads(outcome.stderr.splitlines()[-1])
    assert (line["event"], "/nowhere" in line["error"], "exception" in line) == ("process_failed", True, False)
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    ("daemon", "arguments", "environ", "named"),
    [
        ("spiderpool-agent", [], {"SPIDERPOOL_NODE_NAME": ""}, "SPIDERPOOL_NODE_NAME"),
        ("spiderpool-agent", ["--node", "x"], {"SPIDERPOOL_HEALTH_PORT": "http"}, "SPIDERPOOL_HEALTH_PORT"),
        ("spiderpool-webhook", ["--log-level", "loud"], {}, "--log-level"),
        ("spiderpool-webhook", ["--listen", "0"], {}, "--listen"),
        ("spiderpool-webhook", ["--register", "url"], {}, "--listen"),
        ("spiderpool-webhook", ["--certificates", "bought"], {}, "--certificates"),
        ("spiderpool-webhook", ["--cert-dir", "x", "--cert-secret", "y"], {}, "--cert-dir and --cert-secret"),
        ("spiderpool-webhook", [], {"SPIDERPOOL_METRIC_HTTP_PORT": "x"}, "SPIDERPOOL_METRIC_HTTP_PORT"),
        ("spiderpool-controller", ["--namespace", "x", "--loud"], {}, "--loud"),
        ("spiderpool-controller", ["--namespace", "x", "--config", "/dev/null/c"], {}, "/dev/null/c"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line_and_exit_code_2(
    daemon: str, arguments: list[str], environ: dict[str, str], named: str
) -> None:
    outcome = run(daemon, arguments, **environ)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    [line] = outcome.stderr.splitlines()
    assert line.startswith(f"{daemon}: ")
    assert named in line


@pytest.mark.parametrize(
    ("daemon", "shown"),
    [
        ("spiderpool-agent", "[default: 0.0.0.0:5710]"),
        ("spiderpool-webhook", "[default: :5722]"),
        ("spiderpool-controller", "[default: :5720]"),
    ],
)
def test_help_shows_defaults_and_variables(daemon: str, shown: str) -> None:
    outcome = run(daemon, ["--help"], COLUMNS="200")
    assert outcome.returncode == 0
    assert "[env var: SPIDERPOOL_HEALTH_PORT]" in outcome.stdout
    assert shown in outcome.stdout
