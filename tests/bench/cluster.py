"""A plane and agents as processes of their own, so that each part's CPU time can be told from the others'."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from allocator.kube.client import KubeClient
from allocator.kube.resources import NAMESPACES, NODES, SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS
from tests.bench.accounts import Meter, children
from tests.plane.agents import make_node, running_agent
from tests.plane.support import install_crd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from devcluster.plane import Kind
    from tests.plane.agents import Agent

ROOT: Final = Path(__file__).resolve().parents[2]
CRDS: Final = ROOT / "manifests" / "crds"
NAMESPACE: Final = "spiderpool-bench"
NODE_PREFIX: Final = "spiderpool-bench-"
# Each needs a CPU for a second to start: more at once would run into the deadline of a start.
STARTING_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Cluster:
    """`parts` are the plane's processes; none when the plane is somebody else's cluster."""

    kind: Kind
    kube: KubeClient
    kubeconfig: Path
    folder: Path
    parts: Mapping[str, Sequence[int]]

    def meter(self, agents: Sequence[Agent] = (), **others: Sequence[int]) -> Meter:
        """`others`: further processes to account for, by name."""
        return Meter(self.kube, {**self.parts, "agents": [agent.process.pid for agent in agents], **others})

    @asynccontextmanager
    async def agents(self, count: int) -> AsyncIterator[list[Agent]]:
        """Agents of `count` nodes, serving."""
        async with AsyncExitStack() as stack:
            agents: list[Agent] = []
            for first in range(0, count, STARTING_AT_ONCE):
                names = [f"{NODE_PREFIX}{index}" for index in range(first, min(first + STARTING_AT_ONCE, count))]
                agents += await self._started(stack, names)
            yield agents

    async def _started(self, stack: AsyncExitStack, names: Sequence[str]) -> list[Agent]:
        async def start(name: str) -> Agent:
            await make_node(self.kube, name)
            return await stack.enter_async_context(running_agent(self.kubeconfig, name, self.folder, log_level="info"))

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(start(name)) for name in names]
        return [task.result() for task in tasks]

    def log_of(self, agent: Agent) -> Path:
        return self.folder / f"{agent.node}.log"


@asynccontextmanager
async def running_cluster(kind: Kind, folder: Path) -> AsyncIterator[Cluster]:
    """The plane in a process, with our kinds and a namespace."""
    command = [sys.executable, "-m", "devcluster.plane", "--kind", kind, "--dir", str(folder / "plane")]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        kubeconfig = Path((await process.stdout.readline()).decode().strip())
        if not kubeconfig.name:
            raise RuntimeError(f"the plane {kind} did not start: see above")
        async with KubeClient.connect(kubeconfig=kubeconfig, user_agent="bench", timeout_s=60) as kube:
            for path in sorted(CRDS.glob("spider*.yaml")):
                await install_crd(kube, yaml.safe_load(path.read_text()))
            if (await kube.list(SPIDER_IP_POOLS, limit=1))["items"]:
                raise RuntimeError("the cluster has SpiderIPPools: the bench would delete them, and their records")
            await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            try:
                yield Cluster(kind, kube, kubeconfig, folder, _parts(kind, process.pid))
            finally:
                if kind == "kubeconfig":
                    await _tidy_up(kube)
    finally:
        process.terminate()
        await process.wait()


async def _tidy_up(kube: KubeClient) -> None:
    """A cluster that outlives the bench is left as it was, but for the definitions of our kinds."""
    for resource in (SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS):
        await kube.raw("DELETE", resource.path())
    await kube.delete(NAMESPACES, NAMESPACE)
    for node in (await kube.list(NODES))["items"]:
        if node["metadata"]["name"].startswith(NODE_PREFIX):
            await kube.delete(NODES, node["metadata"]["name"])


def _parts(kind: Kind, pid: int) -> dict[str, list[int]]:
    match kind:
        case "embedded":
            return {"apiserver": [pid]}
        case "envtest":
            named = children(pid)
            controllers = [named[name] for name in ("kube-controller", "kube-scheduler") if name in named]
            return {"apiserver": [named["kube-apiserver"]], "etcd": [named["etcd"]], "controllers": controllers}
        case "kubeconfig":
            return {}
