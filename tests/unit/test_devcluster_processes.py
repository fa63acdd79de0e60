from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from devcluster import launch
from devcluster.processes import ProcessError, processes, tail
from devcluster.waiting import until_true


def program(tmp_path: Path, body: str) -> list[str]:
    path = tmp_path / "program.py"
    path.write_text("import os, signal, sys, time\n" + textwrap.dedent(body))
    return [sys.executable, "-IS", str(path)]


PATIENT = """
    open(sys.argv[0] + ".ready", "w").close()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    time.sleep(60)
"""


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # The child of a killed process becomes a zombie where nobody reaps, in some containers.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


async def test_a_process_is_awaited_until_it_is_ready_and_stopped_at_the_end(tmp_path: Path) -> None:
    command = program(tmp_path, f"print(os.getpid(), flush=True)\n{textwrap.dedent(PATIENT)}")

    async def ready() -> bool:
        return (tmp_path / "program.py.ready").exists()

    async with processes(tmp_path) as started:
        await started.start("one", command, ready=ready, within_s=10)
        pid = int((tmp_path / "one.log").read_text())
        assert is_running(pid)
    assert not is_running(pid)


async def test_a_process_that_ends_before_it_is_ready_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    command = program(tmp_path, 'print("no such file: /etc/conf.yml", flush=True); sys.exit(3)')
    with pytest.RaisesGroup(
        pytest.RaisesExc(ProcessError, match=r"one ended .* status 3 before it was ready[\s\S]*conf\.yml")
    ):
        async with processes(tmp_path) as started:
            await started.start("one", command, ready=never, within_s=10)


async def test_a_process_that_is_not_ready_in_time_is_an_error(tmp_path: Path) -> None:
    command = program(tmp_path, PATIENT)
    with pytest.RaisesGroup(pytest.RaisesExc(ProcessError, match=r"one was not ready after 0\.3 s")):
        async with processes(tmp_path) as started:
            await started.start("one", command, ready=never, within_s=0.3)


async def test_a_process_that_ends_by_itself_later_cancels_the_body(tmp_path: Path) -> None:
    command = program(tmp_path, "time.sleep(0.2); sys.exit(4)")
    with pytest.RaisesGroup(pytest.RaisesExc(ProcessError, match="one ended by itself with exit status 4")):
        async with processes(tmp_path) as started:
            await started.start("one", command, ready=at_once, within_s=10)
            await asyncio.Event().wait()


def test_a_process_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = f"""
        import subprocess, sys, time, os
        child = subprocess.Popen([sys.executable, "-IS", {launch.__file__!r}, str(os.getpid()), "/bin/sleep", "60"])
        print(child.pid, flush=True)
        time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(parent)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        name = Path(f"/proc/{child}/comm")
        asyncio.run(until_true(lambda: name.read_text() == "sleep\n", within_s=10, what="the program to be there"))
        process.send_signal(signal.SIGKILL)

    asyncio.run(until_true(lambda: not is_running(child), within_s=5, what="the child to die"))


def test_a_parent_that_is_gone_already_starts_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    done = subprocess.run(
        [sys.executable, "-IS", launch.__file__, "1", "/bin/touch", str(mark)], check=False, capture_output=True
    )
    assert done.returncode == 1
    assert not mark.exists()


def test_a_tail_is_the_last_lines_cut_to_a_width(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\ntwo\n" + "x" * 50 + "\n")
    assert tail(log, lines=2, width=10) == "  two\n  " + "x" * 10
    assert tail(tmp_path / "none") == "  (nothing)"


async def never() -> bool:
    return False


async def at_once() -> bool:
    return True
