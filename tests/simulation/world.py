"""One seed: a small cluster, its people, its weather, and what came of it.

It is small on purpose, and leaves out: IPv6 and pods with both families, virtual machines and their migrations,
third parties' applications, the webhook and all admission (no schemas, no CEL), upgrades, hand back and the runtime's
garbage collection, and the brake of reclaim, which so few records never bring on. The network between pods is not
there: who uses an address is what the runtime was told. Sockets, files and TLS are others' tests.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import uuid
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from allocator.domain.subnet_pools import SubnetRules
from allocator.kube.codec import decode_pod
from devcluster.plane.api import Call, Replacement
from devcluster.plane.housekeeping import Housekeeper
from devcluster.plane.problems import Problem
from devcluster.plane.store import Key
from tests.simulation import calm
from tests.simulation.apiserver import ApiServer, finished
from tests.simulation.faults import Weather
from tests.simulation.judge import Judge, Violation
from tests.simulation.kubelet import Kubelet
from tests.simulation.loop import PROCESS, Process, Standstill, VirtualClock, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.offers import Offers
from tests.simulation.people import People
from tests.simulation.processes import NAMESPACE, AgentProcess, ControllerProcess
from tests.simulation.story import Ear, Story

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from allocator.domain.request import Pod
    from devcluster.plane.problems import Object
    from devcluster.plane.registry import ResourceType
    from tests.simulation.kubelet import Sandbox

NODES: Final = ("n1", "n2")
REPLICAS: Final = ("controller-a", "controller-b")
# Of so many seeds one has fair weather: there the bounds must hold all the time.
FAIR_EVERY: Final = 8
# Of so many seeds one has SpiderSubnets, and applications that live on them.
SUBNETS_EVERY: Final = 3
LEASE: Final = Key("coordination.k8s.io/leases", NAMESPACE, "spiderpool-controller-leases")
_ASKED: Final = Call(field_validation="Ignore")


@dataclass(frozen=True, slots=True)
class Outcome:
    seed: int
    failure: str
    number: str
    virtual_s: float
    steps: int
    faults: int
    answers: int
    story: tuple[str, ...]
    digest: str


def play(seed: int, *, is_traced: bool = False) -> Outcome:
    """One seed, with nothing left of it afterwards."""
    was_collecting = gc.isenabled()
    # What a seed leaves waiting is thrown away between two seeds, and never in the middle of one.
    gc.disable()
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            outcome = World(seed, is_traced=is_traced).run()
            gc.collect()
    finally:
        sys.unraisablehook = hook
        if was_collecting:
            gc.enable()
    return outcome


class World:
    def __init__(self, seed: int, *, is_traced: bool = False) -> None:
        self.seed = seed
        self.is_fair = seed % FAIR_EVERY == 0
        self.has_subnets = seed % SUBNETS_EVERY == 1
        self.is_stormy = not self.is_fair
        self.is_calm = False
        self.has_wrong_clocks = False
        self._uids = 0
        self._lives: dict[str, int] = {}
        self.loop = VirtualLoop(self.random("loop"))
        self.process = Process("world", self.random("world"))
        self.story = Story(self.loop.time, is_kept=is_traced)
        server_process = Process("apiserver", self.random("apiserver"))
        self.server = ApiServer(VirtualClock(self.loop, server_process), self.new_uid)
        self.weather = Weather(self.random("weather"), fair=self.is_fair, lends=self.has_subnets)
        self.network = Network(self.loop, self.server, self.weather, server_process)
        self.judge = Judge(self, Offers(self.server.store))
        self.network.on_sent = self.judge.sent
        self.network.on_arrival = self.judge.arrived
        self.server.store.subscribe(self.judge.committed)
        self.kubelets: dict[str, Kubelet] = {}
        self.controllers: dict[str, ControllerProcess] = {}
        self.people = People(self, Process("people", self.random("people")))
        self._housekeeper = Housekeeper(self.server.api)
        self._server_process = server_process
        self.leads_since = float("inf")
        self._stopped: asyncio.Future[None] | None = None

    def random(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")  # noqa: S311 - the same choices in every run

    def new_uid(self) -> str:
        self._uids += 1
        return f"u{self._uids}"

    # -- the run

    def run(self) -> Outcome:
        failure: Violation | None = None
        with _seeded(), self._listening():
            try:
                self.process.context.copy().run(self.loop.run_until_complete, self._live())
            except Violation as violation:
                failure = violation
            except Standstill as standstill:
                failure = Violation("BUG", str(standstill))
            finally:
                self.loop.close()
        failure = self.judge.failure or failure
        if self.loop.complaints and failure is None:
            failure = Violation("BUG", f"nobody has caught {self.loop.complaints}")
        return Outcome(
            self.seed,
            str(failure or ""),
            failure.number if failure else "",
            self.loop.time(),
            self.loop.steps,
            self.weather.told,
            self.judge.calls.answers,
            tuple(self.story.lines),
            self.story.digest,
        )

    async def _live(self) -> None:
        self._stopped = self.loop.create_future()
        self.story.tell("seed %d, weather: %s", self.seed, self.weather)
        self.loop.start(self._server_process, self._housekeeper.run(), "housekeeping")
        self.people.furnish(NODES)
        for node in NODES:
            self.kubelets[node] = Kubelet(self, node, Process(f"kubelet-{node}", self.random(f"kubelet-{node}")))
            self.start_agent(node)
        for name in REPLICAS:
            self.start_controller(name)
        life = self.loop.spawn(self.people.process, self.people.live(), "people")
        if not await self._until_done(life):
            self.story.tell("calm")
            await self._until_done(self.loop.spawn(self.process, calm.settle(self), "calm"))

    async def _until_done(self, task: asyncio.Task[None]) -> bool:
        """Wait for the task, or for the first violation; whether there was one."""
        assert self._stopped is not None
        await asyncio.wait([task, self._stopped], return_when=asyncio.FIRST_COMPLETED)
        if self.judge.failure is not None:
            return True
        task.result()
        return False

    def stop(self) -> None:
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        before = structlog.get_config()
        level = logging.DEBUG if self.story.is_kept else logging.INFO
        structlog.configure(
            processors=[Ear(self._heard)],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.ReturnLoggerFactory(),
            cache_logger_on_first_use=False,
        )
        try:
            yield
        finally:
            structlog.configure(**before)

    def _heard(self, event: str, fields: dict[str, Any]) -> None:
        if self.story.is_kept:
            self.story.tell("log %s %s", event, " ".join(f"{key}={value}" for key, value in fields.items()))
        if event == "holder_suspected":
            self.judge.suspected[fields["address"]] = self.loop.time()
        elif event == "address_conflict":
            self.judge.byhand.told.add((fields["pod_uid"], fields["address"]))
        elif event == "leading":
            self.leads_since = self.loop.time()
        if fields.get("exc_info"):
            error = fields["exc_info"]
            self.judge.hold("BUG", False, "%s: %s: %s", PROCESS.get(), event, _traced(error))

    # -- processes

    def process_of(self, name: str) -> Process:
        self._lives[name] = self._lives.get(name, 0) + 1
        return Process(name, self.random(f"{name}#{self._lives[name]}"))

    def start_agent(self, node: str) -> None:
        kubelet = self.kubelets[node]
        process = self.process_of(f"agent-{node}")
        rules = SubnetRules(is_on=self.has_subnets, makes_pools=self.has_subnets)
        agent = AgentProcess(node, process, self.network, kubelet.folder, rules=rules)
        agent.main.add_done_callback(self._ended, context=self.process.context)
        kubelet.agent = agent

    def start_controller(self, name: str) -> None:
        controller = ControllerProcess(name, self.process_of(name), self.network, lends=self.has_subnets)
        controller.main.add_done_callback(self._ended, context=self.process.context)
        self.controllers[name] = controller

    def _ended(self, main: asyncio.Task[None]) -> None:
        """No process of ours ends by itself."""
        error = None if main.cancelled() else main.exception()
        self.judge.hold("BUG", False, "%s has ended: %s", main.get_name(), _traced(error))

    def lease_holder(self) -> str:
        lease = self.server.store.get(LEASE)
        return str((lease["spec"] if lease else {}).get("holderIdentity") or "")

    def calm(self) -> None:
        """The last fault is over."""
        self.is_calm = True
        self.is_stormy = False
        names = sorted(self.weather.cut_off)
        self.weather.calm()
        self.network.ambush = None
        self.people.mishaps.mend()
        self.people.make_namespace()
        # What a list has left out comes back with the next one: no watch may go on from where it is.
        self.edit(
            Key("/namespaces", "", "default"),
            lambda obj: obj | {"metadata": obj["metadata"] | {"labels": {"calm": "1"}}},
        )
        self.server.store.compact()
        self.network.cut_watches()
        self.story.tell("reconnected: %s", names)

    def reconnect(self, name: str) -> None:
        self.weather.cut_off.discard(name)
        self.network.cut_watches(name)

    def impatient(self) -> bool:
        """Whether a runtime forgets that it has asked."""
        return self.is_stormy and self.people.rng.random() < self.people.impatience

    def running(self) -> Iterator[Sandbox]:
        for kubelet in self.kubelets.values():
            yield from (each for each in kubelet.sandboxes if each.is_running)

    # -- what anybody may do to the API without a network in between

    def resource(self, collection: str) -> ResourceType:
        found = self.server.registry.by_collection(collection)
        assert found is not None, collection
        return found

    def create(self, collection: str, obj: Object, namespace: str = "") -> Object | None:
        """None when it is not to be."""
        rt = self.resource(collection)
        body = {"apiVersion": rt.api_version, "kind": rt.kind, **obj}
        try:
            created: Object = finished(self.server.api.create(rt, namespace, body, _ASKED))
        except Problem as problem:
            self.story.tell("not created: %s", problem)
            return None
        return created

    def edit(self, key: Key, change: Callable[[Object], Object], *, subresource: str = "") -> None:
        rt = self.resource(key.collection)
        try:
            finished(self.server.api.update(rt, key.namespace, key.name, change, _ASKED, subresource=subresource))
        except Problem as problem:
            self.story.tell("not edited: %s", problem)

    def delete(self, key: Key, **options: Any) -> None:
        try:
            rt = self.resource(key.collection)
            finished(self.server.api.delete(rt, key.namespace, key.name, options, _ASKED))
        except Problem as problem:
            self.story.tell("not deleted: %s", problem)

    def make_node(self, node: str) -> None:
        self.create("/nodes", {"metadata": {"name": node}})
        self.set_ready(node, "True")

    def set_ready(self, node: str, status: str) -> None:
        said = {"conditions": [{"type": "Ready", "status": status}]}
        self.edit(Key("/nodes", "", node), lambda obj: {**obj, "status": said}, subresource="status")

    def make_pod(
        self,
        name: str,
        node: str,
        *,
        namespace: str = "shop",
        annotations: dict[str, str] | None = None,
        owner: Object | None = None,
    ) -> None:
        meta: Object = {"name": name, "namespace": namespace, "annotations": annotations or {}}
        if owner is not None:
            meta["ownerReferences"] = [owner]
        spec = {"nodeName": node, "terminationGracePeriodSeconds": 5, "containers": [{"name": "c", "image": "i"}]}
        self.create("/pods", {"metadata": meta, "spec": spec}, namespace)

    def delete_pod(self, namespace: str, name: str, *, uid: str, grace_s: int | None = None) -> None:
        options: Object = {"preconditions": {"uid": uid}}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        if grace_s == 0 and PROCESS.get() is self.people.process:
            self.judge.forced.add(uid)
        self.delete(Key("/pods", namespace, name), **options)

    def set_pod_status(self, pod: Object, status: Object) -> bool:
        """Whether it was not so yet."""
        meta = pod["metadata"]
        key = Key("/pods", meta["namespace"], meta["name"])
        now = self.server.store.get(key)
        if now is None or now["metadata"]["uid"] != meta["uid"]:
            return False
        # Final phases are final.
        is_over = now["status"].get("phase") in ("Succeeded", "Failed")
        if is_over or {**(now.get("status") or {}), **status} == now.get("status"):
            return False
        body = {**now, "status": {**(now.get("status") or {}), **status}}
        self.edit(key, Replacement(body), subresource="status")
        return True

    def annotate_pod(self, pod: Object, name: str, text: str) -> None:
        def change(obj: Object) -> Object:
            meta = obj["metadata"]
            return {**obj, "metadata": {**meta, "annotations": {**meta.get("annotations", {}), name: text}}}

        self.edit(Key("/pods", pod["metadata"]["namespace"], pod["metadata"]["name"]), change)

    def pod_named(self, namespace: str, name: str) -> Pod | None:
        raw = self.server.store.get(Key("/pods", namespace, name))
        return None if raw is None else decode_pod(raw)

    def pod_of(self, uid: str) -> Pod | None:
        for _, raw in self.server.store.items("/pods"):
            if raw["metadata"]["uid"] == uid:
                return decode_pod(raw)
        return None


def _traced(error: Any) -> str:
    import traceback  # noqa: PLC0415 - for failures only

    if error is True:
        return traceback.format_exc()
    return "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else str(error)


@contextmanager
def _seeded() -> Iterator[None]:
    """What the product draws from the machine comes from the seed of the process that draws."""

    class Drawn(random.Random):
        def __init__(self) -> None:
            super().__init__(PROCESS.get().rng.getrandbits(64))

    def uuid4() -> uuid.UUID:
        return uuid.UUID(int=PROCESS.get().rng.getrandbits(128), version=4)

    before = random.SystemRandom, uuid.uuid4
    random.SystemRandom, uuid.uuid4 = Drawn, uuid4  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        random.SystemRandom, uuid.uuid4 = before  # type: ignore[misc]
