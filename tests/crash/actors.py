"""Processes that may die at any moment and come back: started, killed, paused, looked at."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from devcluster import launch
from devcluster.waiting import WaitError, until_true

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parents[2]
START_S: Final = 60.0
STOP_S: Final = 20.0
# Beneath net.ipv4.ip_local_port_range.
PORTS: Final = (20_000, 32_000)
# A lease that changes hands in seconds, so that no test waits for it.
QUICK_LEASE: Final = {
    "SPIDERPOOL_LEADER_DURATION": "1",
    "SPIDERPOOL_LEADER_RENEW_DEADLINE": "0.9",
    "SPIDERPOOL_LEADER_RETRY_PERIOD": "0.15",
}
# Of the controller, so that what is left behind is found in a second or two.
QUICK_RECLAIM: Final = (
    "--reclaim-grace",
    "0.5",
    "--sweep-interval",
    "0.4",
    "--reuse-delay",
    "0.5",
    "--log-level",
    "debug",
)


@dataclass(slots=True)
class Actor:
    """`command` is without the interpreter. `fuse` is the folder of armed.py, None for a process that has none."""

    name: str
    command: Sequence[str]
    folder: Path
    serves: Callable[[], bool] = lambda: True
    fuse: Path | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    kills: int = 0

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                launch.command(sys.executable, *self.command),
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env={**os.environ, "PYTHONWARNINGS": "error", **self.environ},
            )

    async def ready(self, within_s: float = START_S) -> None:
        """AssertionError with the log's end when it ends before it serves."""

        def is_ready() -> bool:
            assert self.runs, f"{self.name} ended before it served:\n{self.tail()}"
            return self.serves()

        try:
            await until_true(is_ready, within_s=within_s, what=f"{self.name} to serve")
        except WaitError as error:
            raise AssertionError(f"{error}:\n{self.tail()}") from None

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        self.kills += 1

    def send(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def pause(self) -> None:
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.send(signal.SIGCONT)

    async def ended(self, within_s: float = STOP_S) -> int:
        """Its exit status, negative for the signal that ended it."""
        assert self.process is not None
        await until_true(lambda: not self.runs, within_s=within_s, what=f"{self.name} to end")
        return int(self.process.returncode)

    def stop(self) -> None:
        """In order, whatever state it is in; AssertionError when it does not end in time."""
        if not self.runs or self.process is None:
            return
        self.resume()
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not stop within {STOP_S:g} s:\n{self.tail()}") from None

    # -- dying at a boundary

    def arm(self, point: str, times: int = 1) -> None:
        assert self.fuse is not None
        arm(self.fuse, point, times)

    def disarm(self) -> None:
        if self.fuse is not None:
            (self.fuse / "armed").unlink(missing_ok=True)

    def died_at(self) -> str:
        """The failpoint that it died at since the last call; "" when somebody else killed it."""
        return died_at(self.fuse) if self.fuse is not None else ""

    def passed(self) -> list[str]:
        """Every boundary that it came by so far."""
        return passed(self.fuse) if self.fuse is not None else []

    def tail(self, characters: int = 3000) -> str:
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else "(no log)"


def arm(fuse: Path, point: str, times: int = 1) -> None:
    draft = fuse / "draft"
    draft.write_text(f"{point} {times}")
    draft.replace(fuse / "armed")


def died_at(fuse: Path) -> str:
    died = fuse / "died"
    if not died.exists():
        return ""
    point = died.read_text().split()[0]
    died.unlink()
    return point


def passed(fuse: Path) -> list[str]:
    path = fuse / "passed"
    return path.read_text().splitlines() if path.exists() else []


def armed(fuse: Path, program: str, *arguments: str) -> list[str]:
    fuse.mkdir(parents=True, exist_ok=True)
    return ["-m", "tests.crash.armed", str(fuse), "--", program, *arguments]


def agent(kubeconfig: Path, node: str, folder: Path, *arguments: str) -> Actor:
    path, fuse = folder / f"{node}.sock", folder / f"fuse-{node}"
    own = ("--kubeconfig", str(kubeconfig), "--node", node, "--socket", str(path), "--state-dir", str(folder / node))
    command = armed(fuse, "agent", *own, "--health-listen", "0", *arguments)
    return Actor(f"agent-{node}", command, folder, serves=lambda: _listens(socket.AF_UNIX, str(path)), fuse=fuse)


def controller(kubeconfig: Path, namespace: str, folder: Path, identity: str, *arguments: str) -> Actor:
    fuse = folder / f"fuse-{identity}"
    own = ("--kubeconfig", str(kubeconfig), "--namespace", namespace, "--identity", identity, "--health-listen", "0")
    command = armed(fuse, "controller", *own, *arguments)
    return Actor(f"controller-{identity}", command, folder, fuse=fuse, environ=QUICK_LEASE)


def webhook(
    kubeconfig: Path, folder: Path, *arguments: str, name: str = "webhook", register: str = "url", port: int = 0
) -> Actor:
    """On a port that stays the same, also while it is away; of its own unless one is given."""
    fuse, port = folder / f"fuse-{name}", port or free_port()
    own = ("--kubeconfig", str(kubeconfig), "--listen", f"127.0.0.1:{port}", "--register", register)
    command = armed(fuse, "webhook", *own, *arguments)
    return Actor(name, command, folder, serves=lambda: _listens(socket.AF_INET, ("127.0.0.1", port)), fuse=fuse)


def free_port() -> int:
    """One below those that the kernel deals out, so that nobody's connection has it while its process is away."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.randint(*PORTS)))  # noqa: S311
            return int(probe.getsockname()[1])


def _listens(family: socket.AddressFamily, address: object) -> bool:
    with socket.socket(family) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(address) == 0  # type: ignore[arg-type]  # of either family
