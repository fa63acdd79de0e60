"""Does a process grow? Its resident memory over time, and the slope of that once it has warmed up."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SAMPLE_S: Final = 5.0
# Caches fill, and the allocator takes what it keeps.
WARM_UP_SHARE, WARM_UP_S = 0.3, 300.0
# Below this a slope says more about the noise than about the process.
MEASURED_S: Final = 300.0
# Pairs of so many samples are quickly made.
POINTS: Final = 300
TEN_MINUTES_S: Final = 600.0


@dataclass(slots=True)
class Memory:
    """`pids` says whom to sample: processes that live from the beginning to the end."""

    pids: Callable[[], Mapping[str, int]]
    samples: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            for name, pid in self.pids().items():
                self.samples.setdefault(name, []).append((loop.time() - began, resident_mib(pid)))
            await asyncio.sleep(SAMPLE_S)

    def slopes(self) -> dict[str, float | None]:
        """MiB in ten minutes by name; None where the run was too short to tell."""
        return {name: slope(samples) for name, samples in self.samples.items()}


def slope(samples: list[tuple[float, float]]) -> float | None:
    """The median of the slopes of all pairs (Theil and Sen): one that jumped once does not grow."""
    if not samples:
        return None
    warm = samples[0][0] + min(WARM_UP_SHARE * (samples[-1][0] - samples[0][0]), WARM_UP_S)
    kept = [sample for sample in samples if sample[0] >= warm]
    if kept[-1][0] - kept[0][0] < MEASURED_S:
        return None
    kept = kept[:: len(kept) // POINTS + 1]
    pairs = combinations(kept, 2)
    each_second = statistics.median((after[1] - before[1]) / (after[0] - before[0]) for before, after in pairs)
    return each_second * TEN_MINUTES_S


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0
