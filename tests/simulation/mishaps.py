"""What befalls processes and nodes: crashes, pauses, wrong clocks, cuts; and their end, when the calm begins."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from allocator.domain.addresses import object_name
from allocator.domain.record import State, released
from allocator.kube.codec import encode_record
from devcluster.plane.store import Key
from tests.simulation.faults import STUCK_AT_MOST_S
from tests.simulation.kubelet import MIRROR
from tests.simulation.loop import NOON
from tests.simulation.offers import RECORDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from allocator.domain.record import Record
    from tests.simulation.apiserver import Request
    from tests.simulation.loop import Process
    from tests.simulation.network import Delivery
    from tests.simulation.world import World

# What happens, and how often beside the rest.
MISHAPS: Final = {
    "crash agent": 3,
    "crash controller": 2,
    "pause controller": 2,
    "pause agent": 2,
    "pause between tries": 2,
    "jump clock": 1,
    "cut off": 2,
    "lose node": 2,
    "reboot node": 1,
    "expire watches": 2,
    "cut watches": 1,
    "stick watch": 3,
    "delete record": 2,
    "release record": 1,
}
# Where subnets lend, as well.
LENDING_MISHAPS: Final = {"strike lender": 5, "stick records": 3, "change mind": 6}


class Mishaps:
    """Each method of a name in MISHAPS or LENDING_MISHAPS is one; what it begins it ends by itself, or `mend` does."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._rng = process.rng

    def crash_agent(self) -> None:
        kubelet = self._draw(list(self._world.kubelets.values()))
        if kubelet.agent is not None:
            kubelet.agent.kill()
            kubelet.agent = None
            self._later(self._rng.uniform(0.05, 12.0), lambda: self._world.start_agent(kubelet.node))

    def crash_controller(self) -> None:
        self._crash_controller(self._draw(list(self._world.controllers)))

    def strike_lender(self) -> None:
        """The leader dies or sleeps right after its next write of a subnet or a pool, before it hears of it or goes on
        to the next one.
        """
        self._world.network.ambush = self._struck

    def _struck(self, delivery: Delivery) -> None:
        process, path = delivery.process, delivery.request.path
        is_lending = "/spidersubnets/" in path or "/spiderippools" in path
        if process.name not in self._world.controllers or not delivery.request.is_write or not is_lending:
            return
        self._world.network.ambush = None
        delay_s = self._rng.choice((0.0, self._rng.uniform(0.0, 0.1)))
        if self._rng.random() < 0.5:
            self._later(delay_s, lambda: self._crash_controller(process.name))
        else:
            self._later(delay_s, lambda: self._pause(process, at_least_s=20.0))

    def _crash_controller(self, name: str) -> None:
        controller = self._world.controllers[name]
        if not controller.process.is_dead:
            controller.kill()
            self._later(self._rng.uniform(0.05, 20.0), lambda: self._world.start_controller(name))

    def pause_controller(self) -> None:
        self._pause(self._draw(list(self._world.controllers.values())).process)

    def pause_between_tries(self) -> None:
        """The server is about to refuse a record of a leader's, who then sleeps on until it leads no more."""
        self._world.weather.trap = self._trapped

    def _trapped(self, process: Process, request: Request, answered_s: float) -> bool:
        if process.name not in self._world.controllers or process.is_dead:
            return False
        if not request.is_write or "/spideripaddresses" not in request.path:
            return False
        self._world.weather.trap = None
        self._later(answered_s + 0.001, lambda: self._pause(process, at_least_s=20.0))
        return True

    def pause_agent(self) -> None:
        kubelet = self._draw(list(self._world.kubelets.values()))
        if kubelet.agent is not None:
            self._pause(kubelet.agent.process)

    def _pause(self, process: Process, *, at_least_s: float = 1.0) -> None:
        loop = self._world.loop
        if not process.is_paused and not process.is_dead:
            loop.pause(process)
            self._later(
                self._rng.uniform(at_least_s, 60.0), lambda: loop.resume(process) if process.is_paused else None
            )

    def jump_clock(self) -> None:
        processes = [each.process for each in self._world.controllers.values()]
        processes += [each.agent.process for each in self._world.kubelets.values() if each.agent is not None]
        self._draw(processes).skew_s = self._draw((-3600.0, -20.0, 20.0, 3600.0))
        self._world.has_wrong_clocks = True

    def cut_off(self) -> None:
        """A process cannot reach the API server."""
        names = [*self._world.controllers, *(f"agent-{node}" for node in self._world.kubelets)]
        self._cut(self._draw(names), self._rng.uniform(1.0, 40.0))

    def _cut(self, name: str, for_s: float) -> None:
        self._world.weather.cut_off.add(name)
        self._later(for_s, lambda: self._world.reconnect(name))

    def lose_node(self) -> None:
        """The node is cut off; its pods are deleted, by force or by the taint; it comes back."""
        world, node = self._world, self._draw(list(self._world.kubelets))
        kubelet = world.kubelets[node]
        if kubelet.is_cut_off:
            return
        kubelet.cut()
        away_s = self._rng.uniform(5.0, 60.0)
        self._cut(f"agent-{node}", away_s)
        self._later(away_s, lambda: self._return_node(node))
        self._later(away_s / 3, lambda: self._world.set_ready(node, "False"))
        grace_s = self._draw((None, None, 0))
        is_deleted = grace_s == 0 and self._rng.random() < 0.5
        self._later(away_s / 2, lambda: self._drain(node, grace_s, is_deleted=is_deleted))

    def _drain(self, node: str, grace_s: int | None, *, is_deleted: bool) -> None:
        if is_deleted:
            self._world.delete(Key("/nodes", "", node))
        for key, pod in self._world.server.store.items("/pods"):
            # Mirrors tolerate every taint.
            if pod["spec"].get("nodeName") == node and MIRROR not in pod["metadata"].get("annotations", {}):
                self._world.delete_pod(key.namespace, key.name, uid=pod["metadata"]["uid"], grace_s=grace_s)

    def _return_node(self, node: str) -> None:
        kubelet = self._world.kubelets[node]
        if kubelet.is_cut_off:
            self._world.make_node(node)
            self._world.set_ready(node, "True")
            kubelet.reconnect()

    def reboot_node(self) -> None:
        kubelet = self._draw(list(self._world.kubelets.values()))
        kubelet.reboot()
        if kubelet.agent is not None:
            kubelet.agent.kill()
            kubelet.agent = None
            self._later(self._rng.uniform(0.5, 5.0), lambda: self._world.start_agent(kubelet.node))

    def expire_watches(self) -> None:
        """Everybody has to list again."""
        self._world.server.store.compact()
        self._world.network.cut_watches()

    def cut_watches(self) -> None:
        self._world.network.cut_watches()

    def stick_watch(self) -> None:
        """One watch of pods, the leader's mostly, tells nothing more for a while; all others go on."""
        streams = [each for each in self._world.network.streams if each.is_of("/api/v1/pods")]
        leaders = [each for each in streams if each.process.name in self._world.controllers]
        if streams:
            stuck = self._draw(leaders if leaders and self._rng.random() < 0.7 else streams)
            stuck.stick(self._rng.uniform(30.0, STUCK_AT_MOST_S))

    def change_mind(self) -> None:
        """An application is scaled; a write that follows from it drifts, and at once the application is scaled back."""
        world, shrinks = self._world, self._rng.random() < 0.6
        # What is taken back goes through the accounts last, and what is given through the pool.
        method, part = ("PUT", "/spidersubnets/") if shrinks else ("PATCH", "/spiderippools/")
        back = world.people.tenants.scale_for_now((-1, -2) if shrinks else (1, 2))

        def waylaid(process: Process, request: Request) -> bool:
            is_it = process.name in world.controllers and request.method == method and part in request.path
            if is_it and back is not None:
                world.weather.waylay = None
                self._later(self._rng.uniform(0.02, 1.0), back)
            return is_it

        if back is not None:
            world.weather.waylay = waylaid

    def stick_records(self) -> None:
        """A leader hears for a while of no record."""
        records = "/apis/spiderpool.spidernet.io/v2beta1/spideripaddresses"
        for stream in self._world.network.streams:
            if stream.process.name in self._world.controllers and stream.is_of(records):
                stream.stick(self._rng.uniform(5.0, STUCK_AT_MOST_S))

    def delete_record(self) -> None:
        """`kubectl delete sia`, under a pod that uses the address."""
        if (record := self._any_used()) is not None:
            with self._world.judge.byhand.taking():
                self._world.delete(_key(record))

    def release_record(self) -> None:
        """Somebody writes Cooling into it, under a pod that uses the address."""
        if (record := self._any_used()) is not None:
            cooling = encode_record(released(record, NOON + timedelta(seconds=self._world.loop.time())))
            with self._world.judge.byhand.taking():
                self._world.edit(_key(record), lambda obj: {**obj, "spec": cooling["spec"]})

    def _any_used(self) -> Record | None:
        used = {(each.uid, ip) for each in self._world.running() for ip in each.addresses.values()}
        found = [
            record
            for record in self._world.judge.records.values()
            if record.state is State.HELD and record.holder and (record.holder.pod_uid, record.address) in used
        ]
        return self._draw(found) if found else None

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

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Unless `mend` has come first."""
        self._world.loop.call_later(delay_s, self._unless_calm, act, context=self._process.context)

    def _unless_calm(self, act: Callable[[], None]) -> None:
        if not self._world.is_calm:
            act()

    def _draw(self, options: Any) -> Any:
        return self._rng.choice(options)


def _key(record: Record) -> Key:
    return Key(RECORDS, "", object_name(record.address))
