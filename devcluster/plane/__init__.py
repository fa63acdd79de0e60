"""Control planes for tests and demo: the embedded stand-in, a real one from binaries, or a given cluster."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from devcluster.plane import envtest, server

Kind = Literal["embedded", "envtest", "kubeconfig"]


@dataclass(frozen=True, slots=True)
class Plane:
    """`real` says whether a kube-apiserver answers; `controllers` and `scheduler`, whether the cluster itself makes
    pods of workloads and gives them nodes.
    """

    kind: Kind
    kubeconfig: Path
    real: bool
    controllers: bool = False
    scheduler: bool = False


@asynccontextmanager
async def start_plane(kind: Kind, directory: Path, *, kubeconfig: Path | None = None) -> AsyncIterator[Plane]:
    """A control plane that lives as long as the block; all its files lie in `directory` (made when missing).

    ValueError when the kind is `kubeconfig` and none is given; FileNotFoundError when a binary is missing;
    RuntimeError, with the end of its log, when a process of the plane does not become ready.
    """
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    match kind:
        case "embedded":
            async with server.serve(directory) as (path, _):
                yield Plane(kind, path, real=False)
        case "envtest":
            async with envtest.serve(directory) as running:
                yield Plane(
                    kind, running.kubeconfig, real=True, controllers=running.controllers, scheduler=running.scheduler
                )
        case "kubeconfig":
            if kubeconfig is None:
                raise ValueError(
                    "plane kubeconfig: name the file with --kubeconfig or the environment variable KUBECONFIG"
                )
            yield Plane(kind, kubeconfig, real=True, controllers=True, scheduler=True)
