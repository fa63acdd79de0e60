"""`make soak MINUTES=n`: churn and faults all the time, then calm, and then the books must balance.

`python -m tests.soak --minutes 10 --plane envtest --seed 7`. Exit status 1 when an address leaked, an invariant was
broken or a process grew; the report is in build/soak.json, the logs of the last run that was not clean in build/soak.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from cni import install
from devcluster.plane import Kind
from tests.crash import books
from tests.crash.actors import ROOT
from tests.crash.agent_scenes import asks_for
from tests.crash.fates import Fates
from tests.crash.planes import make_ready, running_plane
from tests.crash.stage import Stage, furnish, on_stage
from tests.soak import casting
from tests.soak.churn import Churn
from tests.soak.memory import Memory
from tests.soak.people import People
from tests.soak.report import Report
from tests.soak.watching import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from tests.crash.stage import Cluster

NODES: Final = ("n1", "n2", "n3", "n4")
# Nobody has to wait for these to find a leak: they may come one after the other.
SMALL: Final = {
    "agent killed": 3, "agent died at a boundary": 6, "agent paused": 2, "agent restarted": 2,
    "webhook killed": 1, "webhook paused": 1, "webhook restarted": 1, "plugin died at a boundary": 4,
}  # fmt: skip
# After each of these a new leader, or caches filled anew, begin from the beginning.
GREAT: Final = {
    "controller killed": 2, "controller died at a boundary": 3, "controller paused": 2, "controller restarted": 1,
    "API server killed": 3, "API server paused": 1,
}  # fmt: skip
CALM_S: Final = 150.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument(
        "--plane", choices=[each for each in get_args(Kind) if each != "kubeconfig"], default="embedded"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spiderpool-soak-") as name:
        folder = Path(name)
        print(f"soak: plane {options.plane}, seed {options.seed}, logs in {folder}", flush=True)
        with _logs_kept(folder):
            report = asyncio.run(soak(options.plane, folder, options.minutes, options.seed))
            report.write(ROOT / "build" / "soak.json")
            print(report.text(), flush=True)
        if not report.is_clean:
            _keep_logs(folder)
    return 0 if report.is_clean else 1


@contextmanager
def _logs_kept(folder: Path) -> Iterator[None]:
    """A run that ends before it has a report leaves its logs all the same."""
    try:
        yield
    except BaseException:
        _keep_logs(folder)
        raise


def _keep_logs(folder: Path) -> None:
    kept = ROOT / "build" / "soak"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("*.sock", "bin", "data"))


async def soak(kind: Kind, folder: Path, minutes: float, seed: int) -> Report:
    rng = random.Random(seed)  # noqa: S311 - so that a run can be made again
    times = casting.times_for(minutes)
    with running_plane(kind, folder / "plane") as plane:
        await make_ready(plane)
        await furnish(plane, NODES)
        stage = Stage(plane, folder)
        async with AsyncExitStack() as stack:
            stack.callback(stage.stop)
            spared = await casting.cast(stage, NODES, times)
            cluster = await stack.enter_async_context(on_stage(stage))
            await stack.enter_async_context(stage.supervised())
            return await _soaked(cluster, spared, times, minutes, seed, rng)


async def _soaked(
    cluster: Cluster, spared: frozenset[str], times: casting.Times, minutes: float, seed: int, rng: random.Random
) -> Report:
    stage = cluster.stage
    pools = [await cluster.pool_of(f"10.80.{n}.0/24", f"10.80.{n}.1-10.80.{n}.250") for n in (0, 1)]
    six = await cluster.pool_of("fd00:80::/64", "fd00:80::1-fd00:80::ffff")
    members = await cluster.pool_of("10.81.0.0/24", "10.81.0.1-10.81.0.20")
    counts: Counter[str] = Counter()
    small = Fates(stage, random.Random(rng.random()), spared, counts)  # noqa: S311
    great = Fates(stage, random.Random(rng.random()), spared, counts, times.pauses_s)  # noqa: S311
    watch = Watch(cluster.api, cluster.runtime, settle_s=times.settle_s, repaired_within_s=times.repaired_within_s)
    great.on_fault.append(watch.disturbed)
    memory = Memory(lambda: {name: stage.actors[name].pid for name in spared})
    plugin = await asyncio.to_thread(install.install, stage.folder / "bin")
    annotations = [asks_for(pools[0]), asks_for(pools[1], pools[0]), asks_for(pools[0], six)]
    churn = Churn(cluster, rng, annotations, asks_for(members), plugin, counts)
    people = People(cluster, random.Random(rng.random()), pools[1], "10.80.1", counts)  # noqa: S311
    async with _all_of(watch.run(), memory.run()):
        async with _all_of(
            churn.run(),
            people.run(pause_s=(2, 8)),
            small.run(SMALL, pause_s=times.small_pause_s),
            great.run(GREAT, pause_s=times.great_pause_s),
        ):
            await asyncio.sleep(minutes * 60)
        for actor in stage.actors.values():
            actor.disarm()
        await churn.finish(within_s=CALM_S)
        try:
            await books.balanced(cluster.api, cluster.runtime.told, counts=True, within_s=CALM_S)
            unbalanced: list[str] = []
        except AssertionError as error:
            unbalanced = str(error).splitlines()
            await watch.last_look()
    return Report(
        plane=stage.plane.kind,
        seed=seed,
        minutes=minutes,
        pods=churn.pods,
        adds=cluster.runtime.adds,
        failed_adds=cluster.runtime.failed_adds,
        unstarted=dict(churn.unstarted),
        faults=dict(counts),
        deaths=len(stage.deaths),
        looks=watch.looks,
        leaks=sorted(watch.leaks),
        longest_orphan_s=round(watch.longest_orphan_s, 1),
        violations=[*sorted(watch.violations), *churn.broken, *unbalanced],
        slopes=memory.slopes(),
        rss_mib={name: (samples[0][1], samples[-1][1]) for name, samples in memory.samples.items()},
    )


@asynccontextmanager
async def _all_of(*coroutines: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """All of them for as long as the block lasts; the first that fails ends it."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in coroutines]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


if __name__ == "__main__":
    sys.exit(main())
