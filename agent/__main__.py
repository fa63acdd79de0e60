"""spiderpool-agent: assigns and releases addresses for the pods of one node."""

from __future__ import annotations

import asyncio
import fcntl
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agent import uplink
from agent.api import Detection
from agent.contact import Contact
from agent.intents import REPLAY_DEADLINE_S, Intents
from agent.order import Turns
from agent.recent import Recent
from agent.server import serve, serve_probes
from agent.status import Status
from agent.work import HAND_BACK_SWITCH, Work
from allocator.domain import slots
from allocator.domain.subnet_pools import SubnetRules
from allocator.kube.cache import Cache
from allocator.kube.client import KubeClient
from allocator.kube.cluster import Networks, NodeView
from allocator.kube.events import Recorder
from allocator.kube.free_counts import FreeCounts
from allocator.kube.ledger import KubeLedger
from allocator.kube.resources import SPIDER_IP_ADDRESSES
from allocator.kube.schema import Schema
from allocator.kube.stores import KubeEndpoints, KubePools, KubeReservations
from allocator.runtime import flags, logs
from allocator.runtime.clock import SystemClock
from allocator.runtime.config import env_bool, env_int, env_str, load_conf
from allocator.service import Allocator
from allocator.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from allocator.domain.addresses import Version
    from allocator.domain.slots import Workload
    from allocator.runtime.config import Conf

_log = logs.get_logger(__name__)

# A rolling update starts the new agent while the old one still answers; it has 10 s to finish, and a little more.
LOCK_PATIENCE_S: Final = 30.0
# What the original sets by default, because its pools are one object each. Ours have no such limit, so that this value
# stands for none.
ORIGINALS_LIMIT: Final = 5000
HEALTH: Final = flags.HostPort("0.0.0.0", 5710)  # noqa: S104 - the kubelet asks


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    node: str
    socket: Path
    state_dir: Path
    kubeconfig: Path | None
    health_listen: flags.HostPort | None
    log_level: str
    versions: frozenset[Version]
    kept: frozenset[Workload]
    max_per_pool: int | None
    networks: Networks
    subnet_rules: SubnetRules
    hands_back: bool
    detection: Detection


def read_config(  # noqa: PLR0913 - the flags
    *,
    node: Annotated[str, typer.Option(envvar="SPIDERPOOL_NODE_NAME", help="The node whose pods this agent serves.")],
    socket: Annotated[Path | None, typer.Option(help="Unix socket for the CNI plugin; default: conf.yml's.")] = None,
    state_dir: Annotated[Path, typer.Option(help="Where the lock and the plugin's intents are.")] = Path(
        "/var/lib/spiderpool"
    ),
    kubeconfig: flags.Kubeconfig = None,
    conf_file: flags.ConfFile = None,
    health_listen: flags.HealthListen = HEALTH,
    log_level: flags.LogLevel = "info",
) -> AgentConfig:
    """Assign and release addresses for the pods of one node."""
    conf = load_conf(conf_file)
    limit = env_int("SPIDERPOOL_IPPOOL_MAX_ALLOCATED_IPS", ORIGINALS_LIMIT, minimum=1)
    return AgentConfig(
        node=node,
        socket=socket or Path(conf.ipam_unix_socket_path),
        state_dir=state_dir,
        kubeconfig=kubeconfig,
        health_listen=health_listen,
        log_level=log_level,
        versions=_versions(conf),
        kept=slots.kept(stateful_sets=conf.enable_stateful_set, machines=conf.enable_kubevirt_static_ip),
        max_per_pool=None if limit == ORIGINALS_LIMIT else limit,
        networks=Networks(env_str("SPIDERPOOL_POD_NAMESPACE"), env_str("MULTUS_CLUSTER_NETWORK")),
        subnet_rules=_subnet_rules(conf),
        hands_back=env_bool(HAND_BACK_SWITCH, True),
        detection=Detection(conf.enable_ip_conflict_detection, conf.enable_gateway_detection),
    )


def main() -> None:
    flags.main("spiderpool-agent", read_config, run)


async def run(config: AgentConfig) -> None:
    """Compose the agent and serve until cancelled."""
    clock, rng = SystemClock(), random.SystemRandom()
    async with (
        KubeClient.connect(kubeconfig=config.kubeconfig, user_agent="spiderpool-agent") as client,
        _node_lock(config.state_dir),
    ):
        view = NodeView(
            client,
            config.node,
            clock=clock,
            rng=rng,
            networks=config.networks,
            kept=config.kept,
            subnet_rules=config.subnet_rules,
        )
        pools = KubePools(client, clock=clock, rng=rng)
        reservations = KubeReservations(client, clock=clock, rng=rng)
        index = Cache(client, SPIDER_IP_ADDRESSES, clock=clock, field_selector=f"spec.holder.node={config.node}")
        world = World(
            ledger=KubeLedger(client, index, clock=clock, rng=rng),
            pools=pools,
            reservations=reservations,
            endpoints=KubeEndpoints(client, clock=clock, rng=rng),
            view=view,
            uplinks=uplink,
            clock=clock,
            rng=rng,
        )
        allocator = Allocator(
            world,
            node=config.node,
            versions=config.versions,
            max_per_pool=config.max_per_pool,
        )
        caches = (*view.caches, pools.cache, reservations.cache, index)
        contact = Contact(client, config.node, caches, clock)
        schema = Schema(client, clock=clock, rng=rng)
        recorder = Recorder(client, component="spiderpool-agent", clock=clock)
        work = Work(
            allocator=allocator,
            world=world,
            recorder=recorder,
            status=Status(world, caches, contact, FreeCounts(client, clock), schema),
            turns=Turns(),
            recent=Recent(clock),
            hands_back=config.hands_back,
            detection=config.detection,
        )
        intents = Intents(config.state_dir / "intents", partial(work.delete, within_s=REPLAY_DEADLINE_S), clock)
        async with asyncio.TaskGroup() as group:
            for cache in caches:
                group.create_task(cache.run(), name="cache")
            group.create_task(recorder.run(), name="events")
            group.create_task(contact.run(), name="contact")
            async with serve_probes(work, config.health_listen):
                # Nothing is served from a memory that is not filled: an address could be missed, and given twice.
                for cache in caches:
                    await cache.wait_synced()
                # Nor is anything claimed where records lose what they say.
                await schema.fits()
                group.create_task(intents.run(), name="intents")
                async with serve(work, config.socket):
                    _log.info("agent_serves", node=config.node, socket=str(config.socket))
                    await asyncio.Event().wait()


@asynccontextmanager
async def _node_lock(state_dir: Path) -> AsyncIterator[None]:
    """One agent per node: held by flock, so that the kernel gives it back whatever happens to this process."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)  # noqa: ASYNC240 - at start, before anything is served
    deadline = asyncio.get_running_loop().time() + LOCK_PATIENCE_S
    with (state_dir / "agent.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if asyncio.get_running_loop().time() > deadline:
                    raise TimeoutError(f"another agent holds {state_dir / 'agent.lock'}: stop it first") from None
                await asyncio.sleep(0.1)
        yield


def _versions(conf: Conf) -> frozenset[Version]:
    versions: set[Version] = set()
    if conf.enable_ipv4:
        versions.add(4)
    if conf.enable_ipv6:
        versions.add(6)
    return frozenset(versions)


def _subnet_rules(conf: Conf) -> SubnetRules:
    defaults: dict[Version, tuple[str, ...]] = {
        4: conf.cluster_default_ipv4_subnet,
        6: conf.cluster_default_ipv6_subnet,
    }
    return SubnetRules(
        is_on=conf.enable_spider_subnet,
        makes_pools=conf.enable_auto_pool_for_application,
        defaults={version: names for version, names in defaults.items() if names},
    )


if __name__ == "__main__":
    main()
