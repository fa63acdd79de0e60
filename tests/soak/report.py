"""What a soak found: for people, for machines, and whether it was clean."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SLOPE_LIMIT: Final = 1.0
SHOWN: Final = 20
# Of the pods that were made: a busy machine lets a few wait too long, a product that gives nothing all of them.
UNSTARTED_SHARE: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`slopes` are MiB in ten minutes of the processes that no fault ended; `rss_mib` is the first and last sample."""

    plane: str
    seed: int
    minutes: float
    pods: int
    adds: int
    failed_adds: int
    unstarted: Mapping[str, int]
    faults: Mapping[str, int]
    deaths: int
    looks: int
    leaks: Sequence[str]
    longest_orphan_s: float
    violations: Sequence[str]
    slopes: Mapping[str, float | None]
    rss_mib: Mapping[str, tuple[float, float]]

    @property
    def grown(self) -> list[str]:
        return [name for name, slope in self.slopes.items() if slope is not None and slope >= SLOPE_LIMIT]

    @property
    def is_clean(self) -> bool:
        return not (self.leaks or self.violations or self.grown or self.idle)

    @property
    def idle(self) -> list[str]:
        """Why the run shows nothing: nobody leaks who is given nothing."""
        unstarted = sum(self.unstarted.values())
        reasons = {
            "no pod was made": not self.pods,
            "nobody looked at the books": not self.looks,
            f"{unstarted} of {self.pods} pods got no address": unstarted > UNSTARTED_SHARE * self.pods,
        }
        return [reason for reason, holds in reasons.items() if holds]

    def text(self) -> str:
        faults = sum(self.faults.values())
        lines = [
            f"\n{self.minutes:g} minutes on plane {self.plane}, seed {self.seed}",
            f"  pods made              {self.pods}",
            f"  ADDs                   {self.adds}, of which {self.failed_adds} failed and were tried again",
            f"  pods that got nothing  {sum(self.unstarted.values())}",
            f"  faults                 {faults}, processes that died or restarted {self.deaths}",
            *(f"    {count:5} {kind}" for kind, count in sorted(self.faults.items())),
            f"  looks at the books     {self.looks}",
            f"  leaked addresses       {len(self.leaks)} (held for nobody for {self.longest_orphan_s:.0f} s at most)",
            f"  invariant violations   {len(self.violations)}",
            "  memory, MiB",
        ]
        for name, (first, last) in sorted(self.rss_mib.items()):
            slope = self.slopes.get(name)
            told = "not measured: too short" if slope is None else f"{slope:+.2f} in 10 minutes"
            lines.append(f"    {name:20} {first:.1f} to {last:.1f}; {told}")
        problems = [*self.leaks, *self.violations, *(f"{name} grows" for name in self.grown), *self.idle]
        lines += [f"  ! {each}" for each in problems[:SHOWN]]
        lines += [f"  ? {count} x {why}" for why, count in list(self.unstarted.items())[:SHOWN]]
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        document: dict[str, Any] = {**asdict(self), "is_clean": self.is_clean}
        path.write_text(json.dumps(document, indent=1) + "\n")
