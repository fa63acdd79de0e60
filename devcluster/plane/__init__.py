"""Control planes for tests and demo: the embedded stand-in, a real one from binaries, or a given cluster.

`embedded` is an API server in this process, for machines that have no other; never for production. Its reference is
kube-apiserver: `tests/plane` runs on both, and a difference that is not in this list is a bug of the stand-in.

It leaves out
* CEL: `x-kubernetes-validations` are stored, not evaluated; a webhook is called whatever its `matchConditions` say;
  ValidatingAdmissionPolicies have no effect;
* server-side apply (answered with 415) and `metadata.managedFields`;
* authorization: the one credential in the kubeconfig may do everything, and `--as` speaks for anyone;
* schemas of built-in kinds: a misspelt field of a Pod is kept, `kubectl explain pod.spec` knows nothing; of their rules
  only those are kept whose breach would confuse a controller;
* conversion between versions of a CRD, beyond `apiVersion` itself; `format` of strings in schemas;
* webhooks named by Service (no network leads there: they count as failed), aggregated API servers, protobuf answers;
* controllers: it collects garbage and ends namespaces and definitions, but makes no pods and no service accounts.

What is written is kept in memory only, unless it is told where to put a journal; with the last 20,000 changes for
watches.
"""

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
async def start_plane(
    kind: Kind, directory: Path, *, kubeconfig: Path | None = None, data_dir: Path | None = None
) -> AsyncIterator[Plane]:
    """A control plane that lives as long as the block; all its files lie in `directory` (made when missing).

    With `data_dir` the embedded plane may be killed and started there again; with envtest kube-apiserver and etcd may,
    and are started again at once.

    ValueError when the kind is `kubeconfig` and none is given; FileNotFoundError when a binary is missing;
    RuntimeError, with the end of its log, when a process of the plane does not become ready.
    """
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    match kind:
        case "embedded":
            async with server.serve(directory, data_dir) as (path, _):
                yield Plane(kind, path, real=False)
        case "envtest":
            async with envtest.serve(directory, respawn=data_dir is not None) as running:
                yield Plane(
                    kind, running.kubeconfig, real=True, controllers=running.controllers, scheduler=running.scheduler
                )
        case "kubeconfig":
            if kubeconfig is None:
                raise ValueError(
                    "plane kubeconfig: name the file with --kubeconfig or the environment variable KUBECONFIG"
                )
            yield Plane(kind, kubeconfig, real=True, controllers=True, scheduler=True)
