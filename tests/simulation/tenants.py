"""Applications that live on SpiderSubnets, and who owns them: people that scale, rename and delete, by the seed.

There is no webhook here: what people write is held to its rules by what the store says in that very moment. So between
a leader that has not heard of it yet and such a write lies the window that `lent.py` forgives.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from allocator.domain.addresses import IntervalSet
from allocator.domain.lending import decode_accounts, lent
from allocator.domain.overlap import extent_of
from devcluster.plane.store import Key
from tests.simulation.offers import POOLS, RESERVATIONS, SUBNETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from allocator.domain.addresses import Address
    from allocator.domain.overlap import Extent
    from devcluster.plane.problems import Object
    from tests.simulation.loop import Process
    from tests.simulation.world import World

PREFIX: Final = "ipam.spidernet.io/"
FINALIZER: Final = "spiderpool.spidernet.io"
NAMESPACE: Final = "shop"
# So small that the applications cannot all have what they ask for. The gateway of `low` is one of its addresses.
LAND: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "low": ("10.30.0.0/24", "10.30.0.9", ("10.30.0.1-10.30.0.9", "10.30.0.1-10.30.0.12", "10.30.0.1-10.30.0.7")),
    "high": ("10.31.0.0/24", "10.31.0.254", ("10.31.0.1-10.31.0.8", "10.31.0.3-10.31.0.8")),
}
LISTS: Final = (["low"], ["low"], ["high"], ["low", "high"], ["high", "low"])
NUMBERS: Final = (None, "+0", "+1", "+2", "2", "5")
APPLICATIONS: Final = {
    "front": ("apps/deployments", "replicas"),
    "back": ("apps/deployments", "replicas"),
    "db": ("apps/statefulsets", "replicas"),
    "sum": ("batch/jobs", "completions"),
}
# What tenants do, and how often beside all others.
HABITS: Final = {
    "make application": 10,
    "make lone pod": 2,
    "scale application": 10,
    "waver": 6,
    "renumber application": 3,
    "move application": 3,
    "delete application": 3,
    "replace application": 3,
    "make pool by hand": 3,
    "delete pool by hand": 2,
    "reserve of subnet": 1,
    "edit subnet": 1,
    "delete subnet": 1,
    "make subnet": 2,
}


class Tenants:
    """Each method of a name in HABITS is one."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._rng = process.rng
        self._by_hand = 0

    def furnish(self) -> None:
        for name in LAND:
            self._make_subnet(name)
        self.make_application()

    # -- applications

    def make_application(self) -> None:
        missing = [name for name in APPLICATIONS if self._application(name) is None]
        if missing:
            self._make(self._draw(missing))

    def make_lone_pod(self) -> None:
        """A bare pod, which is an application of its own."""
        said = {PREFIX + "subnet": json.dumps({"ipv4": self._draw(LISTS)})}
        name, node = self._draw(("lone", "sole")), self._draw(list(self._world.kubelets))
        self._world.make_pod(name, node, namespace=NAMESPACE, annotations=said)

    def scale_application(self) -> None:
        if (name := self._any_application()) is not None:
            field, wanted = APPLICATIONS[name][1], self._draw((0, 1, 2, 3, 4, 5))
            # A Job's completions do not change.
            if field == "replicas":
                self._scale(name, wanted)

    def waver(self) -> None:
        """Scale, and soon back again."""
        if (back := self.scale_for_now()) is not None:
            context = self._world.people.process.context
            self._world.loop.call_later(self._rng.uniform(0.2, 4.0), back, context=context)

    def scale_for_now(self, steps: tuple[int, ...] = (-2, -1, 1, 2)) -> Callable[[], None] | None:
        """What scales back; None when there is nothing to scale."""
        name = self._any_application()
        raw = None if name is None else self._application(name)
        if name is None or raw is None or APPLICATIONS[name][1] != "replicas":
            return None
        before = raw["spec"]["replicas"]
        self._scale(name, max(0, before + self._draw(steps)))
        return lambda: self._scale(name, before)

    def _scale(self, name: str, replicas: int) -> None:
        if self._application(name) is not None and not self._world.is_calm:
            self._edit(name, lambda obj: {**obj, "spec": {**obj["spec"], "replicas": replicas}})

    def renumber_application(self) -> None:
        self._annotate({PREFIX + "ippool-ip-number": self._draw(NUMBERS)})

    def move_application(self) -> None:
        self._annotate({PREFIX + "subnet": json.dumps({"ipv4": self._draw(LISTS)})})

    def delete_application(self) -> None:
        if (name := self._any_application()) is not None:
            self._world.delete(_key(name), propagationPolicy="Background")

    def replace_application(self) -> None:
        if (name := self._any_application()) is not None:
            self._world.delete(_key(name), propagationPolicy="Background")
            self._make(name)

    def _make(self, name: str) -> None:
        collection, field = APPLICATIONS[name]
        said = {
            PREFIX + "subnet": json.dumps({"ipv4": self._draw(LISTS)}),
            PREFIX + "ippool-ip-number": self._draw(NUMBERS),
            PREFIX + "ippool-reclaim": self._draw((None, None, "true", "false")),
        }
        annotations = {key: value for key, value in said.items() if value is not None}
        template = {
            "metadata": {"labels": {"app": name}, "annotations": annotations},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
        spec: Object = {field: self._draw((1, 2, 2, 3, 4)), "template": template}
        if field == "replicas":
            spec["selector"] = {"matchLabels": {"app": name}}
        self._world.create(collection, {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}, NAMESPACE)

    def _annotate(self, changes: dict[str, str | None]) -> None:
        name = self._any_application()
        # A Job's template does not change.
        if name is None or APPLICATIONS[name][1] != "replicas":
            return

        def change(obj: Object) -> Object:
            template = obj["spec"]["template"]
            said = {**template["metadata"]["annotations"], **changes}
            annotations = {key: value for key, value in said.items() if value is not None}
            template = {**template, "metadata": {**template["metadata"], "annotations": annotations}}
            return {**obj, "spec": {**obj["spec"], "template": template}}

        self._edit(name, change)

    def _edit(self, name: str, change: Any) -> None:
        self._world.edit(_key(name), change)

    def _application(self, name: str) -> Object | None:
        return self._world.server.store.get(_key(name))

    def _any_application(self) -> str | None:
        found = [name for name in APPLICATIONS if self._application(name) is not None]
        return self._draw(found) if found else None

    # -- pools made by hand, reservations, and the subnets themselves

    def make_pool_by_hand(self) -> None:
        subnet = self._any_subnet()
        if subnet is None or subnet[0]["metadata"].get("deletionTimestamp"):
            return
        raw, extent = subnet
        idle = _each(extent.ips - self._taken(raw, extent))
        if idle:
            self._by_hand += 1
            chosen = self._rng.sample(idle, min(len(idle), self._draw((1, 2))))
            ips = IntervalSet.addresses(4, chosen).texts()
            spec = {"ipVersion": 4, "subnet": raw["spec"]["subnet"], "ips": ips, "default": False}
            meta = {"name": f"hand-{self._by_hand}", "finalizers": [FINALIZER]}
            self._world.story.tell("hand-%d: %s", self._by_hand, ips)
            self._world.create(POOLS, {"metadata": meta, "spec": spec})

    def delete_pool_by_hand(self) -> None:
        found = [key for key, _ in self._world.server.store.items(POOLS) if key.name.startswith("hand-")]
        if found:
            self._world.delete(self._draw(found))

    def reserve_of_subnet(self) -> None:
        address = f"10.30.0.{self._rng.randrange(1, 9)}"
        spec = {"ipVersion": 4, "ips": [address]}
        self._world.create(RESERVATIONS, {"metadata": {"name": f"of-{address}"}, "spec": spec})

    def edit_subnet(self) -> None:
        subnet = self._any_subnet()
        if subnet is None:
            return
        raw, extent = subnet
        ips = [self._draw(LAND[extent.name][2])]
        # It may not give away what pools have of it.
        if not (extent.ips - IntervalSet.parse(4, ips)) & self._taken(raw, extent):
            self._world.story.tell("subnet %s: %s", extent.name, ips)
            key = Key(SUBNETS, "", extent.name)
            self._world.edit(key, lambda obj: {**obj, "spec": {**obj["spec"], "ips": ips}})

    def delete_subnet(self) -> None:
        self._world.delete(Key(SUBNETS, "", self._draw(list(LAND))))

    def make_subnet(self) -> None:
        for name in LAND:
            self._make_subnet(name)

    def _make_subnet(self, name: str) -> None:
        network, gateway, texts = LAND[name]
        spec = {"ipVersion": 4, "subnet": network, "gateway": gateway, "ips": [texts[0]]}
        self._world.create(SUBNETS, {"metadata": {"name": name, "finalizers": [FINALIZER]}, "spec": spec})

    def _any_subnet(self) -> tuple[Object, Extent] | None:
        raw = self._world.server.store.get(Key(SUBNETS, "", self._draw(list(LAND))))
        extent = None if raw is None else extent_of({**raw, "kind": "SpiderSubnet"})
        return None if raw is None or extent is None else (raw, extent)

    def _taken(self, raw: Object, extent: Extent) -> IntervalSet:
        """What pools offer of the subnet, or have by its accounts."""
        pools = (extent_of(pool) for _, pool in self._world.server.store.items(POOLS))
        offered = [pool.ips for pool in pools if pool is not None and pool.subnet == extent.subnet]
        accounted = lent(decode_accounts(raw.get("status") or {}, 4), 4)
        return IntervalSet.of(4, (span for ips in (*offered, accounted) for span in ips.spans))

    def _draw(self, options: Any) -> Any:
        return self._rng.choice(options)


def _key(name: str) -> Key:
    return Key(APPLICATIONS[name][0], NAMESPACE, name)


def _each(ips: IntervalSet) -> list[Address]:
    return [ips.nth(index) for index in range(ips.count)]
