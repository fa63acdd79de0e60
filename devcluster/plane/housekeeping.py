"""What a controller-manager does for every cluster: owners' dependents, the end of namespaces and of definitions.

Driven by the store's events; each turn looks at the present state, so that a missed or repeated event does no harm.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from allocator.runtime import logs
from devcluster.plane import crds, deletion
from devcluster.plane.api import DEFINITIONS, NAMESPACES, Api, Call
from devcluster.plane.problems import Object, Problem
from devcluster.plane.registry import ResourceType
from devcluster.plane.store import Event, Key

_CALL_USER: Object = {
    "username": "system:serviceaccount:kube-system:generic-garbage-collector",
    "groups": ["system:serviceaccounts", "system:authenticated"],
}
_AGAIN_S = 1.0  # after a refusal, by a webhook say

log = logs.get_logger("devcluster.plane.housekeeping")


class Owners:
    """Who lives, and who names whom as an owner, by uid."""

    def __init__(self) -> None:
        self._alive: dict[str, Key] = {}
        self._dependents: dict[str, set[Key]] = {}

    def note(self, event: Event) -> None:
        for reference in _references(event.old):
            self._dependents.get(reference["uid"], set()).discard(event.key)
        uid = event.new["metadata"]["uid"]
        if event.kind == "DELETED":
            self._alive.pop(uid, None)
            return
        self._alive[uid] = event.key
        for reference in _references(event.new):
            self._dependents.setdefault(reference["uid"], set()).add(event.key)

    def is_alive(self, uid: str) -> bool:
        return uid in self._alive

    def key(self, uid: str) -> Key | None:
        return self._alive.get(uid)

    def dependents(self, uid: str) -> list[Key]:
        return sorted(self._dependents.get(uid, ()))


def _references(obj: Object | None) -> list[Object]:
    found: list[Object] = ((obj or {}).get("metadata") or {}).get("ownerReferences") or []
    return found


class Housekeeper:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._owners = Owners()
        self._due: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()
        api.store.subscribe(self._notice)  # from now on, for as long as the store lives

    async def run(self) -> None:
        while True:
            key = await self._due.get()
            self._queued.discard(key)
            try:
                await self._settle(key)
            except Problem as problem:
                log.info("housekeeping_postponed", key=str(key), reason=problem.message)
                asyncio.get_running_loop().call_later(_AGAIN_S, self._add, key)

    def _add(self, key: Key) -> None:
        if key not in self._queued:
            self._queued.add(key)
            self._due.put_nowait(key)

    def _notice(self, event: Event) -> None:
        self._owners.note(event)
        metadata = event.new["metadata"]
        if _references(event.new) or metadata.get("deletionTimestamp"):
            self._add(event.key)
        for reference in _references(event.old) + _references(event.new):
            if owner := self._owners.key(reference["uid"]):
                self._add(owner)  # it may wait for this dependent
        if event.kind == "DELETED":
            for key in self._owners.dependents(metadata["uid"]):
                self._add(key)
            for key in self._waiting_for(event):
                self._add(key)

    def _waiting_for(self, event: Event) -> Iterable[Key]:
        """The namespace and the definition that may be waiting for this object to go."""
        if event.key.namespace:
            yield Key(NAMESPACES, "", event.key.namespace)
        group, _, plural = event.key.collection.partition("/")
        yield Key(DEFINITIONS, "", f"{plural}.{group}")

    async def _settle(self, key: Key) -> None:
        obj, rt = self._api.store.get(key), self._api.registry.by_collection(key.collection)
        if obj is None or rt is None:
            return
        if obj["metadata"].get("deletionTimestamp"):
            await self._settle_dying(rt, key, obj)
        await self._settle_orphan(rt, key, obj)

    async def _settle_orphan(self, rt: ResourceType, key: Key, obj: Object) -> None:
        """Deletes what no living owner is left for; drops the names of dead owners while others live."""
        references = _references(obj)
        alive = [r for r in references if self._owners.is_alive(r["uid"])]
        if not references or len(alive) == len(references):
            return
        call = Call(user=_CALL_USER)
        metadata = obj["metadata"]
        if alive:
            await self._api.update(rt, key.namespace, key.name, _setting(ownerReferences=alive), call)
        elif not metadata.get("deletionTimestamp"):
            options = {"preconditions": {"uid": metadata["uid"]}, "propagationPolicy": "Background"}
            await self._delete(rt, key, options)

    async def _delete(self, rt: ResourceType, key: Key, options: Object) -> None:
        try:
            await self._api.delete(rt, key.namespace, key.name, options, Call(user=_CALL_USER))
        except Problem as problem:
            if problem.code != 404:
                raise

    async def _settle_dying(self, rt: ResourceType, key: Key, obj: Object) -> None:
        finalizers = obj["metadata"].get("finalizers") or []
        if deletion.ORPHAN in finalizers:
            await self._release_dependents(obj)
            await self._drop_finalizer(rt, key, deletion.ORPHAN)
        if deletion.FOREGROUND in finalizers and not await self._dependents_left(obj):
            await self._drop_finalizer(rt, key, deletion.FOREGROUND)
        if key.collection == NAMESPACES and not await self._content_left(key.name):
            await self._finalize_namespace(rt, key)
        if key.collection == DEFINITIONS and crds.CLEANUP in finalizers and not await self._instances_left(obj):
            await self._drop_finalizer(rt, key, crds.CLEANUP)

    async def _release_dependents(self, owner: Object) -> None:
        uid = owner["metadata"]["uid"]
        for key in self._owners.dependents(uid):
            rt, obj = self._api.registry.by_collection(key.collection), self._api.store.get(key)
            if rt and obj:
                rest = [r for r in _references(obj) if r["uid"] != uid]
                change = _setting(ownerReferences=rest)
                await self._api.update(rt, key.namespace, key.name, change, Call(user=_CALL_USER))

    async def _dependents_left(self, owner: Object) -> bool:
        """Asks the dependents to go; whether one is left that blocks its owner."""
        uid = owner["metadata"]["uid"]
        blocking = False
        for key in self._owners.dependents(uid):
            rt, obj = self._api.registry.by_collection(key.collection), self._api.store.get(key)
            if not rt or not obj:
                continue
            if not obj["metadata"].get("deletionTimestamp"):
                await self._delete(rt, key, {"propagationPolicy": "Foreground"})
            still = self._api.store.get(key)
            blocking |= any(r["uid"] == uid and r.get("blockOwnerDeletion") for r in _references(still))
        return blocking

    async def _content_left(self, namespace: str) -> bool:
        left = False
        for rt in self._api.registry.collections():
            for key, obj in self._api.store.items(rt.stored_in, namespace=namespace):
                if not obj["metadata"].get("deletionTimestamp"):
                    await self._delete(rt, key, {"propagationPolicy": "Background"})
                left |= self._api.store.get(key) is not None
        return left

    async def _instances_left(self, definition: Object) -> bool:
        spec = definition["spec"]
        rt = self._api.registry.by_collection(f"{spec['group']}/{spec['names']['plural']}")
        if rt is None:
            return False
        for key, obj in self._api.store.items(rt.stored_in):
            if not obj["metadata"].get("deletionTimestamp"):
                await self._delete(rt, key, {})
        return bool(self._api.store.items(rt.stored_in))

    async def _finalize_namespace(self, rt: ResourceType, key: Key) -> None:
        def finalize(namespace: Object) -> Object:
            return namespace | {"spec": (namespace.get("spec") or {}) | {"finalizers": []}}

        call = Call(user=_CALL_USER)
        await self._api.update(rt, "", key.name, finalize, call, subresource="finalize")

    async def _drop_finalizer(self, rt: ResourceType, key: Key, finalizer: str) -> None:
        def drop(obj: Object) -> Object:
            rest = [name for name in obj["metadata"].get("finalizers") or [] if name != finalizer]
            return _setting(finalizers=rest)(obj)

        try:
            await self._api.update(rt, key.namespace, key.name, drop, Call(user=_CALL_USER))
        except Problem as problem:
            if problem.code != 404:
                raise


def _setting(**fields: list[Any]) -> Callable[[Object], Object]:
    """A change that sets metadata fields; an empty value removes the field."""

    def change(obj: Object) -> Object:
        metadata = {key: value for key, value in (obj["metadata"] | fields).items() if value or key not in fields}
        return obj | {"metadata": metadata}

    return change
