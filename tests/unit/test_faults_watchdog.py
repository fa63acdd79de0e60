"""An event loop that is stuck says where (FAULTS.md, F22)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

PROGRAM = """
import asyncio, sys, time
from allocator.runtime import lifecycle, logs, watchdog

logs.configure("info")
log = logs.get_logger("test")
watchdog.LIMIT_S = 0.5

async def sticks():
    read_a_name_that_no_server_answers()
    log.info("goes_on")

def read_a_name_that_no_server_answers():
    log.info("sticks")
    sys.stdin.read()

async def turns():
    log.info("ready")
    await asyncio.Event().wait()

sys.exit(lifecycle.run({main}))
"""


def start(main: str) -> subprocess.Popen[str]:
    program = PROGRAM.replace("{main}", main)
    command = [sys.executable, "-c", program]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def next_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stderr is not None
    found: dict[str, Any] = json.loads(process.stderr.readline())
    return found


def test_a_loop_that_is_stuck_is_told_of_with_the_place_while_it_is() -> None:
    with start("sticks") as process:
        assert next_line(process)["event"] == "sticks"
        told = next_line(process)
        assert (told["event"], told["level"]) == ("event_loop_blocked", "error")
        assert "read_a_name_that_no_server_answers" in told["stack"]
        assert process.stdin is not None
        process.stdin.close()
        # Once, and then the process goes on as if nothing had been.
        assert [next_line(process)["event"], next_line(process)["event"]] == ["goes_on", "process_stopped"]
    assert process.returncode == 0


def test_a_process_that_was_stopped_as_a_whole_is_not_taken_for_a_loop_that_is_stuck() -> None:
    with start("turns") as process:
        assert next_line(process)["event"] == "ready"
        process.send_signal(signal.SIGSTOP)
        with subprocess.Popen(["sleep", "1"]) as twice_the_limit:
            twice_the_limit.wait()
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        assert [next_line(process)["event"], next_line(process)["event"]] == ["process_stopping", "process_stopped"]
