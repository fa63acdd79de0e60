"""`python -m tests.simulation --seed N --trace` tells a seed's story; `--seeds A:B` plays many, one line each failure."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import warnings


def main() -> int:
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of strings have another order in each process: a seed must not depend on it.
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )  # noqa: S606, E501
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", help="A:B, without B")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--without", default="", help="a safeguard to take away")
    parser.add_argument("--first", action="store_true", help="end with the first failure")
    options = parser.parse_args()
    first, _, last = (options.seeds or f"{options.seed}:{(options.seed or 0) + 1}").partition(":")
    from tests.simulation import weakened  # noqa: PLC0415 - after the choice of the hash seed
    from tests.simulation.world import World  # noqa: PLC0415

    # What is left of a seed's tasks is thrown away while it waits.
    sys.unraisablehook = lambda _: None
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    weakened.take_away(options.without)
    gc.disable()
    gc.freeze()
    failed, began, virtual, steps = 0, time.process_time(), 0.0, 0
    for seed in range(int(first), int(last)):
        outcome = World(seed, is_traced=options.trace).run()
        virtual, steps = virtual + outcome.virtual_s, steps + outcome.steps
        if options.trace:
            print("\n".join(outcome.story))
            print(f"digest {outcome.digest}")
        if outcome.failure:
            failed += 1
            print(f"seed {seed}: {outcome.failure}", flush=True)
            if options.first:
                break
        gc.collect()
    took = time.process_time() - began
    count = int(last) - int(first)
    print(
        f"{count} seeds, {failed} failed; {took / count * 1e3:.0f} ms of CPU, {virtual / count:.0f} virtual s, {steps // count} steps each"
    )  # noqa: E501
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
