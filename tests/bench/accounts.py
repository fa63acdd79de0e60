"""What a stretch of work cost: seconds on the clock, CPU seconds of each part, and the API server's own count of calls.

CPU seconds say more than the clock on a machine that others use too; calls are the same on every machine.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from allocator.kube.client import KubeClient

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
# What an agent asks for while it serves; the API server's own housekeeping is not ours.
_RESOURCES: Final = frozenset(
    {"spidersubnets", "spiderippools", "spiderreservedips", "spideripaddresses", "spiderendpoints"}
    | {"pods", "nodes", "namespaces", "statefulsets", "events"}
)
_WORTH_TELLING: Final = 0.02
_CALLS: Final = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)
_SENT: Final = re.compile(r"^apiserver_request_body_size_bytes_sum\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Usage:
    """`cpu_s` is by part (agents, apiserver, etcd, client ...); `others` are processes that are none of ours."""

    wall_s: float
    cpu_s: Mapping[str, float]
    calls: Mapping[tuple[str, str], int]
    sent_bytes: int

    @property
    def own_cpu_s(self) -> float:
        """Of all that takes part."""
        return sum(seconds for part, seconds in self.cpu_s.items() if part != "others")

    def ms_each(self, part: str, count: int) -> float:
        return self.cpu_s.get(part, 0.0) * 1000 / count

    def calls_each(self, count: int) -> float:
        return sum(self.calls.values()) / count

    def busy(self) -> str:
        """Which part kept the machine busy, in shares of all its cores."""
        whole = self.wall_s * (os.cpu_count() or 1)
        shares = sorted(((seconds / whole, part) for part, seconds in self.cpu_s.items()), reverse=True)
        parts = ", ".join(f"{part} {share:.0%}" for share, part in shares if share >= _WORTH_TELLING)
        return f"the machine was {sum(self.cpu_s.values()) / whole:.0%} busy: {parts}"


@dataclass(slots=True)
class Measured:
    usage: Usage | None = None

    def result(self) -> Usage:
        assert self.usage is not None, "asked for before the block ended"
        return self.usage


@dataclass(frozen=True, slots=True)
class Meter:
    """`parts` names the processes to account for; the bench's own process is the client."""

    kube: KubeClient
    parts: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[Measured]:
        """The cost of the block. The bench's own calls in the block count too: there should be none."""
        measured = Measured()
        calls, sent = await self._requests()
        cpu, busy, began = self._cpu(), _machine_busy_s(), time.perf_counter()
        yield measured
        wall = time.perf_counter() - began
        spent = {part: seconds - cpu[part] for part, seconds in self._cpu().items()}
        spent["others"] = max(0.0, _machine_busy_s() - busy - sum(spent.values()))
        calls_after, sent_after = await self._requests()
        measured.usage = Usage(wall, spent, calls_after - calls, sent_after - sent)

    def _cpu(self) -> dict[str, float]:
        return {part: sum(map(cpu_s, pids)) for part, pids in self.parts.items()} | {"client": time.process_time()}

    async def _requests(self) -> tuple[Counter[tuple[str, str]], int]:
        """Answered calls by verb and resource, and bytes of bodies, since the API server began."""
        text = await self.kube.raw("GET", "/metrics")
        calls: Counter[tuple[str, str]] = Counter()
        for labels, value in _labelled(_CALLS.findall(text)):
            # What Kubernetes' own controllers ask is not ours; a watch is one long call.
            is_ours = labels["resource"] in _RESOURCES and not labels.get("system_client")
            if is_ours and labels["verb"] not in ("WATCH", "CONNECT"):
                calls[labels["verb"], labels["resource"]] += int(value)
        sent = (value for labels, value in _labelled(_SENT.findall(text)) if labels["resource"] in _RESOURCES)
        return calls, int(sum(sent))


def _labelled(found: Iterable[tuple[str, str]]) -> Iterable[tuple[dict[str, str], float]]:
    return ((dict(_LABEL.findall(labels)), float(value)) for labels, value in found)


def cpu_s(pid: int) -> float:
    """Of all threads that the process has, to the nanosecond: /proc/PID/stat counts hundredths."""
    spent = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends meanwhile
            spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 2**20


def children(pid: int) -> dict[str, int]:
    """The child processes by name."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {Path(f"/proc/{child}/comm").read_text().strip(): int(child) for child in pids}


def _machine_busy_s() -> float:
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / _TICKS
