"""`python -m tests.simulation --seed N --trace` tells a seed's story; `--seeds A:B` plays many, one line for a failure.

`--without "live read"` takes a safeguard away first (weakened.py has their names).
"""

# ruff: noqa: T201 - it prints what it finds

from __future__ import annotations

import argparse
import gc
import os
import sys
import time


def main() -> int:
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of strings have another order in each process: a seed must not depend on it.
        environ = {**os.environ, "PYTHONHASHSEED": "0"}
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], environ)  # noqa: S606
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", default="", metavar="A:B", help="from A, without B")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--without", default="", metavar="SAFEGUARD")
    parser.add_argument("--first", action="store_true", help="end with the first failure")
    options = parser.parse_args()
    first, _, last = (options.seeds or f"{options.seed}:{options.seed + 1}").partition(":")
    return _play(range(int(first), int(last)), options)


def _play(seeds: range, options: argparse.Namespace) -> int:
    from tests.simulation import weakened  # noqa: PLC0415 - when the hash seed is known
    from tests.simulation.world import play  # noqa: PLC0415

    weakened.take_away(options.without)
    gc.freeze()
    outcomes, began = [], time.process_time()
    for seed in seeds:
        outcome = play(seed, is_traced=options.trace)
        outcomes.append(outcome)
        for line in outcome.story:
            print(line)
        if outcome.failure:
            print(f"seed {seed}: {outcome.failure}", flush=True)
            if options.first:
                break
    took, count = time.process_time() - began, len(outcomes)
    failed = sum(bool(each.failure) for each in outcomes)
    print(
        f"{count} seeds, {failed} failed; {sum(each.faults for each in outcomes)} faults, "
        f"{sum(each.answers for each in outcomes)} answers, {sum(each.virtual_s for each in outcomes) / 3600:.1f} h "
        f"of virtual time, {took / count * 1e3:.0f} ms of CPU a seed"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
