"""Faults by a seed: who is killed, paused or told to die at a boundary, one after the other."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from devcluster.waiting import WaitError, until_true
from tests.crash import actors, boundaries

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Mapping

    from tests.crash.actors import Actor
    from tests.crash.stage import Stage

# At the latest at this time that it comes by: so often one does within a second or two.
TIMES: Final = {"agent": 20, "controller": 3}
REACHED_S: Final = 3.0


class _NotReached(Exception):
    """Nobody came by the boundary: nobody died."""


@dataclass(slots=True)
class Fates:
    """`spared` are processes that no fault ends; they may be paused. `counts` tells what happened, by kind; a death at
    a boundary is one only when the process did die there.

    `on_fault` is called when a fault begins and when it is over.
    """

    stage: Stage
    rng: random.Random
    spared: frozenset[str] = frozenset()
    counts: Counter[str] = field(default_factory=Counter)
    pauses_s: tuple[float, float] = (0.5, 4.0)
    on_fault: list[Callable[[], None]] = field(default_factory=list)

    async def run(self, weights: Mapping[str, float], *, pause_s: tuple[float, float]) -> None:
        """One fault after the other, pauses in between, until cancelled; each kind comes once before any again."""
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            "agent killed": lambda: self._kill("agent"),
            "agent died at a boundary": lambda: self._die_at("agent"),
            "agent paused": lambda: self._pause("agent"),
            "agent restarted": lambda: self._restart("agent"),
            "controller killed": lambda: self._kill("controller"),
            "controller died at a boundary": lambda: self._die_at("controller"),
            "controller paused": lambda: self._pause("controller"),
            "controller restarted": lambda: self._restart("controller"),
            "webhook killed": lambda: self._kill("webhook"),
            "webhook paused": lambda: self._pause("webhook"),
            "webhook restarted": lambda: self._restart("webhook"),
            "plugin died at a boundary": self._plugin_dies,
            "API server killed": self._apiserver_killed,
            "API server paused": self._apiserver_paused,
        }
        deck = self.rng.sample(list(weights), len(weights))
        while True:
            await asyncio.sleep(self.rng.uniform(*pause_s))
            kind = deck.pop() if deck else self.rng.choices(list(weights), list(weights.values()))[0]
            self._tell()
            try:
                await acts[kind]()
                self.counts[kind] += 1
            except _NotReached:
                self.counts[f"{kind}: not reached"] += 1
                if not self.counts[kind]:
                    deck.insert(0, kind)
            finally:
                self._tell()

    def _tell(self) -> None:
        for listener in self.on_fault:
            listener()

    def _one(self, process: str, *, spared: bool = False) -> Actor:
        """Any of the kind; one of the spared only where they may be hit."""
        found = [each for each in self.stage.actors.values() if each.name.startswith(process)]
        return self.rng.choice([each for each in found if spared or each.name not in self.spared])

    async def _kill(self, process: str) -> None:
        self._one(process).kill()

    async def _die_at(self, process: str) -> None:
        """Within the next seconds; else it is let off."""
        actor = self._one(process)
        points = boundaries.failpoints(process)
        # Some boundaries lie where nobody goes for minutes: every other time one where it went.
        passed = set(actor.passed())
        seen = [point for point in points if point in passed]
        point = self.rng.choice(self.rng.choice((points, seen or points)))
        before = len(self.stage.deaths)
        actor.arm(point, self.rng.randint(1, TIMES[process]))
        try:
            await _reached(lambda: (actor.name, point) in self.stage.deaths[before:], point)
        finally:
            actor.disarm()

    async def _plugin_dies(self) -> None:
        fuse = self.stage.plugin_fuse(self.rng.choice(self.stage.agents))
        point = self.rng.choice(boundaries.failpoints("plugin"))
        actors.arm(fuse, point)
        try:
            await _reached(lambda: actors.died_at(fuse) == point, point)
        finally:
            (fuse / "armed").unlink(missing_ok=True)

    async def _pause(self, process: str) -> None:
        """Longer than a lease lasts, at times."""
        actor = self._one(process, spared=True)
        actor.pause()
        try:
            await asyncio.sleep(self.rng.uniform(*self.pauses_s))
        finally:
            actor.resume()

    async def _restart(self, process: str) -> None:
        actor = self._one(process)
        if actor.runs:
            await self.stage.restart(actor.name)

    async def _apiserver_killed(self) -> None:
        parts = ["kube-apiserver"] if self.stage.plane.kind == "embedded" else ["kube-apiserver", "etcd"]
        with self.stage.outage():
            try:
                await self.stage.plane.kill(self.rng.choice(parts))
                await asyncio.sleep(self.rng.uniform(0.0, 2.0))
            finally:
                # Also when the faults end just now: who looks at the books afterwards needs it.
                await self.stage.plane.revive()

    async def _apiserver_paused(self) -> None:
        pid = self.stage.plane.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(self.rng.uniform(*self.pauses_s))
        finally:
            os.kill(pid, signal.SIGCONT)


async def _reached(has_died: Callable[[], bool], point: str) -> None:
    try:
        await until_true(has_died, within_s=REACHED_S, what=point)
    except WaitError as error:
        raise _NotReached(point) from error
