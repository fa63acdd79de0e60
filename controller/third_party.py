"""Controllers that are not Kubernetes' own: which kinds get pools, and how many replicas they say they want.

Which those are is a setting, since the account that this runs under must be allowed to read them. Their template is
looked for where Deployments have it, and their number of replicas is what `/scale` says (autoscaling/v1).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

from allocator.kube.cache import Cache
from allocator.kube.errors import ApiError, NotFound, Unreachable
from allocator.kube.resources import Object, Resource
from allocator.kube.workloads import Workload, application_named, decode_workload, trimmed
from allocator.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from allocator.domain.applications import Application
    from allocator.kube.client import KubeClient
    from allocator.kube.view import Change
    from allocator.runtime.clock import Clock

_log = get_logger(__name__)

# How often a kind that nobody has installed is looked for.
LOOK_S: Final = 60.0
# Readers of a cache that has heard nothing for so long ask the API server instead.
STALE_S: Final = 120.0


class OnChange(Protocol):
    def __call__(self, application: Application, /, *, is_gone: bool) -> None: ...


class ThirdParty:
    """`names` are written as kubectl takes them: `plural.version.group`, or `plural.version` in the core group."""

    def __init__(self, client: KubeClient, names: Iterable[str], *, clock: Clock, on_change: OnChange) -> None:
        self._client = client
        self._names = tuple(names)
        self._clock = clock
        self._on_change = on_change
        self._caches: dict[tuple[str, str], Cache] = {}
        self._resources: dict[tuple[str, str], Resource] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name in self._names:
                group.create_task(self._follow(name), name=f"third-party-{name}")

    def knows(self, application: Application) -> bool:
        """Whether the kind is among those that get pools, and installed."""
        return (application.api_version, application.kind) in self._resources

    def shows(self, application: Application) -> bool:
        """Whether the watch shows such an object."""
        cache = self._caches.get((application.api_version, application.kind))
        return cache is not None and cache.get(application.name, application.namespace) is not None

    async def read(self, application: Application) -> Object | None:
        """The object as the API server has it now; None when there is none. KeyError unless `knows`."""
        resource = self._resources[application.api_version, application.kind]
        try:
            return await self._client.get(resource, application.name, namespace=application.namespace)
        except NotFound:
            return None

    async def workload(self, application: Application) -> Workload | None:
        """With what its scale says now: None replicas when its kind has no such subresource. KeyError as above."""
        key = application.api_version, application.kind
        resource, cache = self._resources[key], self._caches[key]
        raw = cache.get(application.name, application.namespace) if cache.staleness_s() < STALE_S else None
        raw = raw or await self.read(application)
        if raw is None:
            return None
        path = resource.path(application.namespace, application.name, "scale")
        try:
            scale = await self._client.raw("GET", path)
        except ApiError as error:
            if error.status != 404:
                raise
            return decode_workload(raw)
        return decode_workload(raw, replicas=_replicas(scale))

    async def _follow(self, name: str) -> None:
        while (resource := await self._found(name)) is None:
            await self._clock.sleep(LOOK_S)
        key = resource.api_version, resource.kind
        self._resources[key] = resource
        cache = Cache(self._client, resource, clock=self._clock, keep=trimmed, on_change=self._changed)
        self._caches[key] = cache
        await cache.run()

    async def _found(self, name: str) -> Resource | None:
        plural, version, *groups = name.split(".", 2)
        group = "".join(groups)
        try:
            listed = await self._client.raw("GET", f"/apis/{group}/{version}" if group else f"/api/{version}")
        except (ApiError, Unreachable) as error:
            if not isinstance(error, ApiError) or error.status != 404:
                _log.warning("third_party_kind_not_read", kind=name, why=str(error))
            return None
        for each in listed.get("resources") or () if isinstance(listed, dict) else ():
            if each.get("name") == plural:
                return Resource(group, version, plural, each["kind"], namespaced=bool(each.get("namespaced")))
        return None

    def _changed(self, change: Change) -> None:
        raw = change.new or change.old
        if raw is not None:
            self._on_change(application_named(raw), is_gone=change.new is None)


def _replicas(scale: Any) -> int | None:
    """kube-apiserver leaves a 0 out."""
    replicas = (scale.get("spec") or {}).get("replicas", 0) if isinstance(scale, dict) else None
    return replicas if isinstance(replicas, int) else None
