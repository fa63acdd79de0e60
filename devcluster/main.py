"""The devcluster's process: signals, the log file, the exit status and what is said when something fails."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, TextIO, cast

from allocator.kube import errors
from allocator.runtime import logs
from devcluster import cluster, demo, processes, workspace
from devcluster.demo.client import UsageError
from devcluster.demo.show import DemoError
from devcluster.nodes import cni, links, registration, traffic
from devcluster.waiting import WaitError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

log = logs.get_logger(__name__)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

STOPPED_ELSEWHERE = """\
stopped: nothing is left on this machine. In the cluster may be left, in this order:
  kubectl delete deployment/web statefulset/db --ignore-not-found
  kubectl delete -k manifests/samples --ignore-not-found --wait=false
  kubectl delete -k manifests/base --ignore-not-found
  kubectl delete -k manifests/crds --ignore-not-found"""

# What a person can do something about: told in its own words. Anything else is a bug and gets a traceback.
EXPECTED = (
    DemoError,
    UsageError,
    WaitError,
    OSError,
    ValueError,
    RuntimeError,
    cni.CniError,
    errors.ApiError,
    errors.NoAccess,
    errors.Unreachable,
    links.LinkError,
    processes.ProcessError,
    registration.ForeignNodeError,
    traffic.NoTrafficError,
    workspace.WorkspaceError,
)


def main(arguments: argparse.Namespace) -> int:
    settings = cluster.Settings(
        directory=arguments.dir.absolute(),
        plane=arguments.plane,
        kubeconfig=arguments.kubeconfig if arguments.plane == "kubeconfig" else None,
        nodes=arguments.nodes,
        network=arguments.network,
    )
    return asyncio.run(_run(arguments, settings))


async def _run(arguments: argparse.Namespace, settings: cluster.Settings) -> int:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("no current task: asyncio.run made one")
    stop = _Stop(task)
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.on_signal, number)
    try:
        with log_to(settings.directory / "logs"):
            if arguments.verb == "up":
                await demo.up(settings, stay=stop.wait)
            else:
                await demo.demo(settings, stay=stop.wait if arguments.keep else None)
    except asyncio.CancelledError:
        if stop.signal is None:
            raise
        _say(STOPPED_ELSEWHERE if settings.plane == "kubeconfig" else "stopped: nothing is left behind")
        return 128 + stop.signal
    except Exception as error:  # noqa: BLE001 - the border of the process
        return _fail(error, settings.directory / "logs")
    return 0


class _Stop:
    """The first signal cancels the program, or ends `wait` while that is what the program does.

    More of them while it stops change nothing: who is impatient should not leave things behind.
    """

    def __init__(self, task: asyncio.Task[int]) -> None:
        self.signal: signal.Signals | None = None
        self._task = task
        self._waiting: asyncio.Event | None = None

    def on_signal(self, number: signal.Signals) -> None:
        if self._waiting is not None:
            self._waiting.set()
        elif self.signal is not None:
            _say("still stopping; a moment")
        else:
            self.signal = number
            self._task.cancel()

    async def wait(self) -> None:
        self._waiting = asyncio.Event()
        try:
            await self._waiting.wait()
        finally:
            self._waiting = None


class _LogFile:
    """Opened by its first line: the workspace makes the folder, and empties it before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def write(self, text: str) -> int:
        if self._file is None:
            self._file = self._path.open("a", encoding="utf-8", buffering=1)
        return self._file.write(text)

    def flush(self) -> None:
        """Lines are written at once."""


@contextmanager
def log_to(folder: Path) -> Iterator[None]:
    """Send this process's own log lines to a file: the terminal is for what is shown."""
    with redirect_stderr(cast("TextIO", _LogFile(folder / "devcluster.log"))):
        logs.configure("info")
        try:
            yield
        except Exception:
            if folder.exists():  # it does not when the workspace itself was refused
                log.exception("devcluster_failed")
            raise


def _fail(error: Exception, folder: Path) -> int:
    causes = list(_leaves(error))
    for cause in causes:
        if isinstance(cause, EXPECTED):
            _say(f"failed: {cause}")
        else:
            sys.excepthook(type(cause), cause, cause.__traceback__)
    told = "\n".join(map(str, causes))
    for path in sorted(folder.glob("*.log")):
        # A process that failed has shown its own already; the plugin's say what the agents' say.
        if str(path) not in told and not path.name.startswith("plugin-"):
            _say(f"the end of {path}:\n{processes.tail(path, lines=3, width=240)}")
    if folder.exists():
        _say(f"all logs are in {folder}")
    return 1


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _say(text: str) -> None:
    print(text, file=sys.__stderr__, flush=True)
