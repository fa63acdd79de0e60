"""The six steps of the demo. Each raises DemoError (or WaitError) at the first thing that is not as it says."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from allocator.kube import resources
from devcluster import services
from devcluster.demo import observe
from devcluster.demo.show import DemoError
from devcluster.nodes import traffic
from devcluster.waiting import until

if TYPE_CHECKING:
    from allocator.kube.resources import Object
    from devcluster.cluster import Cluster
    from devcluster.demo.show import Show
    from devcluster.processes import Processes

POOLS = ("demo-v4", "demo-v6")
OBJECTS = "devcluster/demo/objects"
WEB_PODS, DB_PODS, FEWER_WEB_PODS = 6, 2, 2

# Generous: a slow machine is no surprise, a pod that never comes is.
ROLLED_OUT_WITHIN_S = 40.0
RELEASED_WITHIN_S = 20.0

# (file, what the message must name)
WRONG_POOLS = (
    ("wrong-reversed.yaml", r"172\.31\.0\.20-172\.31\.0\.10"),
    ("wrong-outside.yaml", r"172\.31\.1\.10-172\.31\.1\.20"),
    ("wrong-overlap.yaml", r"demo-v4"),
)


@dataclass(slots=True)
class Demo:
    """`seen` collects each address that a pod was given, for the figures at the end."""

    cluster: Cluster
    processes: Processes
    show: Show
    seen: set[observe.PodAddress] = field(default_factory=set)

    async def install(self) -> None:
        show = self.show
        if self.cluster.plane.kind == "kubeconfig":
            await self._require_fresh()
        show.step("Install: CRDs and RBAC, then webhook, controller and agents as processes, then two pools")
        await show.run("apply", "-k", "manifests/crds")
        await show.run("apply", "-k", "manifests/base")
        parts = services.services_of(self.cluster)
        for service in parts:
            show.command(services.shown(service))
        began = time.monotonic()
        with show.waiting(f"{len(parts)} processes start"):
            await services.start(parts, self.processes)
        show.proved(f"{len(parts)} processes are ready after {time.monotonic() - began:.1f} s")
        await show.run("apply", "-k", "manifests/samples")

    async def _require_fresh(self) -> None:
        """What the demo makes and removes in someone's own cluster must not be there yet."""
        client = self.cluster.client
        crds = (await client.list(resources.CRDS))["items"]
        if any(crd["spec"]["group"] == resources.SPIDERPOOL_GROUP for crd in crds):
            raise DemoError("this cluster has a Spiderpool already: the demo wants one without")
        for resource, name in ((resources.DEPLOYMENTS, "web"), (resources.STATEFUL_SETS, "db")):
            found = (await client.list(resource, namespace=observe.NAMESPACE))["items"]
            if any(obj["metadata"]["name"] == name for obj in found):
                raise DemoError(
                    f"this cluster has a {resource.kind} {observe.NAMESPACE}/{name}, which the demo would replace"
                )

    async def refuse(self) -> None:
        self.show.step("Wrong pools are refused")
        for file, named in WRONG_POOLS:
            text = await self.show.refused("apply", "-f", f"{OBJECTS}/{file}")
            if not re.search(named, text):
                raise DemoError(f"the refusal of {file} does not name {named}")
        found = {
            pool["metadata"]["name"] for pool in (await self.cluster.client.list(resources.SPIDER_IP_POOLS))["items"]
        }
        if found != set(POOLS):
            raise DemoError(f"after the refusals the pools are {sorted(found)}, not {sorted(POOLS)}")
        self.show.proved("nothing was stored")

    async def deploy(self) -> None:
        show = self.show
        show.step(
            f"A Deployment of {WEB_PODS} pods and a StatefulSet of {DB_PODS}, each pod with an IPv4 and an IPv6 address"
        )
        await show.run("apply", "-f", f"{OBJECTS}/web.yaml")
        await show.run("apply", "-f", f"{OBJECTS}/db.yaml")
        await show.run("rollout", "status", "deployment/web", "--timeout=40s")
        await show.run("rollout", "status", "statefulset/db", "--timeout=40s")
        found = await self._addresses()
        rows = sorted(found, key=lambda one: (one.pod, one.address.version))
        show.table(
            ("POD", "NODE", "INTERFACE", "ADDRESS", "POOL"),
            ((one.pod, one.node, one.interface, str(one.address), one.pool) for one in rows),
        )
        expected = (WEB_PODS + DB_PODS) * len(POOLS)
        if len(found) != expected or len({one.address for one in found}) != expected:
            raise DemoError(f"{expected} different addresses were expected")
        nodes = len({one.node for one in found})
        show.proved(f"{len(rows)} addresses, all different, for {WEB_PODS + DB_PODS} pods on {nodes} nodes")

    async def connect(self) -> None:
        self.show.step("Traffic between pods on different nodes, over the underlay")
        if self.cluster.network == "none":
            self.show.note(f"left out, for pods have no links here ({self.cluster.because})")
            return
        by_node: dict[str, list[observe.PodAddress]] = {}
        for one in sorted(await self._addresses(), key=lambda one: one.pod):
            by_node.setdefault(one.node, []).append(one)
        if len(by_node) < 2:
            self.show.note("left out: there is one node only")
        for (_, here), (_, there) in itertools.combinations(sorted(by_node.items()), 2):
            for pool in POOLS:
                client = next(one for one in here if one.pool == pool)
                server = next(one for one in there if one.pool == pool)
                took = await traffic.echo(self._place(client), self._place(server))
                self.show.proved(
                    f"{client.address} on {client.node} reached {server.address} on {server.node}: "
                    f"UDP echo in {took * 1000:.1f} ms"
                )

    async def give_back(self) -> None:
        show = self.show
        show.step("Addresses come back")
        await observe.wait_counted(self.cluster, POOLS, WEB_PODS + DB_PODS)
        await show.run("get", "spiderippools")
        await show.run("scale", "deployment/web", f"--replicas={FEWER_WEB_PODS}")
        with show.waiting(f"{WEB_PODS - FEWER_WEB_PODS} pods end with CNI DEL"):
            await observe.wait_running(self.cluster, "web", FEWER_WEB_PODS, within_s=RELEASED_WITHIN_S)
            await observe.wait_counted(self.cluster, POOLS, FEWER_WEB_PODS + DB_PODS)
        await show.run("get", "spiderippools")
        left = FEWER_WEB_PODS + DB_PODS
        show.proved(
            f"{left} pods, {left} addresses in use in each pool; the others cool down for 30 s and are taken last"
        )
        await self._replace()
        await self._crash()

    async def tear_down(self) -> None:
        show = self.show
        show.step("Tear down")
        await show.run("delete", "-f", f"{OBJECTS}/web.yaml")
        await show.run("delete", "-f", f"{OBJECTS}/db.yaml")
        with show.waiting("the last pods end"):
            for app in ("web", "db"):
                await observe.wait_running(self.cluster, app, 0, within_s=RELEASED_WITHIN_S)
            await observe.wait_unused(self.cluster, within_s=RELEASED_WITHIN_S)
        show.proved("no address is in use")
        if self.cluster.plane.kind == "kubeconfig":
            await self._uninstall()
        else:
            # A pool waits until its last address has cooled down, half a minute; this API server ends before that.
            await show.run("delete", "-k", "manifests/samples", "--wait=false")

    async def _uninstall(self) -> None:
        """Someone's own cluster gets back what it was."""
        show = self.show
        with show.waiting("pools wait until their last address has cooled down"):
            await show.run("delete", "-k", "manifests/samples")
        await self.processes.stop_all()  # the webhook takes its registration with it
        await show.run("delete", "-k", "manifests/base", "--ignore-not-found")
        await show.run("delete", "-k", "manifests/crds")

    async def _replace(self) -> None:
        show, name = self.show, "db-0"
        before = await observe.pod(self.cluster, name)
        if before is None:
            raise DemoError(f"there is no pod {name}")
        had = await observe.addresses_of(self.cluster, before)
        await show.run("delete", "pod", name)

        async def successor() -> Object | None:
            found = await observe.pod(self.cluster, name)
            other = found is not None and found["metadata"]["uid"] != before["metadata"]["uid"]
            return found if found is not None and other and observe.is_running(found) else None

        with show.waiting(f"the successor of {name} starts"):
            after = await until(successor, within_s=ROLLED_OUT_WITHIN_S, what=f"the successor of pod {name}")
        has = await observe.addresses_of(self.cluster, after)
        self.seen.update(has)
        if {one.address for one in had} != {one.address for one in has}:
            raise DemoError(f"{name} had {_told(had)}, and its successor has {_told(has)}")
        show.proved(f"the new {name} on {has[0].node} has the addresses of the old one on {had[0].node}: {_told(has)}")

    async def _crash(self) -> None:
        show = self.show
        victim = (await observe.pods(self.cluster, "web"))[0]
        name, uid, node = victim["metadata"]["name"], victim["metadata"]["uid"], victim["spec"]["nodeName"]
        had = await observe.addresses_of(self.cluster, victim)
        show.say(f"  {node} loses pod {name} as in a power cut: CNI DEL is never called")
        await self.cluster.crash_pod(node, uid)
        held = await observe.held_by(self.cluster, uid)
        if set(held) != {str(one.address) for one in had}:
            raise DemoError(f"before the reclaim {name} should hold {_told(had)}, and it holds {held}")
        await show.run("delete", "pod", name, "--grace-period=0", "--force")
        began = time.monotonic()

        async def freed() -> bool:
            return not await observe.held_by(self.cluster, uid)

        bound = services.reclaim_bound_s(self.cluster.settings.services)
        with show.waiting(f"reclaim looks twice, {self.cluster.settings.services.reclaim_grace_s:g} s apart"):
            await until(freed, within_s=bound, what=f"reclaim to free {_told(had)}")
        show.proved(f"reclaim freed {_told(had)} after {time.monotonic() - began:.1f} s (bound here: {bound:g} s)")
        with show.waiting(f"the Deployment replaces {name}"):
            await observe.wait_running(self.cluster, "web", FEWER_WEB_PODS, within_s=ROLLED_OUT_WITHIN_S)
            await self._addresses()

    async def _addresses(self) -> list[observe.PodAddress]:
        """Of all pods of the demo as they are now."""
        found: list[observe.PodAddress] = []
        async with asyncio.TaskGroup() as group:
            reading = [
                group.create_task(
                    observe.addresses_of(self.cluster, one), name=f"addresses of {one['metadata']['name']}"
                )
                for app in ("web", "db")
                for one in await observe.pods(self.cluster, app)
            ]
        for task in reading:
            found += task.result()
        self.seen.update(found)
        return found

    def _place(self, one: observe.PodAddress) -> traffic.Place:
        network = self.cluster.network_of(one.uid)
        if network is None or network.sandbox.namespace is None:
            raise DemoError(f"pod {one.pod} has no network namespace")
        return traffic.Place(network.sandbox.namespace, one.address)


def _told(addresses: list[observe.PodAddress]) -> str:
    return ", ".join(str(one.address) for one in sorted(addresses, key=lambda one: one.address.version))
