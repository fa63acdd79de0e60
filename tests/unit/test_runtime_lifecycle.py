import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import asyncio, sys, weakref
from allocator.runtime import lifecycle, logs

logs.configure("info")
log = logs.get_logger("test")

async def serve():
    log.info("ready")
    try:
        await asyncio.Event().wait()
    finally:
        log.info("cleaned_up", task=asyncio.current_task().get_name())

async def finish():
    pass

async def fail():
    async with asyncio.TaskGroup() as group:
        group.create_task(explode(), name="explode")

async def explode():
    raise RuntimeError("the pool is on fire")

async def cling():
    log.info("ready")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.info("clinging")

class Cycle:
    def __init__(self):
        self.me = self
        weakref.finalize(self, log.info, "collected")

async def litter():
    lifecycle.COLLECT_EVERY_S = 0.01
    Cycle()
    await asyncio.Event().wait()

sys.exit(lifecycle.run({main}))
"""


def start(main: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("{main}", main)], stderr=subprocess.PIPE, text=True, env=os.environ
    )


def next_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stderr is not None
    found: dict[str, Any] = json.loads(process.stderr.readline())
    return found


def rest(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    _, errors = process.communicate(timeout=20)
    return [json.loads(line) for line in errors.splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_main_and_the_exit_is_clean(number: signal.Signals) -> None:
    with start("serve") as process:
        assert next_line(process)["event"] == "ready"
        process.send_signal(number)
        lines = rest(process)
    assert [line["event"] for line in lines] == ["process_stopping", "cleaned_up", "process_stopped"]
    assert lines[0]["signal"] == number.name
    assert lines[1]["task"] == "main"
    assert process.returncode == 0


def test_a_second_signal_ends_the_process_at_once() -> None:
    with start("cling") as process:
        assert next_line(process)["event"] == "ready"
        process.send_signal(signal.SIGTERM)
        assert [next_line(process)["event"], next_line(process)["event"]] == ["process_stopping", "clinging"]
        process.send_signal(signal.SIGINT)
        assert [line["event"] for line in rest(process)] == ["process_killed"]
    assert process.returncode == 128 + signal.SIGINT


def test_a_main_that_returns_exits_with_0() -> None:
    with start("finish") as process:
        lines = rest(process)
    assert [line["event"] for line in lines] == ["process_stopped"]
    assert process.returncode == 0


def test_a_main_that_raises_exits_with_1_and_one_line_that_names_the_cause() -> None:
    with start("fail") as process:
        lines = rest(process)
    assert [(line["event"], line["error"]) for line in lines] == [
        ("process_failed", "RuntimeError: the pool is on fire")
    ]
    assert "explode" in lines[0]["exception"]
    assert process.returncode == 1


def test_a_quiet_process_gets_rid_of_its_cycles_too() -> None:
    with start("litter") as process:
        assert next_line(process)["event"] == "collected"
        process.send_signal(signal.SIGTERM)
        rest(process)
    assert process.returncode == 0
