"""Look at the caches after every change, ask all controllers, do what they ask.

One pass sees everything: with the few hundred objects of a devcluster that is cheaper than to keep books of what
changed. Decisions are safe to repeat, and what this process wrote is in the caches before the next pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, assert_never

from allocator.kube import errors, resources
from allocator.kube.cache import Cache, Change
from allocator.runtime import logs
from devcluster.workloads import (
    cronjobs,
    daemonsets,
    deployments,
    garbage,
    jobs,
    replicasets,
    scheduling,
    statefulsets,
)
from devcluster.workloads.world import Action, Bind, Collect, Create, Delete, Update, World, key_of

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from allocator.kube.events import Recorder
    from allocator.kube.resources import Object, Resource
    from allocator.runtime.clock import Clock

log = logs.get_logger(__name__)

Plan = Callable[[World], Iterator[Action]]

# What kube-controller-manager does, and what kube-scheduler does.
CONTROLLERS: tuple[Plan, ...] = (
    deployments.plan,
    replicasets.plan,
    statefulsets.plan,
    daemonsets.plan,
    cronjobs.plan,
    jobs.plan,
    garbage.plan,
)
SCHEDULER: tuple[Plan, ...] = (scheduling.plan,)

PARALLEL_WRITES = 16
# How long an owner whose pod was refused, or a write that failed, waits for its next try.
REFUSED_PAUSE_S = 2.0

KINDS = (
    resources.DEPLOYMENTS,
    resources.REPLICA_SETS,
    resources.STATEFUL_SETS,
    resources.DAEMON_SETS,
    resources.CRON_JOBS,
    resources.JOBS,
    resources.PODS,
    resources.NODES,
)


class Manager:
    def __init__(self, client: KubeClient, plans: tuple[Plan, ...], *, events: Recorder, clock: Clock) -> None:
        self._client, self._plans, self._events, self._clock = client, plans, events, clock
        self._woken = asyncio.Event()
        self._caches = {kind: Cache(client, kind, clock=clock, on_change=self._changed) for kind in KINDS}
        self._assumed: dict[str, str] = {}
        self._paused: dict[str, float] = {}  # owner UID -> monotonic time of its next try
        self._writes = asyncio.Semaphore(PARALLEL_WRITES)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind, cache in self._caches.items():
                group.create_task(cache.run(), name=f"cache {kind.plural}")
            for cache in self._caches.values():
                await cache.wait_synced()
            while True:
                self._woken.clear()
                await self._pass(self._world())
                await self._wait()

    async def _wait(self) -> None:
        moment = self._clock.monotonic()
        due = [at - moment for at in self._paused.values()]
        try:
            async with asyncio.timeout(max(min(due), 0.0) if due else None):
                await self._woken.wait()
        except TimeoutError:
            return

    def _changed(self, change: Change) -> None:
        seen = change.new or change.old
        if seen is not None and (change.new is None or seen.get("spec", {}).get("nodeName")):
            self._assumed.pop(seen["metadata"]["uid"], None)
        self._woken.set()

    def _world(self) -> World:
        return World(
            now=self._clock.now(),
            deployments=self._caches[resources.DEPLOYMENTS].items(),
            replica_sets=self._caches[resources.REPLICA_SETS].items(),
            stateful_sets=self._caches[resources.STATEFUL_SETS].items(),
            daemon_sets=self._caches[resources.DAEMON_SETS].items(),
            cron_jobs=self._caches[resources.CRON_JOBS].items(),
            jobs=self._caches[resources.JOBS].items(),
            pods=self._caches[resources.PODS].items(),
            nodes=self._caches[resources.NODES].items(),
            assumed=self._assumed,
        )

    async def _pass(self, world: World) -> None:
        moment = self._clock.monotonic()
        self._paused = {uid: at for uid, at in self._paused.items() if at > moment}
        actions = [action for plan in self._plans for action in plan(world)]
        async with asyncio.TaskGroup() as group:
            for action in actions:
                if _subject(action)["metadata"]["uid"] not in self._paused:
                    group.create_task(self._do(action), name=f"{type(action).__name__} {key_of(_subject(action))}")

    async def _do(self, action: Action) -> None:
        try:
            async with self._writes:
                await self._write(action)
        except (errors.Conflict, errors.NotFound, errors.AlreadyExists):
            return  # the cache was behind; the change that it has not seen yet wakes the next pass
        except (errors.ApiError, errors.Unreachable) as error:
            subject = _subject(action)
            log.warning("workload_write_failed", object=key_of(subject), action=type(action).__name__, error=str(error))
            self._paused[subject["metadata"]["uid"]] = self._clock.monotonic() + REFUSED_PAUSE_S
            if isinstance(action, Create):
                self._events.emit(
                    regarding=subject,
                    reason="FailedCreate",
                    message=f"Error creating {action.obj['kind']}: {error}",
                    type="Warning",
                    action="Create",
                )

    async def _write(self, action: Action) -> None:
        match action:
            case Create():
                created = await self._client.create(action.resource, action.obj)
                self._caches[action.resource].note(created)
            case Update():
                await self._update(action)
            case Delete():
                await self._delete(action.resource, action.obj)
            case Bind():
                await self._bind(action)
            case Collect():
                if await self._is_orphan(action):
                    await self._delete(action.resource, action.obj)
            case _:
                assert_never(action)

    async def _update(self, action: Update) -> None:
        meta = action.obj["metadata"]
        body = {**action.body, "metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}}
        updated = await self._client.patch(
            action.resource, meta["name"], body, namespace=meta["namespace"], subresource=action.subresource
        )
        self._caches[action.resource].note(updated)

    async def _delete(self, resource: Resource, obj: Object) -> None:
        meta = obj["metadata"]
        answer = await self._client.delete(
            resource, meta["name"], namespace=meta["namespace"], uid=meta["uid"], propagation="Background"
        )
        if (answer.get("metadata") or {}).get("deletionTimestamp"):
            self._caches[resource].note(answer)
        else:
            self._caches[resource].note_deleted(meta["name"], meta["uid"], meta["namespace"])

    async def _bind(self, action: Bind) -> None:
        meta = action.pod["metadata"]
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": action.node},
        }
        path = resources.PODS.path(meta["namespace"], meta["name"], "binding")
        self._assumed[meta["uid"]] = action.node
        try:
            await self._client.raw("POST", path, body=body)
        except (errors.ApiError, errors.Unreachable):
            self._assumed.pop(meta["uid"], None)
            raise

    async def _is_orphan(self, action: Collect) -> bool:
        """The caches are filled one after the other: only a live read tells that an owner is gone."""
        resource = garbage.KINDS[action.controller["kind"]]
        namespace = action.obj["metadata"]["namespace"]
        try:
            owner = await self._client.get(resource, action.controller["name"], namespace=namespace, metadata_only=True)
        except errors.NotFound:
            return True
        return bool(owner["metadata"]["uid"] != action.controller["uid"])


def _subject(action: Action) -> Object:
    match action:
        case Create(owner=owner):
            return owner
        case Bind(pod=pod):
            return pod
        case Update(obj=obj) | Delete(obj=obj) | Collect(obj=obj):
            return obj
        case _:
            assert_never(action)
