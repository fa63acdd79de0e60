"""The project's own processes: started, awaited until ready, watched, stopped.

They never outlive this process (launch.py). Each writes its log to a file, whose end is shown when something fails.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import launch
from devcluster.waiting import WaitError, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

STOP_TIMEOUT_S = 10.0
TAIL_LINES = 12
LINE_LIMIT = 400


class ProcessError(Exception):
    """A process ended by itself, was not ready in time or would not stop. Its log's end is part of the message."""


@dataclass(slots=True)
class _Running:
    name: str
    log: Path
    process: asyncio.subprocess.Process
    ready: bool = False
    stopping: bool = False


class Processes:
    """Made by `processes()`."""

    def __init__(self, logs: Path, group: asyncio.TaskGroup) -> None:
        self._logs = logs
        self._group = group
        self._running: dict[str, _Running] = {}

    async def start(
        self, name: str, command: list[str], *, ready: Callable[[], Awaitable[bool]], within_s: float
    ) -> None:
        """Start and wait until `ready`. ProcessError when that takes too long; when the process ends meanwhile, this
        is cancelled, as everything in the body of `processes` is.
        """
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *launch.command(*command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C in the terminal is for us: we stop it in order.
                start_new_session=True,
            )
        running = self._running[name] = _Running(name, log, process)
        self._group.create_task(self._watch(running), name=f"process {name}")
        try:
            await until(ready, within_s=within_s, what=f"{name} to be ready")
        except WaitError:
            raise self._failed(running, f"was not ready after {within_s:g} s") from None
        running.ready = True

    async def stop(self, name: str) -> None:
        """SIGTERM, and SIGKILL when that does not help: then ProcessError."""
        running = self._running[name]
        running.stopping = True
        if running.process.returncode is not None:
            return
        running.process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await running.process.wait()
        except TimeoutError:
            running.process.kill()
            await running.process.wait()
            raise self._failed(running, f"did not stop within {STOP_TIMEOUT_S:g} s of SIGTERM") from None
        # One that was not ready may not have got as far as to its signal handlers.
        if running.ready and running.process.returncode != 0:
            raise self._failed(running, f"ended with exit status {running.process.returncode} when it was stopped")

    async def stop_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name in list(self._running):
                group.create_task(self.stop(name), name=f"stop {name}")

    def kill_all(self) -> None:
        for running in self._running.values():
            running.stopping = True
            if running.process.returncode is None:
                running.process.kill()

    async def _watch(self, running: _Running) -> None:
        code = await running.process.wait()
        if not running.stopping:
            when = "" if running.ready else " before it was ready"
            raise self._failed(running, f"ended by itself with exit status {code}{when}")

    def _failed(self, running: _Running, what: str) -> ProcessError:
        running.stopping = True  # one failure is told once
        return ProcessError(f"{running.name} {what}; the end of {running.log}:\n{tail(running.log)}")


@asynccontextmanager
async def processes(logs: Path) -> AsyncIterator[Processes]:
    """Stops all of them at the end. When one ends by itself meanwhile, the body is cancelled and ProcessError comes
    out (in an ExceptionGroup).
    """
    async with asyncio.TaskGroup() as group:
        started = Processes(logs, group)
        try:
            yield started
        finally:
            try:
                await started.stop_all()
            finally:
                started.kill_all()


def tail(log: Path, *, lines: int = TAIL_LINES, width: int = LINE_LIMIT) -> str:
    if not log.exists():
        return "  (nothing)"
    kept = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join(f"  {line[:width]}" for line in kept) or "  (nothing)"


def script(name: str) -> str:
    """The path of a console script of this installation."""
    path = Path(sys.executable).parent / name
    if not os.access(path, os.X_OK):
        raise ProcessError(f"there is no {path}: run `make install`")
    return str(path)
