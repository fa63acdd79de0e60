"""`make demo`: the main job in six steps, on a devcluster, with the commands that a user would type."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import cluster, processes
from devcluster.demo import client, kubectl
from devcluster.demo.show import Show
from devcluster.demo.steps import Demo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Stay = Callable[[], Awaitable[None]]  # returns when the user has seen enough

ROOT = Path(__file__).resolve().parents[2]

STAND_IN = (
    "the API server is the embedded stand-in for development: no CEL, no server-side apply, no RBAC; "
    "--plane envtest or kubeconfig takes a real one"
)
NETWORKS = {
    "plugins": "pods are network namespaces; the macvlan CNI plugin makes their interface and calls spiderpool",
    "netlink": "pods are network namespaces; the devcluster makes their macvlan interface through netlink "
    "and calls the spiderpool plugin alone",
    "none": "the spiderpool plugin is called alone, and pods have addresses but no links",
}


async def demo(settings: cluster.Settings, *, stay: Stay | None) -> None:
    """The whole demo; with `stay` the cluster is kept before the last step until that returns.

    DemoError, WaitError, ProcessError and the like when something is not as it should be.
    """
    show = Show()
    async with _running(settings, show) as steps:
        await steps.install()
        await steps.refuse()
        await steps.deploy()
        await steps.connect()
        await steps.give_back()
        if stay is not None:
            await _stay(steps, stay)
        await steps.tear_down()
    pods = len({one.uid for one in steps.seen})
    addresses = len({one.address for one in steps.seen})
    show.say(f"\n{pods} pods, {addresses} addresses, {show.elapsed_s():.1f} seconds")


async def up(settings: cluster.Settings, *, stay: Stay) -> None:
    """A devcluster with our parts and the sample pools, until `stay` returns."""
    show = Show()
    async with _running(settings, show) as steps:
        await steps.install()
        await _stay(steps, stay)


@asynccontextmanager
async def _running(settings: cluster.Settings, show: Show) -> AsyncIterator[Demo]:
    show.say(f"A devcluster in {settings.directory}: plane {settings.plane}, {settings.nodes} nodes")
    async with cluster.run(settings) as made:
        if not made.plane.real:
            show.note(STAND_IN)
        show.note(f"{made.because}: {NETWORKS[made.network]}" if made.because else NETWORKS[made.network])
        if kubectl.is_installed():
            show.kubectl = kubectl.Installed(
                made.plane.kubeconfig, cache=made.workspace.directory / "kubectl", folder=ROOT
            )
        else:
            show.kubectl = client.ThroughClient(made.client, folder=ROOT)
            show.note("kubectl is not installed: the same requests go through the kubernetes client")
        show.command(f"export KUBECONFIG={made.plane.kubeconfig}")
        async with processes.processes(made.workspace.logs) as started:
            yield Demo(made, started, show)
        show.proved("all processes stopped")


async def _stay(steps: Demo, stay: Stay) -> None:
    show, made = steps.show, steps.cluster
    show.say("\nThe cluster stays until Ctrl-C. In another terminal:")
    show.command(f"export KUBECONFIG={made.plane.kubeconfig}")
    show.command("kubectl get spiderippools,spiderendpoints,pods -o wide")
    if made.network != "none":
        show.command(f"nsenter --net={made.workspace.netns}/NAME ip address   # names: ls {made.workspace.netns}")
    show.say(f"  logs: {made.workspace.logs}")
    with show.paused():
        await stay()
