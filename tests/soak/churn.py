"""Pods that come and go: plain ones, members of StatefulSets, and those of jobs that end by themselves."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from allocator.kube.errors import NotFound
from allocator.kube.resources import PODS, STATEFUL_SETS
from devcluster.waiting import WaitError
from tests.crash.runtime import POD_START_S, Plugin, armed_plugin

if TYPE_CHECKING:
    import random
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

    from allocator.kube.resources import Object
    from tests.crash.runtime import Line, Told
    from tests.crash.stage import Cluster

# What two cores bear beside an API server, with faults.
PODS_PER_S: Final = 10.0
LIVES_S: Final = 15.0
SETS: Final = 4
MEMBERS: Final = 3
# Through a plugin, a process for each call.
PLUGIN_SHARE: Final = 0.15
# More at a time than this means that pods do not start any more: then no new ones come.
AT_ONCE: Final = 400


@dataclass(slots=True)
class Churn:
    """`annotations` are texts of `ippool` to choose from; that of `members` lists pools that nobody edits.

    `faults` counts what pods suffered; `broken` are sentences about promises that were not kept.
    """

    cluster: Cluster
    rng: random.Random
    annotations: Sequence[str]
    members: str
    plugin: Path
    faults: Counter[str]
    pods: int = 0
    unstarted: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    _alive: int = 0
    _begun: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Until cancelled; pods that live then go on living, and nobody ends them."""
        async with asyncio.TaskGroup() as group:
            for _ in range(SETS):
                group.create_task(self._stateful_set(), name="set")
            while True:
                await asyncio.sleep(self.rng.expovariate(PODS_PER_S))
                if self._alive < AT_ONCE:
                    life = self._job() if self.rng.random() < 0.15 else self._plain()
                    group.create_task(self._counted(life), name="pod")

    async def finish(self, within_s: float) -> None:
        """After `run`: pods whose end has begun come to it, as a kubelet sees to that."""
        async with asyncio.timeout(within_s):
            for task in tuple(self._begun):
                await task

    async def _whole(self, act: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(act)
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        await asyncio.shield(task)

    async def _counted(self, life: Any) -> None:
        self._alive += 1
        try:
            await life
        finally:
            self._alive -= 1

    async def _plain(self) -> None:
        pod = await self._pod(self.rng.choice(self.annotations))
        if await self._start(pod):
            await asyncio.sleep(self.rng.expovariate(1 / LIVES_S))
            if self.rng.random() < 0.1:  # its sandbox dies and is made anew
                await self._start(pod)
        await self._whole(self._end(pod))

    async def _job(self) -> None:
        """It ends by itself, and its pod stands for a while."""
        pod = await self._pod(self.rng.choice(self.annotations))
        if await self._start(pod):
            await asyncio.sleep(self.rng.expovariate(1 / LIVES_S))
        await self._whole(self._over(pod))
        await asyncio.sleep(self.rng.uniform(0, 2 * LIVES_S))
        await self.cluster.api.delete(PODS, pod, grace_period_s=0)

    async def _over(self, pod: Object) -> None:
        told = self.cluster.runtime.forget(pod)
        with suppress(NotFound):
            await self.cluster.api.patch(PODS, pod, {"status": {"phase": "Succeeded"}}, subresource="status")
        if told is not None:
            await self._release(told)

    async def _stateful_set(self) -> None:
        """Its members live one after the other; now and then it is scaled down and up again."""
        owner = await self.cluster.stateful_set(MEMBERS)
        members = [_Member(f"{owner['metadata']['name']}-{ordinal}") for ordinal in range(MEMBERS)]
        async with asyncio.TaskGroup() as group:
            for ordinal, member in enumerate(members):
                group.create_task(self._member(owner, ordinal, member), name=member.name)
            while True:
                await asyncio.sleep(self.rng.uniform(2, 6) * LIVES_S)
                replicas = self.rng.randint(0, MEMBERS - 1)
                self.faults["StatefulSet scaled down"] += 1
                for member in members[replicas:]:
                    member.scaled_down += 1
                owner["spec"]["replicas"] = replicas
                await self.cluster.api.patch(STATEFUL_SETS, owner, {"spec": {"replicas": replicas}})
                await asyncio.sleep(self.rng.uniform(0.2, 2) * LIVES_S)
                await self.cluster.api.patch(STATEFUL_SETS, owner, {"spec": {"replicas": MEMBERS}})
                owner["spec"]["replicas"] = MEMBERS

    async def _member(self, owner: Object, ordinal: int, member: _Member) -> None:
        while True:
            if owner["spec"]["replicas"] <= ordinal:
                await asyncio.sleep(1)
                continue
            pod = await self._pod(self.members, name=member.name, owner=owner)
            if got := await self._start(pod):
                if member.was_due_another(got):
                    self.broken.append(f"{member.name} had {member.before}, and its successor got {got}")
                # Of one that the set did not count when it began to run nothing is kept.
                is_counted = owner["spec"]["replicas"] > ordinal
                member.before, member.since = got if is_counted else (), member.scaled_down
                await asyncio.sleep(self.rng.expovariate(1 / LIVES_S))
            await self._whole(self._end(pod))

    async def _pod(self, annotation: str, **more: Any) -> Object:
        self.pods += 1
        return await self.cluster.pod(annotation, node=self.rng.choice(self.cluster.nodes), **more)

    async def _start(self, pod: Object) -> tuple[str, ...]:
        try:
            got = await self.cluster.runtime.start(pod, line=self._line(pod))
        except WaitError as error:
            self.unstarted[str(error).partition(": ")[2][:200]] += 1
            return ()
        with suppress(NotFound):
            await self.cluster.report(pod, *got)
        return got

    async def _end(self, pod: Object) -> None:
        match self.rng.choices(("ended", "forced", "lost"), (8, 1, 1))[0]:
            case "ended":
                await self.cluster.end(pod, line=self._line(pod))
            case "forced":
                self.faults["pod deleted by force"] += 1
                if (told := await self.cluster.lose(pod)) is not None:
                    await self.cluster.runtime.release(told, line=self._line(pod), within_s=10 * POD_START_S)
            case _:
                self.faults["DEL lost"] += 1
                await self.cluster.lose(pod)

    async def _release(self, told: Told) -> None:
        if self.rng.random() < 0.1:
            self.faults["DEL lost"] += 1
        else:
            await self.cluster.runtime.release(told, line=self._line(told.pod), within_s=10 * POD_START_S)

    def _line(self, pod: Object) -> Line | None:
        """The plugin at times, and the one that dies where somebody armed it."""
        stage, node = self.cluster.stage, pod["spec"]["nodeName"]
        fuse = stage.plugin_fuse(node)
        place = stage.folder / f"{node}.sock", stage.folder / node
        if (fuse / "armed").exists():
            return Plugin(armed_plugin(fuse), *place)
        return Plugin([str(self.plugin)], *place) if self.rng.random() < PLUGIN_SHARE else None


@dataclass(slots=True)
class _Member:
    """`before` is what the last pod of this name had; `since`, how often its place had been scaled away by then."""

    name: str
    before: tuple[str, ...] = ()
    since: int = 0
    scaled_down: int = 0

    def was_due_another(self, got: tuple[str, ...]) -> bool:
        """Whether the set has counted the place all the while, and the successor should have got the same."""
        return bool(self.before) and self.since == self.scaled_down and got != self.before
