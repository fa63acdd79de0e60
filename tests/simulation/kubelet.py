"""The kubelet and the container runtime of one node: what really runs there, and what the agent is asked for it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from allocator.domain import errors
from allocator.domain.mending import NETWORK_STATUS
from allocator.domain.request import AddRequest, DelRequest, Interface
from tests.simulation.processes import AgentProcess, Away, Folder

if TYPE_CHECKING:
    from allocator.domain.addresses import Address, Version
    from devcluster.plane.problems import Object
    from devcluster.plane.store import Event
    from tests.simulation.loop import Process
    from tests.simulation.world import World

MIRROR: Final = "kubernetes.io/config.mirror"
_NAMES: Final = ("eth0", "net1")
# Until a kubelet that was cut off has ended what was deleted meanwhile.
CATCH_UP_S: Final = 5.0
ADD_S: Final = 60.0
DEL_S: Final = 2.0


@dataclass(eq=False)
class Sandbox:
    """`uid` is the pod's in the API when the sandbox was made, `asked` the UID by which the runtime knows the pod."""

    node: str
    namespace: str
    pod: str
    uid: str
    asked: str
    container_id: str
    interfaces: tuple[str, ...]
    is_mirrored: bool
    # What its interfaces were told to use, for as long as it runs.
    addresses: dict[tuple[str, Version], Address] = field(default_factory=dict)
    is_running: bool = True

    def __str__(self) -> str:
        return f"{self.container_id} of {self.namespace}/{self.pod} ({self.uid})"


class Kubelet:
    """`is_cut_off`: the node hears nothing from the API server and cannot write to it; its containers run on."""

    def __init__(self, world: World, node: str, process: Process) -> None:
        self.node = node
        self.is_cut_off = False
        self._back_at = -CATCH_UP_S
        self._in_touch = asyncio.Event()
        self._in_touch.set()
        self.agent: AgentProcess | None = None
        self.folder = Folder()
        self.sandboxes: list[Sandbox] = []
        # Files in the kubelet's own folder: static pods, by name, with the UID that the kubelet made for them.
        self.manifests: dict[str, str] = {}
        self._world = world
        self._loop = world.loop
        self._rng = process.rng
        self._process = process
        self._known: dict[tuple[str, str], Object] = {}
        self._last: dict[str, Object] = {}  # each pod as it was last seen, by the UID that the runtime knows
        self._workers: dict[str, asyncio.Event] = {}
        self._told_at = 0.0  # when the last event comes
        self._made = 0
        world.server.store.subscribe(self._notice)

    # -- what the API server tells

    def _notice(self, event: Event) -> None:
        if event.key.collection == "/pods" and event.new["spec"].get("nodeName") == self.node:
            self._told_at = max(self._told_at, self._loop.time() + self._rng.uniform(0.005, 0.1))
            self._loop.call_at(self._told_at, self._take_in, event, context=self._process.context)

    def _take_in(self, event: Event) -> None:
        if self.is_cut_off:
            return
        key, obj = (event.key.namespace, event.key.name), event.new
        known, asked = self._known.get(key), _asked_uid(obj)
        if event.kind != "DELETED":
            self._known[key] = obj
            if asked not in self._workers:
                self._workers[asked] = asyncio.Event()
                self._loop.start(self._process, self._work(key, asked), f"pod-{key[1]}")
        elif known is not None and known["metadata"]["uid"] == obj["metadata"]["uid"]:
            del self._known[key]
            if self.manifests.get(key[1]) == asked:
                delay_s = self._rng.uniform(0.3, 8.0)
                self._loop.call_later(delay_s, self.mirror, key[1], context=self._process.context)
        if known is not None and _asked_uid(known) != asked:
            self._wake(_asked_uid(known))
        self._wake(asked)

    def _wake(self, asked: str) -> None:
        if asked in self._workers:
            self._workers[asked].set()

    @property
    def is_in_touch(self) -> bool:
        """Whether the node runs nothing but what the API server knows."""
        return not self.is_cut_off and self._loop.time() - self._back_at >= CATCH_UP_S

    def cut(self) -> None:
        self.is_cut_off = True
        self._in_touch.clear()

    def reconnect(self) -> None:
        """It hears of everything that it has missed."""
        self.is_cut_off = False
        self._back_at = self._loop.time()
        self._in_touch.set()
        pods = {
            (key.namespace, key.name): obj
            for key, obj in self._world.server.store.items("/pods")
            if obj["spec"].get("nodeName") == self.node
        }
        self._known = pods
        for key, obj in pods.items():
            asked = _asked_uid(obj)
            if asked not in self._workers:
                self._workers[asked] = asyncio.Event()
                self._loop.start(self._process, self._work(key, asked), f"pod-{key[1]}")
        for changed in self._workers.values():
            changed.set()
        for name in self.manifests:
            self.mirror(name)

    def mirror(self, name: str) -> None:
        """Show a static pod in the API, or show it again when somebody has deleted its mirror."""
        if self.is_cut_off or name not in self.manifests or ("shop", name) in self._known:
            return
        self._world.make_pod(name, self.node, annotations={MIRROR: self.manifests[name]})

    def reboot(self) -> None:
        """Every sandbox is gone; the kubelet makes new ones for the pods that it knows."""
        for sandbox in [each for each in self.sandboxes if each.is_running]:
            self._stop(sandbox)
        for changed in self._workers.values():
            changed.set()

    def break_sandbox(self) -> None:
        running = [each for each in self.sandboxes if each.is_running]
        if running:
            sandbox = self._rng.choice(running)
            self._stop(sandbox)
            self._wake(sandbox.asked)

    # -- one pod from its arrival to its end

    async def _work(self, key: tuple[str, str], asked: str) -> None:
        changed, sandbox, failures = self._workers[asked], None, 0
        while (pod := self._wanted(key, asked)) is not None:
            changed.clear()
            if pod["metadata"].get("deletionTimestamp") and not self._is_static(key, asked):
                await self._wind_up(sandbox, pod)
                break
            if sandbox is None or not sandbox.is_running:
                if sandbox is not None:
                    await self._delete(sandbox)
                sandbox = await self._make_sandbox(pod, asked)
                if sandbox is None:
                    failures += 1
                    await asyncio.sleep(self._rng.uniform(0.2, min(4.0, 0.5 * 2**failures)))
                else:
                    failures = 0
                continue
            self._report(pod, sandbox)
            if pod["metadata"].get("deletionTimestamp"):
                # Of a static pod only the mirror goes, and is made anew.
                self._world.delete_pod(*key, uid=pod["metadata"]["uid"], grace_s=0)
            await changed.wait()
        if sandbox is not None:
            await asyncio.sleep(self._rng.uniform(0.0, 2.0) if sandbox.is_running else 0.0)
            self._stop(sandbox)
            await self._delete(sandbox)
        del self._workers[asked]

    def _is_static(self, key: tuple[str, str], asked: str) -> bool:
        return self.manifests.get(key[1]) == asked

    def _wanted(self, key: tuple[str, str], asked: str) -> Object | None:
        """The pod as the kubelet knows it, while it is to run or to be wound up."""
        pod = self._known.get(key)
        if pod is None or _asked_uid(pod) != asked:
            # Without its mirror a static pod runs on, as it last was.
            return self._last.get(asked) if self._is_static(key, asked) else None
        self._last[asked] = pod
        return None if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed") else pod

    async def _wind_up(self, sandbox: Sandbox | None, pod: Object) -> None:
        """The pod is being deleted: its containers end within its grace, DEL, and its object goes."""
        meta = pod["metadata"]
        await asyncio.sleep(self._rng.uniform(0.0, float(meta.get("deletionGracePeriodSeconds") or 0)))
        if sandbox is not None:
            self._stop(sandbox)
            if self._rng.random() < 0.1:  # a volume that cannot be taken off: the pod is overdue, and does not run
                await asyncio.sleep(self._rng.uniform(0.0, 40.0))
            await self._delete(sandbox)
        await self._in_touch.wait()
        self._world.delete_pod(meta["namespace"], meta["name"], uid=meta["uid"], grace_s=0)

    def finish(self, namespace: str, name: str, phase: str, reason: str = "") -> None:
        """The containers have ended by themselves, or the kubelet evicts the pod."""
        pod = self._known.get((namespace, name))
        if pod is None or self.is_cut_off or name in self.manifests:
            return
        mine = [each for each in self.sandboxes if each.is_running and each.uid == pod["metadata"]["uid"]]
        for sandbox in mine:
            self._stop(sandbox)
        if mine:
            self._set_phase(pod, phase, reason)

    def _report(self, pod: Object, sandbox: Sandbox) -> None:
        """It runs, and with which addresses: those of eth0 by the kubelet, those of other interfaces by Multus."""
        ips = {name: [str(ip) for (each, _), ip in sandbox.addresses.items() if each == name] for name in _NAMES}
        if not self.is_cut_off:
            status = {"phase": "Running", "podIPs": [{"ip": ip} for ip in ips[_NAMES[0]]]}
            networks = [{"interface": name, "ips": ips[name]} for name in _NAMES[1:] if ips[name]]
            if self._world.set_pod_status(pod, status) and networks:
                self._world.annotate_pod(pod, NETWORK_STATUS, json.dumps(networks))

    def _set_phase(self, pod: Object, phase: str, reason: str = "") -> None:
        if not self.is_cut_off:
            self._world.set_pod_status(pod, {"phase": phase, **({"reason": reason} if reason else {})})

    def _stop(self, sandbox: Sandbox) -> None:
        if sandbox.is_running:
            sandbox.is_running = False
            self._world.judge.stopped(sandbox)

    # -- the runtime and its plugin

    async def _make_sandbox(self, pod: Object, asked: str) -> Sandbox | None:
        meta = pod["metadata"]
        self._made += 1
        sandbox = Sandbox(
            node=self.node,
            namespace=meta["namespace"],
            pod=meta["name"],
            uid=meta["uid"],
            asked=asked,
            container_id=f"{self.node}-c{self._made}",
            interfaces=_interfaces(meta.get("annotations") or {}),
            is_mirrored=asked != meta["uid"],
        )
        for interface in sandbox.interfaces:
            if not await self._add(sandbox, interface):
                sandbox.is_running = False
                self._loop.start(self._process, self._delete(sandbox), "del")
                return None
        self.sandboxes.append(sandbox)
        return sandbox

    async def _add(self, sandbox: Sandbox, interface: str) -> bool:
        request = AddRequest(
            namespace=sandbox.namespace,
            pod=sandbox.pod,
            pod_uid=sandbox.asked,
            interface=Interface(container_id=sandbox.container_id, name=interface),
            default_ipv4_pools=("alpha",),
            network="underlay",
        )
        # A runtime that restarts forgets whom it has asked; the agent goes on without knowing.
        patience_s = self._rng.uniform(0.0, 1.0) if self._world.impatient() else ADD_S
        self._world.story.tell("ADD of %s, patience %.1f s", sandbox, patience_s)
        try:
            given = await self._agent().ask(
                lambda work: self._world.judge.calls.add(work, request, ADD_S),
                within_s=patience_s + 1.0,
                hangs_up=patience_s == ADD_S,
            )
        except (Away, TimeoutError, errors.IpamError) as error:
            self._world.story.tell("ADD of %s failed: %r", sandbox, error)
            return False
        for each in given:
            sandbox.addresses[each.interface, each.version] = each.address
        self._world.judge.configured(sandbox)
        return True

    async def _delete(self, sandbox: Sandbox) -> None:
        """Mostly once and soon; but a runtime may forget it, be late, or say it again: in fair weather as well."""
        fate = 0.5 if self._world.is_calm else self._rng.random()
        if fate < 0.15:
            return
        if fate > 0.85:
            await asyncio.sleep(self._rng.uniform(0.0, 30.0))
        for _ in range(2 if 0.15 < fate < 0.25 else 1):
            for interface in sandbox.interfaces:
                await self._delete_once(sandbox, interface)

    def _agent(self) -> AgentProcess:
        if self.agent is None:
            raise Away
        return self.agent

    async def _delete_once(self, sandbox: Sandbox, interface: str) -> None:
        request = DelRequest(
            namespace=sandbox.namespace,
            pod=sandbox.pod,
            pod_uid=sandbox.asked,
            interface=Interface(container_id=sandbox.container_id, name=interface),
        )
        self._world.story.tell("DEL of %s", sandbox)
        try:
            await self._agent().ask(lambda work: work.delete(request, within_s=DEL_S), within_s=DEL_S, hangs_up=True)
        except (Away, TimeoutError, errors.IpamError):
            self.folder.keep(f"{sandbox.container_id}-{interface}.json", _as_intent(request))


def _as_intent(request: DelRequest) -> bytes:
    body: dict[str, Any] = {
        "containerID": request.interface.container_id,
        "ifName": request.interface.name,
        "podNamespace": request.namespace,
        "podName": request.pod,
        "podUID": request.pod_uid,
    }
    return msgspec.json.encode(body)


def _asked_uid(pod: Object) -> str:
    meta = pod["metadata"]
    return str((meta.get("annotations") or {}).get(MIRROR) or meta["uid"])


def _interfaces(annotations: Object) -> tuple[str, ...]:
    text = annotations.get("ipam.spidernet.io/ippools")
    return tuple(entry["interface"] for entry in json.loads(text)) if text else ("eth0",)
