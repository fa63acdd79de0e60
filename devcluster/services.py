"""The project's own parts on a devcluster: how the plugin is installed and configured, how each process is started."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni import install
from devcluster.nodes.attach import IPAM_PLUGIN
from devcluster.processes import script

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from devcluster.cluster import Cluster
    from devcluster.processes import Processes
    from devcluster.workspace import Workspace

NAMESPACE = "spiderpool"
READY_WITHIN_S = 20.0

# Keys of the original's ConfigMap. tuneSysctlConfig is off: these agents run in the host's namespaces.
CONF = """\
enableIPv4: true
enableIPv6: true
enableStatefulSet: true
tuneSysctlConfig: false
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Seconds; the controller's defaults are 20 and 20, which is long to watch."""

    reclaim_grace_s: float = 2.0
    sweep_interval_s: float = 1.0
    log_level: str = "info"


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    command: tuple[str, ...]
    ready: Callable[[], Awaitable[bool]]


def install_plugin(space: Workspace) -> Path:
    return install.install(space.plugins)


def ipam_config(space: Workspace, node: str) -> dict[str, Any]:
    """The ipam section of the node's CNI configuration."""
    folder = space.node(node)
    return {
        "type": IPAM_PLUGIN,
        "ipam_unix_socket_path": str(space.socket(node)),
        "log_file_path": str(space.logs / f"plugin-{node}.log"),
        "log_level": "debug",
        "state_dir": str(folder),
    }


def services_of(cluster: Cluster) -> list[Service]:
    """What to start, in an order that works; all of it may start at once."""
    space, kubeconfig = cluster.workspace, cluster.plane.kubeconfig
    config = space.directory / "conf.yml"
    config.write_text(CONF)
    level = cluster.settings.services.log_level
    common = ("--kubeconfig", str(kubeconfig), "--config", str(config), "--log-level", level)
    return [
        _webhook(cluster, common),
        _controller(cluster, common),
        *(_agent(cluster, node, common) for node in cluster.nodes),
    ]


async def start(services: list[Service], processes: Processes) -> None:
    async with asyncio.TaskGroup() as group:
        for service in services:
            starting = processes.start(
                service.name, list(service.command), ready=service.ready, within_s=READY_WITHIN_S
            )
            group.create_task(starting, name=f"start {service.name}")


def _webhook(cluster: Cluster, common: tuple[str, ...]) -> Service:
    listen = f"127.0.0.1:{free_port()}"
    folder = cluster.workspace.directory / "certs"
    own = ("--listen", listen, "--register", "url", "--cert-dir", str(folder), "--health-listen", "0")

    async def ready() -> bool:
        configurations = await cluster.client.raw(
            "GET", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
        )
        calls = json.dumps(configurations["items"])
        return f"https://{listen}/" in calls and await _answers_tls(listen)

    return Service("webhook", (script("spiderpool-webhook"), *common, *own), ready)


def _controller(cluster: Cluster, common: tuple[str, ...]) -> Service:
    listen = f"127.0.0.1:{free_port()}"
    settings = cluster.settings.services
    own = (
        *("--namespace", NAMESPACE, "--identity", "devcluster", "--health-listen", listen),
        *("--reclaim-grace", f"{settings.reclaim_grace_s:g}", "--sweep-interval", f"{settings.sweep_interval_s:g}"),
    )

    async def ready() -> bool:
        host, port = listen.split(":")
        return await _answers_http(asyncio.open_connection(host, int(port)), "/v1/runtime/readiness")

    return Service("controller", (script("spiderpool-controller"), *common, *own), ready)


def _agent(cluster: Cluster, node: str, common: tuple[str, ...]) -> Service:
    space = cluster.workspace
    listen = space.socket(node)
    own = ("--node", node, "--socket", str(listen), "--state-dir", str(space.node(node)), "--health-listen", "0")

    async def ready() -> bool:
        return await _answers_http(asyncio.open_unix_connection(listen), "/v1/runtime/readiness")

    return Service(f"agent-{node}", (script("spiderpool-agent"), *common, *own), ready)


def free_port() -> int:
    """A TCP port that nobody had a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _answers_http(connecting: Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]], path: str) -> bool:
    try:
        reader, writer = await connecting
    except OSError:
        return False
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        status = await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return b" 200 " in status


async def _answers_tls(listen: str) -> bool:
    # Whether the certificate is right is the API server's business: it has the caBundle.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port = listen.split(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def shown(service: Service) -> str:
    """The command line for people: the script's name alone, files relative to where they are."""
    program, *arguments = service.command
    return " ".join([Path(program).name, *arguments]).replace(f"{Path.cwd()}/", "")


def reclaim_bound_s(settings: Settings) -> float:
    """Seconds within which the address of a pod that is gone is free: two sightings and what lies between them.

    At most a sweep to the first sighting, the grace period, a sweep to the second; twice that for a busy machine.
    """
    return 2 * (settings.reclaim_grace_s + 2 * settings.sweep_interval_s) + 4
