"""A small cluster whose processes die: plane, agents, controllers, webhook, and somebody who starts them again."""

from __future__ import annotations

import asyncio
import itertools
import signal
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from allocator.kube.client import KubeClient
from allocator.kube.resources import (
    EVENTS,
    MACHINE_INSTANCES,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SPIDER_ENDPOINTS,
    SPIDER_IP_ADDRESSES,
    SPIDER_IP_POOLS,
    SPIDER_SUBNETS,
    STATEFUL_SETS,
)
from devcluster.waiting import until_true
from tests.crash import telltales
from tests.crash.insisting import Insisting
from tests.crash.runtime import Direct, Runtime
from tests.plane import machines
from tests.plane.controllers import API, FINALIZER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from allocator.kube.resources import Object
    from tests.crash.actors import Actor
    from tests.crash.planes import Plane
    from tests.crash.runtime import Line, Told

NAMESPACE: Final = "crash"
CLEARED: Final = (
    STATEFUL_SETS, MACHINE_INSTANCES, PODS, SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS, SPIDER_SUBNETS,
)  # fmt: skip
# As systemd and kubelet look: often enough.
LOOK_S: Final = 0.05


@dataclass(slots=True)
class Stage:
    """What outlives a test: the processes. `numbers` keeps names and subnets of tests apart."""

    plane: Plane
    folder: Path
    actors: dict[str, Actor] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    deaths: list[tuple[str, str]] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)
    _outages: int = 0

    def add(self, actor: Actor) -> Actor:
        self.actors[actor.name] = actor
        return actor

    @property
    def agents(self) -> list[str]:
        return [name.removeprefix("agent-") for name in self.actors if name.startswith("agent-")]

    def plugin_fuse(self, node: str) -> Path:
        """Of all plugins that run on the node."""
        fuse = self.folder / f"fuse-plugin-{node}"
        fuse.mkdir(exist_ok=True)
        return fuse

    async def start(self) -> None:
        for actor in self.actors.values():
            actor.start()
        for actor in self.actors.values():
            await actor.ready()

    def stop(self) -> None:
        """AssertionError when one does not end in time, or has told a secret in its log."""
        self.secrets |= telltales.of_keys(self.folder)
        with ExitStack() as stack:
            for actor in self.actors.values():
                stack.callback(actor.stop)
        logs = (
            (actor.name, actor.log.read_text(errors="replace")) for actor in self.actors.values() if actor.log.exists()
        )
        found = telltales.told(logs, self.secrets | telltales.of_kubeconfig(self.plane.kubeconfig))
        assert not found, found

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The API server is away: what starts now may give up, and is started again."""
        self._outages += 1
        try:
            yield
        finally:
            self._outages -= 1

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        """Starts again what was killed or stopped, unarmed; what ends otherwise is a failure."""
        # An earlier test's, at the same failpoint, is none of this one's.
        self.deaths.clear()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._supervise(), name="supervisor")
            try:
                yield
            finally:
                task.cancel()

    async def _supervise(self) -> None:
        while True:
            for actor in self.actors.values():
                if actor.process is not None and not actor.runs:
                    self._revive(actor)
            await asyncio.sleep(LOOK_S)

    def _revive(self, actor: Actor) -> None:
        code = actor.process.returncode if actor.process else None
        # It was killed, or told to stop: maybe before it could hear that.
        is_meant = code in (-signal.SIGKILL, -signal.SIGTERM, 0)
        assert is_meant or self._outages, f"{actor.name} ended with {code}:\n{actor.tail()}"
        self.deaths.append((actor.name, actor.died_at()))
        actor.start()

    async def restart(self, name: str) -> None:
        """SIGTERM, as of a rolling update; whoever supervises starts it again."""
        actor = self.actors[name]
        before = actor.pid
        actor.send(signal.SIGTERM)
        await until_true(lambda: actor.pid != before, within_s=30, what=f"{name} to be started again")

    async def death_of(self, name: str, point: str, *, within_s: float = 30.0) -> None:
        """Wait until the process has died at the failpoint, and serves again."""
        await until_true(lambda: (name, point) in self.deaths, within_s=within_s, what=f"{name} to die at {point}")
        await self.actors[name].ready()


@dataclass(slots=True)
class Cluster:
    """What a test plays with: people's and kubelets' view of the stage."""

    stage: Stage
    api: Insisting
    runtime: Runtime

    @property
    def nodes(self) -> list[str]:
        return self.stage.agents

    async def pool(self, size: int, *, version: int = 4) -> Object:
        """A pool of so many addresses in a subnet of its own."""
        number = next(self.stage.numbers)
        if version == 4:
            subnet, ips = f"10.{number // 250}.{number % 250}.0/24", [f"10.{number // 250}.{number % 250}.1"]
            if size > 1:
                ips = [f"{ips[0]}-10.{number // 250}.{number % 250}.{size}"]
        else:
            subnet, ips = f"fd00:{number:x}::/64", [f"fd00:{number:x}::1-fd00:{number:x}::{size:x}"]
        return await self.pool_of(subnet, *ips)

    async def pool_of(self, subnet: str, *ips: str, name: str = "") -> Object:
        """As a person writes it; a webhook may have a part in it."""
        meta = {"name": name or f"pool-{next(self.stage.numbers)}", "finalizers": [FINALIZER]}
        spec = {"subnet": subnet, "ips": list(ips), "ipVersion": 6 if ":" in subnet else 4}
        return await self.api.create(
            SPIDER_IP_POOLS, {"apiVersion": API, "kind": "SpiderIPPool", "metadata": meta, "spec": spec}
        )

    async def pod(
        self, annotation: str, *, node: str = "", name: str = "", owner: Object | None = None, **metadata: Any
    ) -> Object:
        """Bound to a node already; `annotation` is the text of `ippool`."""
        annotations = {"ipam.spidernet.io/ippool": annotation, **metadata.pop("annotations", {})}
        name = name or f"pod-{next(self.stage.numbers)}"
        meta: Object = {"name": name, "namespace": NAMESPACE, "annotations": annotations, **metadata}
        if owner is not None:
            reference = {key: owner[key] for key in ("apiVersion", "kind")}
            reference |= {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "controller": True}
            meta["ownerReferences"] = [reference]
            if "selector" in (owner.get("spec") or {}):
                meta["labels"] = owner["spec"]["selector"]["matchLabels"]
        spec = {"nodeName": node or self.nodes[0], "containers": [{"name": "main", "image": "none"}]}
        return await self.api.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

    async def stateful_set(self, replicas: int = 1) -> Object:
        name = f"set-{next(self.stage.numbers)}"
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}]}}
        spec = {"replicas": replicas, "serviceName": name, "selector": {"matchLabels": labels}, "template": template}
        meta = {"name": name, "namespace": NAMESPACE}
        return await self.api.create(
            STATEFUL_SETS, {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": spec}
        )

    async def machine(self) -> Object:
        """A running virtual machine of KubeVirt."""
        meta = {"name": f"machine-{next(self.stage.numbers)}", "namespace": NAMESPACE}
        body = {"apiVersion": machines.API, "kind": MACHINE_INSTANCES.kind, "metadata": meta}
        return await self.api.create(MACHINE_INSTANCES, body)

    async def launcher(self, machine: Object, annotation: str, *, migrates: bool = False) -> Object:
        name = f"virt-launcher-{machine['metadata']['name']}-{next(self.stage.numbers)}"
        annotations = machines.MIGRATION if migrates else {}
        return await self.pod(annotation, name=name, owner=machine, annotations=annotations)

    async def report(self, pod: Object, *addresses: str) -> None:
        """Kubelet's word that the pod runs with these."""
        ips = [{"ip": each} for each in addresses]
        status = {"phase": "Running", "podIP": addresses[0], "podIPs": ips}
        await self.api.patch(PODS, pod, {"status": status}, subresource="status")

    async def end(self, pod: Object, *, line: Line | None = None) -> None:
        """As kubelet does it: the pod is marked, its sandbox goes, and then the pod."""
        told = self.runtime.forget(pod)
        await self.api.delete(PODS, pod, grace_period_s=30)
        if told is not None:
            await self.runtime.release(told, line=line)
        await self.api.delete(PODS, pod, grace_period_s=0)

    async def lose(self, pod: Object) -> Told | None:
        """The pod is deleted by force and nobody tells the agent; its sandbox."""
        told = self.runtime.forget(pod)
        await self.api.delete(PODS, pod, grace_period_s=0)
        return told


@asynccontextmanager
async def on_stage(stage: Stage) -> AsyncIterator[Cluster]:
    """Clients of the stage, for one test; what it left in the cluster is removed."""
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(
            KubeClient.connect(kubeconfig=stage.plane.kubeconfig, user_agent="tests")
        )
        lines = {}
        for node in stage.agents:
            connector = aiohttp.UnixConnector(str(stage.folder / f"{node}.sock"), limit=0)
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            lines[node] = Direct(session)
        api = Insisting(kube)
        try:
            yield Cluster(stage, api, Runtime(lines))
            for secret in await api.items(SECRETS):
                stage.secrets |= telltales.of_secret(secret)
            notes = [
                (f"event {event['metadata']['name']}", event.get("note") or "") for event in await api.items(EVENTS)
            ]
            assert not (found := telltales.told(notes, stage.secrets)), found
        finally:
            for actor in (*stage.actors.values(), stage.plane.actor):
                actor.disarm()
            await clear(api)


async def clear(api: Insisting) -> None:
    """By hand, finalizers and all: what the product does when it is left in peace is not asked here."""
    for resource in CLEARED:
        for obj in await api.items(resource):
            if obj["metadata"].get("finalizers"):
                await api.patch(resource, obj, {"metadata": {"finalizers": None}})
            await api.delete(resource, obj, grace_period_s=0 if resource is PODS else None)


async def furnish(plane: Plane, nodes: Sequence[str]) -> None:
    """Namespace, and nodes that are ready: what ended on another one cools for ten minutes."""
    status = {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}
    async with KubeClient.connect(kubeconfig=plane.kubeconfig, user_agent="tests") as kube:
        api = Insisting(kube)
        await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        for node in nodes:
            await api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}, "status": status})
