"""Who uses the cluster, and what befalls it: people, workload controllers, and crashes."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from devcluster.plane.store import Key
from tests.simulation import tenants
from tests.simulation.mishaps import LENDING_MISHAPS, MISHAPS, Mishaps
from tests.simulation.offers import ENDPOINTS, POOLS, RESERVATIONS
from tests.simulation.workloads import Workloads

if TYPE_CHECKING:
    from devcluster.plane.problems import Object
    from tests.simulation.loop import Process
    from tests.simulation.world import World

MIRROR_REST_S: Final = 5.0
# The grace period between two looks, and what a retry may take.
SUSPECTED_S: Final = 30.0
FINALIZER: Final = "spiderpool.spidernet.io"
SUBNET: Final = "10.20.0.0/24"
# What `spec.ips` of each pool may become: first what it is at the start.
ITEMS: Final = {
    "alpha": (["10.20.0.1-10.20.0.6"], ["10.20.0.1-10.20.0.4"], ["10.20.0.3-10.20.0.6"], ["10.20.0.1-10.20.0.9"], []),
    "beta": (["10.20.0.20-10.20.0.22"], ["10.20.0.20"], ["10.20.0.5-10.20.0.6", "10.20.0.20-10.20.0.22"]),
}
NAMES: Final = ("cart", "till", "stock", "mail")
WISHES: Final[tuple[dict[str, str], ...]] = (
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


class People:
    """`live` is the time of faults. Everything in it is drawn from the seed."""

    def __init__(self, world: World, process: Process) -> None:
        self.process = process
        self.rng = process.rng
        self.impatience = self.rng.choice((0.0, 0.0, 0.1, 0.3))
        self.replicas_wanted = self.rng.choice((0, 1, 2, 2))
        self._world = world
        self._mirrors = 0
        self._mirror_deleted_at = 0.0
        self._lasts_s = self.rng.uniform(30.0, 75.0)
        self._busy = self.rng.choice((0.4, 1.0, 2.0))
        self._habits = self._chosen(HABITS)
        self._mishaps = self._chosen(MISHAPS) if world.is_stormy else {}
        if world.is_stormy and world.has_subnets:
            self._mishaps |= LENDING_MISHAPS
        self.mishaps = Mishaps(world, process)
        self.tenants = tenants.Tenants(world, process)
        self._tenancy = self._chosen(tenants.HABITS) if world.has_subnets else {}

    def _chosen(self, table: dict[str, int]) -> dict[str, int]:
        return {name: weight for name, weight in table.items() if self.rng.random() < 0.7}

    def furnish(self, nodes: tuple[str, ...]) -> None:
        for name in ("default", "kube-system", *NAMESPACES):
            self._world.create("/namespaces", {"metadata": {"name": name}})
        for node in nodes:
            self._world.make_node(node)
        for name in ITEMS:
            self._make_pool(name)
        self.make_set()
        if self._world.has_subnets:
            self.tenants.furnish()

    async def live(self) -> None:
        loop, world = self._world.loop, self._world
        end = loop.time() + self._lasts_s
        loop.start(self.process, self._keep_sets(), "statefulset-controller")
        if world.has_subnets:
            loop.start(self.process, Workloads(world, self.rng).run(), "workload-controllers")
        actions = {**self._habits, **self._mishaps, **self._tenancy, "make pod": 10}
        names, weights = list(actions), list(actions.values())
        while loop.time() < end:
            (name,) = self.rng.choices(names, weights)
            world.story.tell("-- %s", name)
            doer = self.mishaps if name in self._mishaps else self.tenants if name in tenants.HABITS else self
            getattr(doer, name.replace(" ", "_"))()
            await asyncio.sleep(self.rng.expovariate(1.0 / self._busy))

    # -- pods

    def make_pod(self) -> None:
        namespace, name, node = self._draw(("shop", "shop", "lab")), self._draw(NAMES), self._draw(list(self._nodes()))
        self._world.make_pod(name, node, namespace=namespace, annotations=self._draw(WISHES))

    def delete_pod(self) -> None:
        if (found := self._any_pod()) is not None:
            self._world.delete_pod(found[0].namespace, found[0].name, uid=found[1]["metadata"]["uid"])

    def force_delete_pod(self) -> None:
        if (found := self._any_pod()) is not None:
            self._world.delete_pod(found[0].namespace, found[0].name, uid=found[1]["metadata"]["uid"], grace_s=0)

    def replace_pod_by_force(self) -> None:
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

    def finish_pod(self) -> None:
        if (found := self._any_pod()) is not None:
            self._kubelet_of(found[1]).finish(found[0].namespace, found[0].name, "Succeeded")

    def evict_pod(self) -> None:
        if (found := self._any_pod()) is not None:
            self._kubelet_of(found[1]).finish(found[0].namespace, found[0].name, "Failed", "Evicted")

    def break_sandbox(self) -> None:
        self._draw(list(self._world.kubelets.values())).break_sandbox()

    def make_static_pod(self) -> None:
        kubelet = self._draw(list(self._world.kubelets.values()))
        name = f"static-{kubelet.node}"
        if not kubelet.manifests:
            self._mirrors += 1
            kubelet.manifests[name] = f"file{self._mirrors}"
            kubelet.mirror(name)

    def delete_mirror(self) -> None:
        # Not so often that both looks of reclaim fall into different gaps.
        if self._world.loop.time() - self._mirror_deleted_at < MIRROR_REST_S:
            return
        # What the product does not withstand: the leader's pods are stale (a watch is stuck) at its first look, and its
        # second one, live, falls into the gap between two mirrors.
        if any(self._world.loop.time() - at < SUSPECTED_S for at in self._world.judge.suspected.values()):
            return
        self._mirror_deleted_at = self._world.loop.time()
        for kubelet in self._world.kubelets.values():
            for name in kubelet.manifests:
                key = Key("/pods", "shop", name)
                if (pod := self._world.server.store.get(key)) is not None and not kubelet.is_cut_off:
                    self._world.delete_pod("shop", name, uid=pod["metadata"]["uid"], grace_s=0)

    def scale(self) -> None:
        wanted = self._draw((0, 1, 2))
        self._world.edit(
            Key("apps/statefulsets", "shop", "web"), lambda obj: {**obj, "spec": {**obj["spec"], "replicas": wanted}}
        )

    def delete_set(self) -> None:
        self._world.delete(Key("apps/statefulsets", "shop", "web"), propagationPolicy="Background")

    def make_set(self) -> None:
        if self.replicas_wanted:
            labels = {"app": "web"}
            template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
            spec: Object = {"replicas": self.replicas_wanted, "serviceName": "web", "template": template}
            spec["selector"] = {"matchLabels": labels}
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
            owner: Object = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": True}
            owner["uid"] = raw["metadata"]["uid"]
            for ordinal in range(3):
                pod = store.get(Key("/pods", "shop", f"web-{ordinal}"))
                if pod is None and ordinal < raw["spec"]["replicas"]:
                    node = self._draw(list(self._nodes()))
                    self._world.make_pod(f"web-{ordinal}", node, annotations=WISHES[1], owner=owner)
                elif pod is not None and not pod["metadata"].get("deletionTimestamp"):
                    is_over = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
                    if is_over or ordinal >= raw["spec"]["replicas"]:
                        self._world.delete_pod("shop", f"web-{ordinal}", uid=pod["metadata"]["uid"])

    # -- pools and other objects

    def edit_pool(self) -> None:
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

    def delete_pool(self) -> None:
        self._world.delete(Key(POOLS, "", self._draw(list(ITEMS))))

    def make_pool_anew(self) -> None:
        for name in ITEMS:
            self._make_pool(name)

    def _make_pool(self, name: str) -> None:
        spec = {"ipVersion": 4, "subnet": SUBNET, "ips": ITEMS[name][0], "gateway": "10.20.0.254", "default": False}
        self._world.create(POOLS, {"metadata": {"name": name, "finalizers": [FINALIZER]}, "spec": spec})

    def reserve(self) -> None:
        address = f"10.20.0.{self.rng.randrange(1, 9)}"
        spec = {"ipVersion": 4, "ips": [address]}
        self._world.create(RESERVATIONS, {"metadata": {"name": f"of-{address}"}, "spec": spec})

    def unreserve(self) -> None:
        for key, _ in self._world.server.store.items(RESERVATIONS):
            self._world.delete(key)

    def delete_endpoint(self) -> None:
        found = self._world.server.store.items(ENDPOINTS)
        if found:
            self._world.delete(self._draw(found)[0])

    def edit_endpoint(self) -> None:
        found = self._world.server.store.items(ENDPOINTS)
        if found:

            def change(obj: Object) -> Object:
                current = {**obj["status"]["current"], "ips": []}
                return {**obj, "status": {**obj["status"], "current": current}}

            self._world.edit(self._draw(found)[0], change)

    def delete_namespace(self) -> None:
        self._world.delete(Key("/namespaces", "", "lab"))

    def make_namespace(self) -> None:
        self._world.create("/namespaces", {"metadata": {"name": "lab"}})

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
