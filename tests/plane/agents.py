"""Real agent processes for the tests, and a client that speaks the API of their sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from allocator.kube.errors import AlreadyExists
from allocator.kube.resources import NODES, PODS, SPIDER_IP_POOLS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object

START_S = 30.0
STOP_S = 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    json: Any
    headers: dict[str, str]

    @property
    def addresses(self) -> list[str]:
        assert self.status == 200, self.json
        return [ip["address"] for ip in self.json["ips"]]


@dataclass(frozen=True, slots=True)
class Agent:
    node: str
    socket: Path
    state_dir: Path
    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, body: object = None, **options: Any) -> Answer:
        if body is not None:
            options["json"] = body
        async with self.session.request(method, f"http://agent{path}", **options) as response:
            is_json = response.content_type == "application/json"
            payload = await response.json() if is_json else await response.text()
            return Answer(response.status, payload, dict(response.headers))

    async def add(self, pod: Object, *, interface: str = "eth0", container: str = "c1", **more: object) -> Answer:
        return await self.call("POST", "/v1/ipam/ip", {**args(pod, interface, container), **more})

    async def delete(self, pod: Object, *, interface: str = "eth0", container: str = "c1") -> Answer:
        return await self.call("DELETE", "/v1/ipam/ip", args(pod, interface, container))


def args(pod: Object, interface: str = "eth0", container: str = "c1") -> dict[str, object]:
    """IpamAddArgs and IpamDelArgs, as the plugin sends them."""
    meta = pod["metadata"]
    return {
        "containerID": container,
        "ifName": interface,
        "netNamespace": "/var/run/netns/none",
        "podNamespace": meta["namespace"],
        "podName": meta["name"],
        "podUID": meta["uid"],
    }


@contextlib.asynccontextmanager
async def running_agent(
    kubeconfig: Path,
    node: str,
    directory: Path,
    *arguments: str,
    log_level: str = "debug",
    health: str = "0",
    **environ: str,
) -> AsyncIterator[Agent]:
    """The agent as a process of its own, serving; SIGTERM at the end, and then it must be gone in time."""
    socket, state_dir, log = directory / f"{node}.sock", directory / node, directory / f"{node}.log"
    with log.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent", "--kubeconfig", str(kubeconfig), "--node", node,
            "--socket", str(socket), "--state-dir", str(state_dir), "--health-listen", health, "--log-level", log_level,
            *arguments, stderr=stderr, env={**os.environ, "PYTHONWARNINGS": "error", **environ},
        )  # fmt: skip
    try:
        async with asyncio.timeout(START_S):
            while not socket.exists():
                assert process.returncode is None, log.read_text()[-3000:]
                await asyncio.sleep(0.02)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket), limit=0)) as session:
            yield Agent(node, socket, state_dir, process, session)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(STOP_S):
            await process.wait()


async def make_node(kube: KubeClient, name: str) -> None:
    """A node that is ready."""
    with contextlib.suppress(AlreadyExists):
        await kube.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    await set_ready(kube, name, "True")


async def set_ready(kube: KubeClient, name: str, status: str) -> None:
    """What its kubelet reports, or "Unknown" when it reports nothing any more."""
    conditions = [{"type": "Ready", "status": status, "reason": "Test", "message": ""}]
    await kube.patch(NODES, name, {"status": {"conditions": conditions}}, subresource="status")


async def make_pod(
    kube: KubeClient, namespace: str, name: str, node: str, ippool: str = "", owner: Object | None = None
) -> Object:
    """A pod that is bound to the node already; `ippool` is the annotation's text."""
    metadata: Object = {"name": name, "namespace": namespace}
    if ippool:
        metadata["annotations"] = {"ipam.spidernet.io/ippool": ippool}
    if owner is not None:
        reference = {key: owner[key] for key in ("apiVersion", "kind")}
        reference |= {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "controller": True}
        metadata["ownerReferences"] = [reference]
        # A real controller lets go of a pod that its selector does not match.
        metadata["labels"] = owner["spec"]["selector"]["matchLabels"]
    spec = {"nodeName": node, "containers": [{"name": "main", "image": "none"}]}
    return await kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


async def make_pool(kube: KubeClient, name: str, items: str, subnet: str = "10.20.0.0/16", **spec: Any) -> Object:
    body = {"subnet": subnet, "ips": [items], "ipVersion": 6 if ":" in subnet else 4, **spec}
    return await kube.create(
        SPIDER_IP_POOLS,
        {"apiVersion": SPIDER_IP_POOLS.api_version, "kind": "SpiderIPPool", "metadata": {"name": name}, "spec": body},
    )
