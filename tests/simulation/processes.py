"""The product's processes, composed as their `__main__` does it, but for sockets and files: agents and controllers."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from agent import uplink
from agent.api import Detection
from agent.contact import Contact
from agent.intents import REPLAY_DEADLINE_S, Intents
from agent.order import Turns
from agent.recent import Recent
from agent.status import Status
from agent.work import Work
from allocator.kube.cache import Cache
from allocator.kube.cluster import NodeView
from allocator.kube.election import Election
from allocator.kube.events import Recorder
from allocator.kube.free_counts import FreeCounts
from allocator.kube.ledger import KubeLedger
from allocator.kube.resources import SPIDER_IP_ADDRESSES
from allocator.kube.stores import KubeEndpoints, KubePools, KubeReservations
from allocator.service import Allocator
from allocator.world import World as Ports
from controller import leading, lending, mending, projection, reclaim, tidy
from controller.config import read_config
from controller.leading import LEASE, Leading
from controller.projection import Cadence
from tests.simulation.loop import VirtualClock
from tests.simulation.network import SimClient

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from allocator.domain.subnet_pools import SubnetRules
    from controller.config import ControllerConfig
    from tests.simulation.loop import Process, VirtualLoop
    from tests.simulation.network import Network

T = TypeVar("T")

NAMESPACE: Final = "kube-system"
# Half the writes of the defaults; the bounds do not rest on it.
CADENCE: Final = Cadence(counts_s=5.0, text_s=10.0)


# Loops of the controller look this often for something to do, so that a seed takes half the time. What has to be seen
# at once is told by a watch.
for _loop in (lending, mending, projection, reclaim, tidy):
    vars(_loop)["TICK_S"] = 0.5
# Who is dead must not clean up in the middle of a seed (`world.play`).
vars(leading)["gc"] = SimpleNamespace(collect=lambda: None)


class Away(Exception):
    """Nobody listens on the agent's socket, or whoever did is gone before it answered."""


@dataclass(order=True)
class Intent:
    """A file that the plugin has left for the agent."""

    name: str
    content: bytes = field(compare=False)
    folder: dict[str, Intent] = field(compare=False)

    def read_bytes(self) -> bytes:
        return self.content

    def unlink(self, *, missing_ok: bool) -> None:
        assert missing_ok
        self.folder.pop(self.name, None)


class Folder:
    """The node's folder of intents: it outlives the agent."""

    def __init__(self) -> None:
        self.files: dict[str, Intent] = {}

    def keep(self, name: str, content: bytes) -> None:
        self.files[name] = Intent(name, content, self.files)

    def glob(self, _pattern: str) -> list[Intent]:
        return list(self.files.values())


class AgentProcess:
    """One life of a node's agent. `serving` from when its caches are filled."""

    def __init__(self, node: str, process: Process, network: Network, folder: Folder, *, rules: SubnetRules) -> None:
        self.node = node
        self.process = process
        self.serving = False
        self._loop: VirtualLoop = network.loop
        # In the order of their arrival.
        self._waiting: dict[asyncio.Future[Any], None] = {}
        self._rules = rules
        self.work, self._caches, self._tasks = self._composed(network, folder)
        self.main = self._loop.spawn(process, self._run(), f"agent-{node}")

    def _composed(
        self, network: Network, folder: Folder
    ) -> tuple[Work, tuple[Cache, ...], dict[str, Callable[[], Coroutine[Any, Any, None]]]]:
        rng, node, clock = self.process.rng, self.node, VirtualClock(self._loop, self.process)
        client = SimClient(network, self.process, user_agent="spiderpool-agent")
        view = NodeView(client, node, clock=clock, rng=rng, subnet_rules=self._rules)
        pools = KubePools(client, clock=clock, rng=rng)
        reservations = KubeReservations(client, clock=clock, rng=rng)
        index = Cache(client, SPIDER_IP_ADDRESSES, clock=clock, field_selector=f"spec.holder.node={node}")
        ports = Ports(
            ledger=KubeLedger(client, index, clock=clock, rng=rng),
            pools=pools,
            reservations=reservations,
            endpoints=KubeEndpoints(client, clock=clock, rng=rng),
            view=view,
            uplinks=uplink,
            clock=clock,
            rng=rng,
        )
        allocator = Allocator(ports, node=node, versions=frozenset({4, 6}))
        caches = (*view.caches, pools.cache, reservations.cache, index)
        contact = Contact(client, node, caches, clock)
        recorder = Recorder(client, component="spiderpool-agent", clock=clock)
        work = Work(
            allocator=allocator,
            world=ports,
            recorder=recorder,
            status=Status(ports, caches, contact, FreeCounts(client, clock)),
            turns=Turns(),
            recent=Recent(clock),
            detection=Detection(False, False),
        )
        intents = Intents(cast("Path", folder), partial(work.delete, within_s=REPLAY_DEADLINE_S), clock)
        return work, caches, {"events": recorder.run, "contact": contact.run, "intents": intents.run}

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for cache in self._caches:
                group.create_task(cache.run(), name="cache")
            for name in ("events", "contact"):
                group.create_task(self._tasks[name](), name=name)
            for cache in self._caches:
                await cache.wait_synced()
            group.create_task(self._tasks["intents"](), name="intents")
            self.serving = True
            await asyncio.Event().wait()

    async def ask(self, request: Callable[[Work], Coroutine[Any, Any, T]], *, within_s: float, hangs_up: bool) -> T:
        """From another process, through the socket. Who `hangs_up` has the request cancelled, a moment later.

        Away when the agent dies; TimeoutError when the caller's patience is over.
        """
        if not self.serving or self.process.is_dead:
            raise Away
        answer: asyncio.Future[T] = self._loop.create_future()
        self._waiting[answer] = None
        served = self._loop.spawn(self.process, _answering(lambda: request(self.work), answer), "request")
        try:
            async with asyncio.timeout(within_s):
                return await answer
        finally:
            self._waiting.pop(answer, None)
            if hangs_up and not served.done():
                self._loop.call_later(0.001, served.cancel, context=self.process.context)

    def kill(self) -> None:
        self.serving = False
        self._loop.kill(self.process)
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(Away())


async def _answering(request: Callable[[], Coroutine[Any, Any, T]], answer: asyncio.Future[T]) -> None:
    try:
        value = await request()
    except Exception as error:  # noqa: BLE001 - the border of the process: it goes back over the socket
        if not answer.done():
            answer.set_exception(error)
    else:
        if not answer.done():
            answer.set_result(value)


@functools.cache
def _config(*, lends: bool) -> ControllerConfig:
    config = read_config(namespace=NAMESPACE, identity="", health_listen=None)
    conf = replace(config.conf, enable_spider_subnet=lends, enable_auto_pool_for_application=lends)
    return replace(config, conf=conf)


class ControllerProcess:
    """One life of a replica. Only one that `lends` makes pools for applications."""

    def __init__(self, name: str, process: Process, network: Network, *, lends: bool) -> None:
        self.name = name
        self.process = process
        self._loop: VirtualLoop = network.loop
        config, clock = replace(_config(lends=lends), identity=name), VirtualClock(self._loop, process)
        client = SimClient(network, process, user_agent="spiderpool-controller")
        self.election = Election(
            client,
            namespace=config.namespace,
            name=LEASE,
            identity=name,
            clock=clock,
            lease_duration_s=config.lease.duration_s,
            renew_deadline_s=config.lease.renew_deadline_s,
            retry_period_s=config.lease.retry_period_s,
        )
        self.leading = Leading(config, client, self.election, clock=clock, cadence=CADENCE)
        self.main = self._loop.spawn(process, self.election.run(self.leading.lead), name)

    def kill(self) -> None:
        self._loop.kill(self.process)
