"""spiderpool-agent: assigns and releases addresses for the pods of one node."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from aiohttp import web

from agent.intents import Intents
from agent.order import Turns
from agent.server import runtime_routes, serve
from agent.work import Work
from allocator.kube.cache import Cache
from allocator.kube.client import KubeClient
from allocator.kube.cluster import Networks, NodeView
from allocator.kube.events import Recorder
from allocator.kube.ledger import KubeLedger
from allocator.kube.resources import SPIDER_IP_ADDRESSES
from allocator.kube.stores import KubeEndpoints, KubePools, KubeReservations
from allocator.runtime import lifecycle, logs
from allocator.runtime.clock import SystemClock
from allocator.runtime.config import ConfigError, load_conf
from allocator.service import Allocator, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from allocator.domain.addresses import Version
    from allocator.runtime.config import Conf

_log = logs.get_logger(__name__)

# A rolling update starts the new agent while the old one still answers; it has 10 s to finish, and a little more.
LOCK_PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    node: str
    socket: Path
    state_dir: Path
    kubeconfig: Path | None
    health_listen: tuple[str, int] | None
    versions: frozenset[Version]
    static_pods: bool
    networks: Networks


app = typer.Typer(add_completion=False)


@app.command()
def command(  # noqa: PLR0913 - the flags
    *,
    node: Annotated[str, typer.Option(envvar="SPIDERPOOL_NODE_NAME", help="the node whose pods this agent serves")],
    socket: Annotated[Path | None, typer.Option(help="unix socket for the CNI plugin [conf.yml]")] = None,
    state_dir: Annotated[Path, typer.Option(help="where the lock and the plugin's intents are")] = Path(
        "/var/lib/spiderpool"
    ),
    kubeconfig: Annotated[Path | None, typer.Option(help="default: the pod's service account")] = None,
    config: Annotated[Path | None, typer.Option(help="conf.yml of the ConfigMap spiderpool-conf")] = None,
    health_listen: Annotated[str, typer.Option(help="HOST:PORT of the probes; 0 for none")] = "",
    log_level: Annotated[str, typer.Option(envvar="SPIDERPOOL_LOG_LEVEL")] = "info",
) -> None:
    """Assign and release addresses for the pods of one node."""
    try:
        logs.configure(log_level)
        conf = load_conf(config)
        listen = _address(health_listen or f"0.0.0.0:{os.environ.get('SPIDERPOOL_HEALTH_PORT') or 5710}")
    except (ConfigError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    agent = AgentConfig(
        node=node,
        socket=socket or Path(conf.ipam_unix_socket_path),
        state_dir=state_dir,
        kubeconfig=kubeconfig,
        health_listen=listen,
        versions=_versions(conf),
        static_pods=conf.enable_stateful_set,
        networks=Networks(os.environ.get("SPIDERPOOL_POD_NAMESPACE", ""), os.environ.get("MULTUS_CLUSTER_NETWORK", "")),
    )
    sys.exit(lifecycle.run(lambda: run(agent)))


def main() -> None:
    app()


async def run(config: AgentConfig) -> None:
    """Compose the agent and serve until cancelled."""
    clock, rng = SystemClock(), random.SystemRandom()
    async with (
        _node_lock(config.state_dir),
        KubeClient.connect(kubeconfig=config.kubeconfig, user_agent="spiderpool-agent") as client,
    ):
        view = NodeView(client, config.node, clock=clock, rng=rng, networks=config.networks)
        pools = KubePools(client, clock=clock, rng=rng)
        reservations = KubeReservations(client, clock=clock, rng=rng)
        index = Cache(client, SPIDER_IP_ADDRESSES, clock=clock, field_selector=f"spec.holder.node={config.node}")
        world = World(
            ledger=KubeLedger(client, index, clock=clock, rng=rng),
            pools=pools,
            reservations=reservations,
            endpoints=KubeEndpoints(client, clock=clock, rng=rng),
            view=view,
            clock=clock,
            rng=rng,
        )
        allocator = Allocator(world, node=config.node, versions=config.versions, static_pods=config.static_pods)
        caches = (*view.caches, pools.cache, reservations.cache, index)
        recorder = Recorder(client, component="spiderpool-agent", clock=clock)
        work = Work(allocator, view, caches, recorder, Turns())
        intents = Intents(config.state_dir / "intents", work.delete, clock)
        async with asyncio.TaskGroup() as group:
            for cache in caches:
                group.create_task(cache.run(), name="cache")
            group.create_task(recorder.run(), name="events")
            async with _health(work, config.health_listen):
                # Nothing is served from a memory that is not filled: an address could be missed, and given twice.
                for cache in caches:
                    await cache.wait_synced()
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


@asynccontextmanager
async def _health(work: Work, listen: tuple[str, int] | None) -> AsyncIterator[None]:
    if listen is None:
        yield
        return
    health = web.Application()
    health.add_routes(runtime_routes(work))
    runner = web.AppRunner(health, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, *listen).start()
    try:
        yield
    finally:
        await runner.cleanup()


def _address(text: str) -> tuple[str, int] | None:
    """HOST:PORT, or None for 0. ValueError otherwise."""
    if text == "0":
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"--health-listen {text!r}: write HOST:PORT, or 0 for none")
    return host.strip("[]"), int(port)


def _versions(conf: Conf) -> frozenset[Version]:
    versions: set[Version] = set()
    if conf.enable_ipv4:
        versions.add(4)
    if conf.enable_ipv6:
        versions.add(6)
    return frozenset(versions)


if __name__ == "__main__":
    main()
