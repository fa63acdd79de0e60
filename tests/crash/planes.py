"""A plane of one's own, whose API server may be killed at any moment and goes on where it was."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import yaml

from allocator.kube.client import KubeClient
from allocator.kube.errors import ApiError, Unreachable
from devcluster.plane import envtest
from devcluster.waiting import until, until_true
from tests.crash.actors import ROOT, Actor, armed
from tests.plane.support import install_crd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.plane import Kind

READY_S: Final = 90.0


@dataclass(slots=True)
class Plane:
    """`kind` embedded or envtest. Of envtest the actor is what starts the real ones again."""

    kind: Kind
    actor: Actor
    kubeconfig: Path

    async def kill(self, part: str = "kube-apiserver") -> None:
        """SIGKILL; it is back in a moment: an embedded one when `revive` is called, the others by themselves."""
        if self.kind == "embedded":
            self.actor.kill()
            return
        os.kill(self.part(part), signal.SIGKILL)
        self.actor.kills += 1

    async def revive(self) -> None:
        """Start it where it was killed, and wait until it answers."""
        if self.kind == "embedded":
            # Somebody's outgoing connection may have the port for a moment: the kernel deals it out of the same range.
            await until(self._started, within_s=READY_S, what="the API server to have its port again")
        await self.answers()

    async def died(self, point: str, *, within_s: float = 30.0) -> None:
        """Wait until an embedded API server is killed at the failpoint that it was armed with."""
        # It says so a moment before it is gone.
        await until_true(lambda: not self.actor.runs, within_s=within_s, what=f"the plane to die at {point}")
        assert self.actor.died_at() == point

    @property
    def pid(self) -> int:
        """Of the API server."""
        return self.actor.pid if self.kind == "embedded" else self.part("kube-apiserver")

    async def answers(self) -> None:
        async with KubeClient.connect(kubeconfig=self.kubeconfig, user_agent="tests", timeout_s=5) as client:

            async def ready() -> bool:
                try:
                    await client.raw("GET", "/readyz")
                    await client.raw("GET", "/apis/spiderpool.spidernet.io/v2beta1")
                except (ApiError, Unreachable):
                    return False
                return True

            await until(ready, within_s=READY_S, what="the API server to answer")

    async def _started(self) -> bool:
        if not self.actor.runs:
            self.actor.start()
        await until_true(lambda: not self.actor.runs or self._listens(), within_s=READY_S, what="the API server")
        return self.actor.runs

    def _listens(self) -> bool:
        server = urlsplit(yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
        with socket.socket() as probe:
            return probe.connect_ex((server.hostname, server.port)) == 0

    def part(self, name: str) -> int:
        """The PID of one of envtest's processes, once there is one."""
        pids = Path(f"/proc/{self.actor.pid}/task/{self.actor.pid}/children").read_text().split()
        for pid in pids:
            with suppress(FileNotFoundError):
                # Before exec it is still called after the launcher.
                if Path(f"/proc/{pid}/comm").read_text().strip() == name[:15]:
                    return int(pid)
        raise LookupError(f"{name} does not run at the moment")


@contextmanager
def running_plane(kind: Kind, folder: Path) -> Iterator[Plane]:
    """With our kinds in it. What is left of its files at the end goes with it."""
    folder.mkdir(parents=True, exist_ok=True)
    own = ("--kind", kind, "--dir", str(folder / "plane"), "--data-dir", str(folder / "data"))
    if kind == "embedded":
        fuse = folder / "fuse-plane"
        actor = Actor("plane", armed(fuse, "plane", *own), folder, fuse=fuse)
    else:
        actor = Actor("plane", ["-m", "devcluster.plane", *own], folder, environ=_without_controllers(folder))
    plane = Plane(kind, actor, folder / "plane" / "kubeconfig")
    actor.start()
    try:
        yield plane
    finally:
        actor.stop()
        shutil.rmtree(folder / "data", ignore_errors=True)


def _without_controllers(folder: Path) -> dict[str, str]:
    """Which pods there are is the tests' business here; they make those of StatefulSets themselves."""
    binaries = folder / "bin"
    binaries.mkdir()
    for name in envtest.NEEDED:
        (binaries / name).symlink_to(envtest.binaries() / name)
    return {"KUBEBUILDER_ASSETS": str(binaries)}


async def make_ready(plane: Plane) -> None:
    """Wait for its first answer, and install the definitions of our kinds."""
    await until_true(plane.kubeconfig.exists, within_s=READY_S, what=f"the plane {plane.kind}")
    async with KubeClient.connect(kubeconfig=plane.kubeconfig, user_agent="tests") as client:

        async def ready() -> bool:
            try:
                await client.raw("GET", "/readyz")
            except (ApiError, Unreachable):
                assert plane.actor.runs, f"the plane ended:\n{plane.actor.tail()}"
                return False
            return True

        await until(ready, within_s=READY_S, what="the API server to be ready")
        for path in sorted((ROOT / "manifests" / "crds").glob("spider*.yaml")):
            await install_crd(client, yaml.safe_load(path.read_text()))
