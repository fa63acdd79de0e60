"""The log: one JSON line per command, within its limits, and never in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tests.unit.cni.harness import http

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cni.harness import FakeAgent, Plugin

MIB = 1 << 20


def test_a_success_is_one_line_with_the_pod_and_its_addresses(plugin: Plugin, agent: FakeAgent) -> None:
    plugin.run("ADD")
    (line,) = plugin.log_lines()
    assert datetime.fromisoformat(line.pop("ts")).astimezone(UTC).year >= 2026
    assert 0 <= line.pop("duration_ms") < 5000
    assert line == {
        "level": "info",
        "event": "cni_command_done",
        "Action": "ADD",
        "ContainerID": "4f0c",
        "Netns": "/var/run/netns/cni-1",
        "IfName": "eth0",
        "PodName": "cart-7d9",
        "PodNamespace": "shop",
        "PodUID": "9e0c6a52",
        "ips": ["10.20.0.10/16"],
    }


def test_a_failure_is_one_line_with_its_reason(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(500, "pool v4 is full", x_spiderpool_reason="Exhausted")
    plugin.run("ADD")
    (line,) = plugin.log_lines()
    assert (line["level"], line["error"], line["code"]) == ("error", "pool v4 is full", 999)
    assert "Exhausted" in line["details"]


def test_a_kept_release_is_a_warning(plugin: Plugin) -> None:
    plugin.run("DEL")
    (line,) = plugin.log_lines()
    assert line["level"] == "warn"
    assert "no agent listens" in line["warning"]


@pytest.mark.parametrize(("level", "lines"), [("debug", 2), ("Info", 2), ("warn", 1), ("ERROR", 1), ("panic", 1)])
def test_the_level_decides_which_lines_are_written(plugin: Plugin, agent: FakeAgent, level: str, lines: int) -> None:
    config = plugin.config("1.0.0", log_level=level)
    plugin.run("ADD", config)
    agent.answer = http(500, "no")
    plugin.run("ADD", config)
    assert len(plugin.log_lines()) == lines


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "parent is a file"])
def test_a_log_that_cannot_be_written_is_told_on_stderr_only(plugin: Plugin, agent: FakeAgent, kind: str) -> None:
    if kind == "parent is a file":
        plugin.log_path.parent.write_text("")
    else:
        plugin.log_path.parent.mkdir()
    if kind == "folder":
        plugin.log_path.mkdir()
    elif kind == "pipe":
        os.mkfifo(plugin.log_path)
    elif kind == "link":
        plugin.log_path.symlink_to(plugin.home / "elsewhere")
    outcome = plugin.run("ADD")
    assert outcome.status == 0
    assert outcome.json()["ips"]
    assert "cannot log to" in outcome.stderr
    assert not (plugin.home / "elsewhere").exists()


def test_line_feeds_in_names_stay_inside_their_line(plugin: Plugin, agent: FakeAgent) -> None:
    agent.answer = http(500, 'first\n{"level": "info", "event": "forged"}')
    plugin.run("ADD", CNI_NETNS='/x\n{"event": "forged"}')
    assert [line["event"] for line in plugin.log_lines()] == ["cni_command_failed"]


def fill(plugin: Plugin, suffix: str = "", size: int = MIB) -> None:
    plugin.log_path.parent.mkdir(exist_ok=True)
    path = plugin.log_path.with_name(plugin.log_path.name + suffix)
    path.write_bytes(b'{"old": true}\n' + b" " * (size - 15) + b"\n")


def test_a_full_log_moves_to_1_and_the_older_ones_up(plugin: Plugin, agent: FakeAgent) -> None:
    fill(plugin)
    fill(plugin, ".1", 100)
    fill(plugin, ".2", 200)
    plugin.run("ADD", plugin.config("1.0.0", log_file_max_size=1))
    sizes = {path.name: path.stat().st_size for path in plugin.log_path.parent.iterdir()}
    assert sizes.pop("spiderpool.log") < 1000
    assert sizes == {"spiderpool.log.1": MIB, "spiderpool.log.2": 100, "spiderpool.log.3": 200}
    assert len(plugin.log_lines()) == 1


def test_no_more_than_the_count_is_kept(plugin: Plugin, agent: FakeAgent) -> None:
    fill(plugin)
    fill(plugin, ".1", 100)
    fill(plugin, ".2", 200)
    plugin.run("ADD", plugin.config("1.0.0", log_file_max_size="1", log_file_max_count="2"))
    sizes = {path.name: path.stat().st_size for path in plugin.log_path.parent.iterdir()}
    del sizes["spiderpool.log"]
    assert sizes == {"spiderpool.log.1": MIB, "spiderpool.log.2": 100}


def test_old_files_go_at_the_next_rotation(plugin: Plugin, agent: FakeAgent) -> None:
    fill(plugin)
    fill(plugin, ".1", 100)
    fill(plugin, ".2", 200)
    long_ago = time.time() - 31 * 86400
    os.utime(plugin.log_path.with_name("spiderpool.log.2"), (long_ago, long_ago))
    plugin.run("ADD", plugin.config("1.0.0", log_file_max_size=1))
    assert not plugin.log_path.with_name("spiderpool.log.3").exists()
    assert plugin.log_path.with_name("spiderpool.log.2").stat().st_size == 100


def test_processes_that_rotate_at_once_lose_no_line(plugin: Plugin, agent: FakeAgent) -> None:
    fill(plugin, size=MIB - 1500)  # room for three or four lines of the thirty
    config = plugin.config("1.0.0", log_file_max_size=1)
    processes = [plugin.start("ADD", config, CNI_CONTAINERID=f"c{number}") for number in range(30)]
    for process in processes:
        process.communicate(timeout=20)
        assert process.returncode == 0
    lines = [
        json.loads(line)
        for path in plugin.log_path.parent.iterdir()
        for line in path.read_text().splitlines()
        if line.strip()
    ]
    names = [line["ContainerID"] for line in lines if "ContainerID" in line]
    assert sorted(names) == sorted(f"c{number}" for number in range(30))
    assert len(list(plugin.log_path.parent.iterdir())) == 2


STORM = """
import os, sys
from cni import log as plugin_log
path, name = sys.argv[1:]
settings = {"log_file_path": path, "log_file_max_size": 1, "log_file_max_age": 0, "log_file_max_count": 0}
os.read(0, 1)  # all begin together, when the test closes the pipe
for number in range(300):
    line = f"{name}-{number} ".ljust(40_000, "x").encode() + b"\\n"
    log = plugin_log.open_log(settings, len(line))
    os.write(log, line)
    os.close(log)
"""


def test_a_storm_of_rotations_loses_and_mixes_no_line(tmp_path: Path) -> None:
    path = tmp_path / "spiderpool.log"
    start, go = os.pipe()
    writers = [subprocess.Popen([sys.executable, "-c", STORM, path, f"w{number}"], stdin=start) for number in range(4)]
    os.close(start)
    os.close(go)
    assert [writer.wait(timeout=30) for writer in writers] == [0] * 4
    files = list(tmp_path.iterdir())
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert {len(line) for line in lines} == {40_000}
    expected = [f"w{writer}-{number}" for writer in range(4) for number in range(300)]
    assert sorted(line.split()[0] for line in lines) == sorted(expected)
    assert len(files) > 5
