"""A whole cluster on one machine: plane, workload controllers, nodes, and on request the project's processes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from allocator.kube import errors, resources
from allocator.kube.client import KubeClient
from allocator.kube.events import Recorder
from allocator.runtime.clock import SystemClock
from devcluster import plane, services, workspace
from devcluster.nodes import attach, cni, kubelet, namespaces, network, registration, sandboxes
from devcluster.workloads import manager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from devcluster.plane import Kind, Plane
    from devcluster.workspace import Workspace

Network = Literal["plugins", "netlink", "none"]

USER_AGENT = "devcluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`kubeconfig` is for plane kubeconfig. `network` None means the most real one that is possible here."""

    directory: Path
    plane: Kind = "embedded"
    kubeconfig: Path | None = None
    nodes: int = 3
    network: Network | None = None
    services: services.Settings = field(default_factory=services.Settings)


@dataclass(slots=True, kw_only=True)
class Cluster:
    settings: Settings
    workspace: Workspace
    plane: Plane
    client: KubeClient
    network: Network
    because: str  # why the network is no more real than it is; "" for the most real one
    kubelets: dict[str, kubelet.Kubelet] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(self.kubelets)

    def network_of(self, uid: str) -> kubelet.Network | None:
        """The sandbox of the pod with this UID, None when no node runs it."""
        found = (one.network_of(uid) for one in self.kubelets.values())
        return next((one for one in found if one is not None), None)

    async def crash_pod(self, node: str, uid: str) -> None:
        await self.kubelets[node].crash_pod(uid)


async def possible_network(folder: Path) -> tuple[Network, str]:
    """The most real one, and why it is not more: macvlan plugin, or the same interface through netlink, or none."""
    if why := await network.obstacle(folder):
        return "none", why
    if cni.find(attach.MAIN_PLUGIN, cni.SYSTEM_FOLDERS):
        return "plugins", ""
    return "netlink", f"there is no macvlan CNI plugin in {' or '.join(map(str, cni.SYSTEM_FOLDERS))}"


@asynccontextmanager
async def run(settings: Settings) -> AsyncIterator[Cluster]:
    """Plane, controllers and nodes, ready. All of it ends with the block, and so does its folder unless the block
    failed. When a part breaks meanwhile the block is cancelled and the error comes out in an ExceptionGroup.
    """
    with workspace.open_workspace(settings.directory) as space:
        async with (
            plane.start_plane(settings.plane, space.plane, kubeconfig=settings.kubeconfig) as running,
            KubeClient.connect(kubeconfig=running.kubeconfig, user_agent=USER_AGENT) as client,
        ):
            wanted, why = (settings.network, "as asked") if settings.network else await possible_network(space.netns)
            with _underlay(wanted, space) as underlay:
                if underlay is not None:
                    await underlay.build()
                made = Cluster(
                    settings=settings, workspace=space, plane=running, client=client, network=wanted, because=why
                )
                async with _parts(made, underlay):
                    yield made


@contextmanager
def _underlay(wanted: Network, space: Workspace) -> Iterator[network.Underlay | None]:
    with nullcontext() if wanted == "none" else network.underlay(space.netns) as made:
        yield made


@asynccontextmanager
async def _parts(cluster: Cluster, underlay: network.Underlay | None) -> AsyncIterator[None]:
    client, clock = cluster.client, SystemClock()
    events = Recorder(client, component=USER_AGENT, clock=clock)
    await asyncio.to_thread(services.install_plugin, cluster.workspace)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(events.run(), name="events")]
        if plans := await _missing_controllers(cluster.plane, client):
            workloads = manager.Manager(client, plans, events=events, clock=clock)
            tasks.append(group.create_task(workloads.run(), name="workloads"))
        for number in range(1, cluster.settings.nodes + 1):
            name, host = f"node-{number}", f"192.0.2.{number}"
            await registration.register(client, name, host=host, clock=clock)
            beat = registration.heartbeat(client, name, host=host, clock=clock)
            tasks.append(group.create_task(beat, name=f"heartbeat {name}"))
            node = await underlay.add_node(name) if underlay is not None else None
            netns = cluster.workspace.netns
            cluster.kubelets[name] = kubelet.Kubelet(
                client,
                node=name,
                host=host,
                attacher=_attacher(cluster, name, node),
                sandboxes=sandboxes.NoNamespaces(netns) if underlay is None else sandboxes.Namespaces(underlay),
                events=events,
                clock=clock,
            )
            tasks.append(group.create_task(cluster.kubelets[name].run(), name=f"kubelet {name}"))
        try:
            yield
        finally:
            if cluster.plane.kind == "kubeconfig":  # it lives on, and must not keep nodes that are no more
                await registration.remove(client, cluster.nodes)
        for task in tasks:
            task.cancel()


def _attacher(cluster: Cluster, name: str, node: namespaces.Namespace | None) -> attach.Plugins | attach.Netlink:
    ipam = services.ipam_config(cluster.workspace, name)
    folders = (cluster.workspace.plugins, *cni.SYSTEM_FOLDERS)
    if cluster.network == "none" or node is None:
        return attach.Plugins(attach.alone(ipam), folders, None)
    if cluster.network == "plugins":
        return attach.Plugins(attach.chained(ipam), folders, node)
    return attach.Netlink(attach.Plugins(attach.alone(ipam), folders, None), node)


async def _missing_controllers(running: Plane, client: KubeClient) -> tuple[manager.Plan, ...]:
    """What nobody in the cluster does. Two who did it would fight."""
    controllers, scheduler = running.controllers, running.scheduler
    if running.kind == "kubeconfig":
        controllers = scheduler = await has_controllers(client)
    return (*(() if controllers else manager.CONTROLLERS), *(() if scheduler else manager.SCHEDULER))


async def has_controllers(client: KubeClient) -> bool:
    """Whether a kube-controller-manager has been at work in this cluster: it puts this object into every namespace."""
    try:
        await client.get(resources.CONFIG_MAPS, "kube-root-ca.crt", namespace="default")
    except errors.NotFound:
        return False
    return True
