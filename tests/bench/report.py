"""Tables as text for people and as JSON for machines."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.accounts import Usage

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """`rows` have the same columns, those that begin with _ for machines only; `says` are sentences under the table."""

    name: str
    about: str
    rows: Sequence[Row]
    says: Sequence[str] = field(default_factory=tuple)

    def text(self) -> str:
        columns = [column for column in self.rows[0] if not column.startswith("_")]
        cells = [columns, *([_cell(row[column]) for column in columns] for row in self.rows)]
        widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
        # The first column is words, the others are figures.
        lines = [line[0].ljust(widths[0]) + rest[widths[0] :] for line, rest in zip(cells, lines, strict=True)]
        return "\n".join([f"\n{self.name}: {self.about}", *lines, *(f"  {each}" for each in self.says)])


def usage_row(what: str, usage: Usage, count: int, floor: Usage | None) -> Row:
    """The figures that all bursts have in common; milliseconds and calls are for one of `count`."""
    row: Row = {"what": what, "s": usage.wall_s}
    row["x floor"] = usage.wall_s / floor.wall_s if floor else 1.0
    # The same in CPU seconds: what else the machine has to do changes it little.
    row["x CPU"] = usage.own_cpu_s / floor.own_cpu_s if floor else 1.0
    row |= {"calls": usage.calls_each(count), "bytes": usage.sent_bytes // count}
    row |= {f"{part} ms": usage.ms_each(part, count) for part in usage.cpu_s}
    row["_calls"] = {" ".join(call): made for call, made in sorted(usage.calls.items()) if made}
    return row


def machine() -> Mapping[str, object]:
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory.split()[1]) / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def progress(what: str) -> None:
    """For whoever waits: not part of the output."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}\n")


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
