"""Seeds played in processes of their own, where the order of sets is fixed and nobody's debug mode costs time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEEDS = int(os.environ.get("SIMULATION_SEEDS", "2000"))
# So many take seconds, also on a machine that has more to do.
CHUNK = 125


def chunks(half: int) -> list[tuple[int, int]]:
    """One half of all seeds: two files of tests, so that two workers share them."""
    starts = list(range(0, SEEDS, CHUNK))
    middle = (len(starts) + 1) // 2
    mine = starts[:middle] if half == 0 else starts[middle:]
    return [(start, min(start + CHUNK, SEEDS)) for start in mine]


def run(*arguments: str) -> str:
    """What it prints. Whoever has set up Python for debugging does not mean this."""
    environ = {key: text for key, text in os.environ.items() if not key.startswith("PYTHON")}
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={**environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=False
    )
    assert " seeds, " in done.stdout, done.stdout + done.stderr
    return done.stdout


def failures(output: str) -> list[tuple[int, str]]:
    """Seed and invariant of each."""
    return [(int(seed), number) for seed, number in re.findall(r"^seed (\d+): (\w+):", output, re.MULTILINE)]


def must_hold(first: int, last: int) -> None:
    output = run("--seeds", f"{first}:{last}")
    assert not failures(output), f"{output}\nThe whole story: python -m tests.simulation --trace --seed N"
