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

# An agent of a busy node comes by any of them so often within a second or two.
TIMES: Final = 20


@dataclass(slots=True)
class Fates:
    """`spared` are processes that no fault ends; they may be paused. `counts` tells what happened, by kind.

    `on_fault` is called when a fault is over.
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
            await acts[kind]()
            self.counts[kind] += 1
            for listener in self.on_fault:
                listener()

    def _one(self, process: str, *, spared: bool = False) -> Actor:
        """Any of the kind; one of the spared only where they may be hit."""
        found = [each for each in self.stage.actors.values() if each.name.startswith(process)]
        return self.rng.choice([each for each in found if spared or each.name not in self.spared])

    async def _kill(self, process: str) -> None:
        self._one(process).kill()

    async def _die_at(self, process: str) -> None:
        """Within the next seconds, or not at all: then it is let off."""
        actor = self._one(process)
        point = self.rng.choice(boundaries.failpoints(process))
        actor.arm(point, self.rng.randint(1, TIMES))
        deaths = len(self.stage.deaths)
        try:
            await until_true(lambda: len(self.stage.deaths) > deaths, within_s=2, what=point)
        except WaitError:
            actor.disarm()

    async def _plugin_dies(self) -> None:
        fuse = self.stage.plugin_fuse(self.rng.choice(self.stage.agents))
        actors.arm(fuse, self.rng.choice(boundaries.failpoints("plugin")))

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
            await self.stage.plane.kill(self.rng.choice(parts))
            await asyncio.sleep(self.rng.uniform(0.0, 2.0))
            await self.stage.plane.revive()

    async def _apiserver_paused(self) -> None:
        pid = self.stage.plane.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(self.rng.uniform(*self.pauses_s))
        finally:
            os.kill(pid, signal.SIGCONT)
