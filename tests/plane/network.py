"""The network between a process and the API server, in the hands of a test."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import yaml

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Network:
    """`kubeconfig` leads through the network; nothing passes, in neither direction, while `flows` is clear.

    `holds` is set once something waits to pass.
    """

    kubeconfig: Path
    flows: asyncio.Event
    holds: asyncio.Event

    def stall(self) -> None:
        self.holds.clear()
        self.flows.clear()

    def heal(self) -> None:
        self.flows.set()


@contextlib.asynccontextmanager
async def network(kubeconfig: Path, directory: Path) -> AsyncIterator[Network]:
    """A TCP relay on loopback in front of the API server of the kubeconfig."""
    target = urlsplit(_server_of(kubeconfig))
    flows, holds = asyncio.Event(), asyncio.Event()
    flows.set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            upstream_reader, upstream_writer = await asyncio.open_connection(target.hostname, target.port)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, upstream_writer, flows, holds))
                group.create_task(_pump(upstream_reader, writer, flows, holds))

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    through = directory / "through-the-network.kubeconfig"
    _lead_to(kubeconfig, through, f"https://127.0.0.1:{port}")
    try:
        yield Network(through, flows, holds)
    finally:
        flows.set()
        server.close()


def _server_of(kubeconfig: Path) -> str:
    return str(yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"])


def _lead_to(kubeconfig: Path, copy: Path, server: str) -> None:
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = server
    copy.write_text(yaml.safe_dump(config))


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event, holds: asyncio.Event
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            if not flows.is_set():
                holds.set()
            await flows.wait()
            writer.write(data)
            await writer.drain()
    writer.close()
