"""One ADD of the installed plugin as a whole process, beside Debian's host-local: what an interpreter costs."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.cluster import ROOT
from tests.bench.report import Table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.bench.cluster import Cluster
    from tests.bench.report import Row

HOST_LOCAL: Final = Path("/usr/lib/cni/host-local")
RUNS: Final = 60
_ANSWER: Final = {
    "ips": [{"address": "10.20.0.10/16", "gateway": "10.20.0.1", "ipPool": "p", "nic": "eth0", "version": 4}],
    "routes": [{"ifName": "eth0", "dst": "0.0.0.0/0", "gw": "10.20.0.1"}],
}


async def run(_cluster: Cluster) -> Table:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entry = await _installed(folder / "bin")
        async with _agent(folder / "agent.sock"):
            plugins: dict[Path, Mapping[str, object]] = {
                entry: {
                    "type": "spiderpool",
                    "ipam_unix_socket_path": str(folder / "agent.sock"),
                    "state_dir": str(folder),
                    "log_file_path": str(folder / "log"),
                },
                HOST_LOCAL: {
                    "type": "host-local",
                    "dataDir": str(folder / "host-local"),
                    "ranges": [[{"subnet": "10.20.0.0/16"}]],
                },
            }
            times = await _measured({path: ipam for path, ipam in plugins.items() if path.is_file()})
    rows = [_row(path.name, *each) for path, each in times.items()]
    says = ["there is no host-local beside it: apt-get install containernetworking-plugins"]
    if HOST_LOCAL in times:
        above = float(rows[0]["p50 ms"]) - float(rows[1]["p50 ms"])
        says = [f"spiderpool takes {above:.1f} ms more, with an agent that answers at once"]
    return Table("plugin", f"one ADD as a process of its own, {RUNS} of each by turns", rows, says)


async def _installed(folder: Path) -> Path:
    command = [sys.executable, "-m", "cni.install", "--bin-dir", str(folder)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL)
    if await process.wait() != 0:
        raise RuntimeError("the plugin could not be installed: see above")
    return folder / "spiderpool"


@asynccontextmanager
async def _agent(path: Path) -> AsyncIterator[None]:
    """Answers each request at once with the same addresses."""
    body = json.dumps(_ANSWER).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(answer, str(path)):
        yield


async def _measured(plugins: Mapping[Path, Mapping[str, object]]) -> dict[Path, tuple[list[float], list[float]]]:
    """Milliseconds on the clock and of CPU, for each run of each plugin."""
    found: dict[Path, tuple[list[float], list[float]]] = {path: ([], []) for path in plugins}
    for index in range(RUNS):
        for path, ipam in plugins.items():
            wall, cpu = await _add(path, ipam, f"{path.name}-{index}")
            found[path][0].append(wall)
            found[path][1].append(cpu)
    return found


async def _add(path: Path, ipam: Mapping[str, object], container: str) -> tuple[float, float]:
    environ = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": container,
        "CNI_NETNS": "/var/run/netns/none",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(path.parent),
        "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={container};K8S_POD_UID=9e0c6a52",
    }
    config = {"cniVersion": "1.0.0", "name": "bench", "type": "macvlan", "master": "eth0", "ipam": ipam}
    before, began = _children_cpu_s(), time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        str(path), env=environ, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate(json.dumps(config).encode())
    wall, cpu = time.perf_counter() - began, _children_cpu_s() - before
    if process.returncode != 0:
        raise RuntimeError(f"ADD of {path} failed: {out.decode()}")
    return wall * 1000, cpu * 1000


def _children_cpu_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _row(what: str, wall: list[float], cpu: list[float]) -> Row:
    cuts = statistics.quantiles(wall, n=100)
    return {"what": what, "p50 ms": cuts[49], "p99 ms": cuts[98], "least ms": min(wall), "CPU ms": statistics.mean(cpu)}
