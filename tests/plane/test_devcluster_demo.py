"""The demo as a user starts it, as a process; it brings its own embedded plane."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.waiting import until_true

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def demo(folder: Path, *options: str, path: str | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """Its output goes to `folder`.out."""
    with folder.with_suffix(".out").open("w") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "devcluster", "demo", "--dir", str(folder), *options),
            cwd=ROOT,
            env={**os.environ, "PATH": path if path is not None else os.environ["PATH"], "PYTHONDEVMODE": ""},
            stdout=out,
            stderr=out,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        print(printed(folder))  # noqa: T201 - pytest shows it when the test fails


def printed(folder: Path) -> str:
    return folder.with_suffix(".out").read_text()


def processes_of(folder: Path) -> list[str]:
    """Command lines that name the folder, as those of all our processes do."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in line:
            found.append(line.replace(b"\0", b" ").decode(errors="replace"))
    return found


async def test_it_runs_to_its_end_without_namespaces_and_without_kubectl(tmp_path: Path) -> None:
    folder = tmp_path / "dc"
    async with demo(folder, "--network", "none", path="/nonexistent") as process:
        status = await process.wait()
    text = printed(folder)

    assert status == 0, text
    assert "kubectl is not installed: the same requests go through the kubernetes client" in text
    assert "left out, for pods have no links here (as asked)" in text
    # Sixteen for eight pods, and two more unless a slow machine let two cool down meanwhile.
    assert re.fullmatch(r"10 pods, 1[678] addresses, [0-9.]+ seconds", text.strip().splitlines()[-1])
    assert not folder.exists()
    assert processes_of(folder) == []


async def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "dc"
    async with demo(folder) as process:
        await until_true(lambda: "rollout status" in printed(folder), within_s=30, what="pods to start")
        assert processes_of(folder)
        process.send_signal(signal.SIGINT)
        status = await process.wait()

    assert status == 128 + signal.SIGINT, printed(folder)
    assert not folder.exists()
    assert processes_of(folder) == []


async def test_after_kill_minus_nine_only_files_are_left_and_the_next_start_clears_them(tmp_path: Path) -> None:
    folder = tmp_path / "dc"
    async with demo(folder) as process:
        await until_true(lambda: "processes are ready" in printed(folder), within_s=30, what="processes to start")
        process.send_signal(signal.SIGKILL)
        await process.wait()
    await until_true(lambda: not processes_of(folder), within_s=5, what="its processes to die with it")
    assert folder.exists()

    async with demo(folder) as process:
        await until_true(lambda: "1. Install" in printed(folder), within_s=30, what="the next start")
        process.send_signal(signal.SIGINT)
        await process.wait()
    assert not folder.exists()


async def test_a_folder_that_is_not_its_own_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").touch()
    async with demo(folder) as process:
        status = await process.wait()

    assert status == 1
    assert "failed: " in printed(folder)
    assert "holds files that no devcluster made: give an empty or a new --dir" in printed(folder)
    assert "Traceback" not in printed(folder)
