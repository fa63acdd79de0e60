"""Who uses the cluster, and what befalls it: people, workload controllers, and crashes."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from devcluster.plane.store import Key
from tests.simulation.judge import ENDPOINTS, POOLS, RESERVATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from devcluster.plane.problems import Object
    from tests.simulation.loop import Process
    from tests.simulation.world import World

FINALIZER: Final = "spiderpool.spidernet.io"
SUBNET: Final = "10.20.0.0/24"
# What `spec.ips` of each pool may become: first what it is at the start.
ITEMS: Final = {
    "alpha": (["10.20.0.1-10.20.0.6"], ["10.20.0.1-10.20.0.4"], ["10.20.0.3-10.20.0.6"], ["10.20.0.1-10.20.0.9"], []),
    "beta": (["10.20.0.20-10.20.0.22"], ["10.20.0.20"], ["10.20.0.5-10.20.0.6", "10.20.0.20-10.20.0.22"]),
}
NAMES: Final = ("cart", "till", "stock", "mail")
WISHES: Final = (
    {"ipam.spidernet.io/ippool": json.dumps({"ipv4": ["alpha"]})},
    {"ipam.spidernet.io/ippool": json.dumps({"ipv4": ["alpha", "beta"]})},
    {"ipam.spidernet.io/ippool": json.dumps({"ipv4": ["beta", "alpha"]})},
    {
        "ipam.spidernet.io/ippools": json.dumps(
            [{"interface": "eth0", "ipv4": ["alpha"]}, {"interface": "net1", "ipv4": ["beta", "alpha"]}]
        )
    },
    {},
)
NAMESPACES: Final = ("shop", "lab")


class People:
    """`live` is the time of faults. Everything in it is drawn from the seed."""

    def __init__(self, world: World, process: Process) -> None:
        self.process = process
        self.rng = process.rng
        self.impatience = self.rng.choice((0.0, 0.0, 0.1, 0.3))
        self.replicas_wanted = self.rng.choice((0, 1, 2, 2))
        self._world = world
        self._mirrors = 0
        self._lasts_s = self.rng.uniform(30.0, 75.0)
        self._busy = self.rng.choice((0.4, 1.0, 2.0))
        self._habits = self._chosen(HABITS)
        self._mishaps = self._chosen(MISHAPS) if world.is_stormy else {}

    def _chosen(self, table: dict[str, int]) -> dict[str, int]:
        return {name: weight for name, weight in table.items() if self.rng.random() < 0.7}

    def furnish(self, nodes: tuple[str, ...]) -> None:
        for name in ("default", "kube-system", *NAMESPACES):
            self._world.create("/namespaces", {"metadata": {"name": name}})
        for node in nodes:
            self._make_node(node)
        for name in ITEMS:
            self._make_pool(name)
        self._make_set()

    async def live(self) -> None:
        loop, world = self._world.loop, self._world
        end = loop.time() + self._lasts_s
        loop.spawn(self.process, self._keep_sets(), "statefulset-controller")
        actions = {**self._habits, **self._mishaps, "make pod": 10}
        names, weights = list(actions), list(actions.values())
        while loop.time() < end:
            (name,) = self.rng.choices(names, weights)
            world.story.tell("-- %s", name)
            getattr(self, "_" + name.replace(" ", "_"))()
            await asyncio.sleep(self.rng.expovariate(1.0 / self._busy))

    # -- pods

    def _make_pod(self) -> None:
        namespace, name, node = self._draw(("shop", "shop", "lab")), self._draw(NAMES), self._draw(list(self._nodes()))
        self._world.make_pod(name, node, namespace=namespace, annotations=self._draw(WISHES))

    def _delete_pod(self) -> None:
        if (found := self._any_pod()) is not None:
            self._world.delete_pod(found[0].namespace, found[0].name, uid=found[1]["metadata"]["uid"])

    def _force_delete_pod(self) -> None:
        if (found := self._any_pod()) is not None:
            self._world.delete_pod(found[0].namespace, found[0].name, uid=found[1]["metadata"]["uid"], grace_s=0)

    def _replace_pod_by_force(self) -> None:
        found = self._any_pod()
        if found is not None and not found[1]["metadata"].get("ownerReferences"):
            key, pod = found
            self._world.delete_pod(key.namespace, key.name, uid=pod["metadata"]["uid"], grace_s=0)
            self._world.make_pod(
                key.name,
                self._draw(list(self._nodes())),
                namespace=key.namespace,
                annotations={
                    name: text for name, text in (pod["metadata"].get("annotations") or {}).items() if "ipam" in name
                },
            )

    def _finish_pod(self) -> None:
        if (found := self._any_pod()) is not None:
            self._kubelet_of(found[1]).finish(found[0].namespace, found[0].name, "Succeeded")

    def _evict_pod(self) -> None:
        if (found := self._any_pod()) is not None:
            self._kubelet_of(found[1]).finish(found[0].namespace, found[0].name, "Failed", "Evicted")

    def _break_sandbox(self) -> None:
        self._draw(list(self._world.kubelets.values())).break_sandbox()

    def _make_static_pod(self) -> None:
        kubelet = self._draw(list(self._world.kubelets.values()))
        name = f"static-{kubelet.node}"
        if not kubelet.manifests:
            self._mirrors += 1
            kubelet.manifests[name] = f"file{self._mirrors}"
            kubelet.mirror(name)

    def _delete_mirror(self) -> None:
        for kubelet in self._world.kubelets.values():
            for name in kubelet.manifests:
                key = Key("/pods", "shop", name)
                if (pod := self._world.server.store.get(key)) is not None and not kubelet.is_cut_off:
                    self._world.delete_pod("shop", name, uid=pod["metadata"]["uid"], grace_s=0)

    def _scale(self) -> None:
        wanted = self._draw((0, 1, 2))
        self._world.edit(
            Key("apps/statefulsets", "shop", "web"), lambda obj: {**obj, "spec": {**obj["spec"], "replicas": wanted}}
        )

    def _delete_set(self) -> None:
        self._world.delete(Key("apps/statefulsets", "shop", "web"), propagationPolicy="Background")

    def _make_set(self) -> None:
        if self.replicas_wanted:
            spec = {"replicas": self.replicas_wanted, "serviceName": "web"}
            self._world.create(
                "apps/statefulsets", {"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}, "shop"
            )

    async def _keep_sets(self) -> None:
        """What the StatefulSet controller does, once a second."""
        while True:
            await asyncio.sleep(1.0)
            store = self._world.server.store
            raw = store.get(Key("apps/statefulsets", "shop", "web"))
            if raw is None or raw["metadata"].get("deletionTimestamp"):
                continue
            owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": raw["metadata"]["uid"]}
            owner["controller"] = True  # type: ignore[assignment]
            for ordinal in range(3):
                pod = store.get(Key("/pods", "shop", f"web-{ordinal}"))
                if pod is None and ordinal < raw["spec"]["replicas"]:
                    node = self._draw(list(self._nodes()))
                    self._world.make_pod(f"web-{ordinal}", node, annotations=WISHES[1], owner=owner)
                elif pod is not None:
                    is_over = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
                    if ordinal >= raw["spec"]["replicas"] or is_over:
                        if not pod["metadata"].get("deletionTimestamp"):
                            self._world.delete_pod("shop", f"web-{ordinal}", uid=pod["metadata"]["uid"])

    # -- pools and other objects

    def _edit_pool(self) -> None:
        name = self._draw(list(ITEMS))
        taken = [str(address) for address, record in self._world.judge.records.items() if record.pool == name]
        change: Object = self._draw(
            (
                {"ips": self._draw(ITEMS[name])},
                {"ips": ITEMS[name][0]},
                {"excludeIPs": [self._draw(taken)] if taken else []},
                {"excludeIPs": []},
                {"disable": True},
                {"disable": False},
                {"nodeName": [self._draw(("n1", "n2"))]},
                {"nodeName": []},
            )
        )
        self._world.story.tell("pool %s: %s", name, change)
        self._world.edit(Key(POOLS, "", name), lambda obj: {**obj, "spec": {**obj["spec"], **change}})

    def _delete_pool(self) -> None:
        self._world.delete(Key(POOLS, "", self._draw(list(ITEMS))))

    def _make_pool_anew(self) -> None:
        for name in ITEMS:
            self._make_pool(name)

    def _make_pool(self, name: str) -> None:
        spec = {"ipVersion": 4, "subnet": SUBNET, "ips": ITEMS[name][0], "gateway": "10.20.0.254", "default": False}
        self._world.create(POOLS, {"metadata": {"name": name, "finalizers": [FINALIZER]}, "spec": spec})

    def _reserve(self) -> None:
        address = f"10.20.0.{self.rng.randrange(1, 9)}"
        spec = {"ipVersion": 4, "ips": [address]}
        self._world.create(RESERVATIONS, {"metadata": {"name": f"of-{address}"}, "spec": spec})

    def _unreserve(self) -> None:
        for key, _ in self._world.server.store.items(RESERVATIONS):
            self._world.delete(key)

    def _delete_endpoint(self) -> None:
        found = self._world.server.store.items(ENDPOINTS)
        if found:
            self._world.delete(self._draw(found)[0])

    def _edit_endpoint(self) -> None:
        found = self._world.server.store.items(ENDPOINTS)
        if found:

            def change(obj: Object) -> Object:
                current = {**obj["status"]["current"], "ips": []}
                return {**obj, "status": {**obj["status"], "current": current}}

            self._world.edit(self._draw(found)[0], change)

    def _delete_namespace(self) -> None:
        self._world.delete(Key("/namespaces", "", "lab"))

    def _make_namespace(self) -> None:
        self._world.create("/namespaces", {"metadata": {"name": "lab"}})

    # -- mishaps

    def _crash_agent(self) -> None:
        kubelet = self._draw(list(self._world.kubelets.values()))
        if kubelet.agent is not None:
            kubelet.agent.kill()
            kubelet.agent = None
            self._later(self.rng.uniform(0.05, 12.0), lambda: self._world.start_agent(kubelet.node))

    def _crash_controller(self) -> None:
        name = self._draw(list(self._world.controllers))
        controller = self._world.controllers[name]
        if not controller.process.is_dead:
            controller.kill()
            self._later(self.rng.uniform(0.05, 20.0), lambda: self._world.start_controller(name))

    def _pause_controller(self) -> None:
        self._pause(self._draw(list(self._world.controllers.values())).process)

    def _pause_agent(self) -> None:
        kubelet = self._draw(list(self._world.kubelets.values()))
        if kubelet.agent is not None:
            self._pause(kubelet.agent.process)

    def _pause(self, process: Process) -> None:
        loop = self._world.loop
        if not process.is_paused and not process.is_dead:
            loop.pause(process)
            self._later(self.rng.uniform(1.0, 60.0), lambda: loop.resume(process) if process.is_paused else None)

    def _jump_clock(self) -> None:
        processes = [each.process for each in self._world.controllers.values()]
        processes += [each.agent.process for each in self._world.kubelets.values() if each.agent is not None]
        self._draw(processes).skew_s = self._draw((-3600.0, -20.0, 20.0, 3600.0))
        self._world.has_wrong_clocks = True

    def _cut_off(self) -> None:
        """A process cannot reach the API server."""
        names = [*self._world.controllers, *(f"agent-{node}" for node in self._world.kubelets)]
        self._cut(self._draw(names), self.rng.uniform(1.0, 40.0))

    def _cut(self, name: str, for_s: float) -> None:
        self._world.weather.cut_off.add(name)
        self._later(for_s, lambda: self._world.reconnect(name))

    def _lose_node(self) -> None:
        """The node is cut off; its pods are deleted, by force or by the taint; it comes back."""
        world, node = self._world, self._draw(list(self._world.kubelets))
        kubelet = world.kubelets[node]
        if kubelet.is_cut_off:
            return
        kubelet.cut()
        away_s = self.rng.uniform(5.0, 60.0)
        self._cut(f"agent-{node}", away_s)
        self._later(away_s, lambda: self._return_node(node))
        self._later(away_s / 3, lambda: self._set_ready(node, "False"))
        grace_s = self._draw((None, None, 0))
        is_deleted = grace_s == 0 and self.rng.random() < 0.5
        self._later(away_s / 2, lambda: self._drain(node, grace_s, is_deleted=is_deleted))

    def _drain(self, node: str, grace_s: int | None, *, is_deleted: bool) -> None:
        if is_deleted:
            self._world.delete(Key("/nodes", "", node))
        for key, pod in self._world.server.store.items("/pods"):
            if pod["spec"].get("nodeName") == node:
                self._world.delete_pod(key.namespace, key.name, uid=pod["metadata"]["uid"], grace_s=grace_s)

    def _return_node(self, node: str) -> None:
        kubelet = self._world.kubelets[node]
        if kubelet.is_cut_off:
            self._make_node(node)
            self._set_ready(node, "True")
            kubelet.reconnect()

    def _reboot_node(self) -> None:
        kubelet = self._draw(list(self._world.kubelets.values()))
        kubelet.reboot()
        if kubelet.agent is not None:
            kubelet.agent.kill()
            kubelet.agent = None
            self._later(self.rng.uniform(0.5, 5.0), lambda: self._world.start_agent(kubelet.node))

    def _compact(self) -> None:
        self._world.server.store.compact()

    def _cut_watches(self) -> None:
        self._world.network.cut_watches()

    # -- the end of faults

    def mend(self) -> None:
        """Everything that is broken, away or paused is well again, at once."""
        world = self._world
        for name, kubelet in world.kubelets.items():
            self._return_node(name)
            if kubelet.agent is None:
                world.start_agent(name)
        for name, controller in list(world.controllers.items()):
            if controller.process.is_dead:
                world.start_controller(name)
        processes = [each.process for each in world.controllers.values()]
        processes += [each.agent.process for each in world.kubelets.values() if each.agent is not None]
        for process in processes:
            process.skew_s = 0.0
            if process.is_paused:
                world.loop.resume(process)
        self._make_namespace()

    # -- helpers

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Unless `mend` has come first."""
        self._world.loop.call_later(delay_s, self._unless_calm, act, context=self.process.context)

    def _unless_calm(self, act: Callable[[], None]) -> None:
        if not self._world.is_calm:
            act()

    def _make_node(self, node: str) -> None:
        self._world.create("/nodes", {"metadata": {"name": node}})
        self._set_ready(node, "True")

    def _set_ready(self, node: str, status: str) -> None:
        conditions = [{"type": "Ready", "status": status}]
        self._world.edit(
            Key("/nodes", "", node), lambda obj: {**obj, "status": {"conditions": conditions}}, subresource="status"
        )

    def _nodes(self) -> list[str]:
        return list(self._world.kubelets)

    def _any_pod(self) -> tuple[Key, Object] | None:
        found = [
            (key, pod)
            for key, pod in self._world.server.store.items("/pods")
            if not pod["metadata"].get("deletionTimestamp") and not key.name.startswith("static")
        ]
        return self._draw(found) if found else None

    def _kubelet_of(self, pod: Object) -> Any:
        return self._world.kubelets[pod["spec"]["nodeName"]]

    def _draw(self, options: Any) -> Any:
        return self.rng.choice(options)


# What people do, and how often beside the others.
HABITS: Final = {
    "delete pod": 6,
    "force delete pod": 2,
    "replace pod by force": 3,
    "finish pod": 2,
    "evict pod": 1,
    "break sandbox": 3,
    "make static pod": 1,
    "delete mirror": 2,
    "scale": 3,
    "delete set": 1,
    "make set": 2,
    "edit pool": 5,
    "delete pool": 1,
    "make pool anew": 2,
    "reserve": 1,
    "unreserve": 1,
    "delete endpoint": 1,
    "edit endpoint": 1,
    "delete namespace": 1,
    "make namespace": 1,
}
MISHAPS: Final = {
    "crash agent": 3,
    "crash controller": 2,
    "pause controller": 2,
    "pause agent": 2,
    "jump clock": 1,
    "cut off": 2,
    "lose node": 2,
    "reboot node": 1,
    "compact": 1,
    "cut watches": 1,
}
