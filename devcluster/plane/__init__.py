"""Control planes for tests and demo: the embedded stand-in, a real one from binaries, or a given cluster."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from devcluster.plane import server

Kind = Literal["embedded", "envtest", "kubeconfig"]


@dataclass(frozen=True, slots=True)
class Plane:
    """`real` says whether a kube-apiserver answers."""

    kind: Kind
    kubeconfig: Path
    real: bool


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
            raise FileNotFoundError("not yet")
        case "kubeconfig":
            if kubeconfig is None:
                raise ValueError(
                    "plane kubeconfig: name the file with --kubeconfig or the environment variable KUBECONFIG"
                )
            yield Plane(kind, kubeconfig, real=True)
