"""Pools, reservations and endpoints on the API server."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.domain.addresses import version_of
from allocator.kube.cache import Cache
from allocator.kube.codec import (
    Malformed,
    decode_edition,
    decode_endpoint,
    decode_pool,
    decode_purpose,
    decode_reservation,
    encode_endpoint,
    endpoint_uid,
    reserving_nothing,
    unreadable_pool,
)
from allocator.kube.errors import AlreadyExists, ApiError, Conflict, NotFound, Unreachable
from allocator.kube.fences import no_fence
from allocator.kube.patience import patiently
from allocator.kube.pool_news import PoolNews
from allocator.kube.resources import PODS, SPIDER_ENDPOINTS, SPIDER_IP_POOLS, SPIDER_RESERVED_IPS, SPIDER_SUBNETS
from allocator.runtime.logs import get_logger

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from allocator.domain.addresses import Address, Version
    from allocator.domain.applications import Application
    from allocator.domain.endpoint import Endpoint
    from allocator.domain.pool import Edition, Pool, Reservation
    from allocator.domain.record import Holder
    from allocator.domain.request import Pod
    from allocator.kube.client import KubeClient
    from allocator.kube.fences import Fence
    from allocator.kube.resources import Object, Resource
    from allocator.kube.view import Change
    from allocator.ports import News
    from allocator.runtime.clock import Clock

_log = get_logger(__name__)

# Above this many changed pools one list is cheaper than a read of each.
READ_ONE_BY_ONE: Final = 20
# Rewriting an endpoint against somebody who writes it too: more tries than two parties ever need.
ENDPOINT_TRIES: Final = 5


class KubePools:
    """Watches pools as metadata only, since their status changes all the time, and reads a pool when its spec did."""

    def __init__(self, client: KubeClient, *, clock: Clock, rng: random.Random) -> None:
        self._client = client
        self._clock = clock
        self._rng = rng
        self._pools: dict[str, Pool] = {}
        self._changed: set[str] = set()
        # Who asks while pools are being read waits for them: half a picture would refuse pods.
        self._reading = asyncio.Lock()
        self._news = PoolNews()
        self.cache = Cache(client, SPIDER_IP_POOLS, clock=clock, metadata_only=True, on_change=self._on_change)

    async def current(self) -> Mapping[str, Pool]:
        if not self._changed and not self._reading.locked():
            return self._pools
        async with self._reading:
            if len(self._changed) > READ_ONE_BY_ONE:
                await self._read_all()
            for name in sorted(self._changed):
                await self._read_one(name)
            return self._pools

    async def edition(self, name: str) -> Edition | None:
        raw = await self._metadata(SPIDER_IP_POOLS, name)
        return None if raw is None else decode_edition(raw)

    def news_of(self, application: Application) -> AbstractContextManager[News]:
        return self._news.of(application)

    async def has_subnet(self, name: str) -> bool:
        return await self._metadata(SPIDER_SUBNETS, name) is not None

    async def reread(self, name: str) -> None:
        async with self._reading:
            await self._read_one(name)

    async def _metadata(self, resource: Resource, name: str) -> Object | None:
        async def attempt() -> Object | None:
            try:
                return await self._client.get(resource, name, metadata_only=True)
            except NotFound:
                return None

        return await patiently(f"read {resource.kind} {name}", attempt, clock=self._clock, rng=self._rng)

    async def _read_one(self, name: str) -> None:
        async def attempt() -> Object | None:
            try:
                return await self._client.get(SPIDER_IP_POOLS, name)
            except NotFound:
                return None

        # Taken off first: a change that the watch shows while this reads puts the name back.
        self._changed.discard(name)
        try:
            raw = await patiently(f"read SpiderIPPool {name}", attempt, clock=self._clock, rng=self._rng)
        except BaseException:
            self._changed.add(name)
            raise
        # A new mapping: a plan that is being carried out goes on with the one it was made from.
        others = {key: pool for key, pool in self._pools.items() if key != name}
        self._pools = others if raw is None else dict([*others.items(), _read(raw)])

    async def _read_all(self) -> None:
        async def attempt() -> list[Object]:
            items, _ = await self._client.list_all(SPIDER_IP_POOLS)
            return items

        changed, self._changed = self._changed, set()
        try:
            raws = await patiently("list SpiderIPPools", attempt, clock=self._clock, rng=self._rng)
        except BaseException:
            self._changed |= changed
            raise
        self._pools = dict(map(_read, raws))

    def _on_change(self, change: Change) -> None:
        raw = change.new or change.old
        if raw is None:
            return
        name = raw["metadata"]["name"]
        known = self._pools.get(name)
        if (
            change.new is None
            or known is None
            or known.edition != decode_edition(change.new)
            # A pool that outlives its application is the next one's by its labels, which the generation does not count.
            or known.purpose != decode_purpose(change.new)
        ):
            self._changed.add(name)
        self._news.tell(change)


def _read(raw: Object) -> tuple[str, Pool]:
    name = raw["metadata"]["name"]
    try:
        return name, decode_pool(raw)
    except Malformed as error:
        _log.error("pool_unreadable", why=str(error))
        return name, unreadable_pool(raw, str(error))


class KubeReservations:
    def __init__(self, client: KubeClient, *, clock: Clock, rng: random.Random) -> None:
        self._client = client
        self._clock = clock
        self._rng = rng
        self._current: tuple[Reservation, ...] | None = None
        self.cache = Cache(client, SPIDER_RESERVED_IPS, clock=clock, on_change=self._on_change)

    def current(self) -> Sequence[Reservation]:
        if self._current is None:
            self._current = _reservations(self.cache.items())
        return self._current

    async def editions(self) -> frozenset[tuple[str, Edition]]:
        raws = await self._list(metadata_only=True)
        return frozenset((raw["metadata"]["name"], decode_edition(raw)) for raw in raws)

    async def reread(self) -> None:
        self._current = _reservations(await self._list(metadata_only=False))

    async def _list(self, *, metadata_only: bool) -> list[Object]:
        async def attempt() -> list[Object]:
            items, _ = await self._client.list_all(SPIDER_RESERVED_IPS, metadata_only=metadata_only)
            return items

        return await patiently("list SpiderReservedIPs", attempt, clock=self._clock, rng=self._rng)

    def _on_change(self, _change: Change) -> None:
        self._current = None


def _reservations(raws: Sequence[Object]) -> tuple[Reservation, ...]:
    """One that cannot be read is said, and reserves nothing: to refuse every pod because of it would be worse."""
    found = []
    for raw in sorted(raws, key=lambda raw: str(raw["metadata"]["name"])):
        try:
            found.append(decode_reservation(raw))
        except Malformed as error:
            _log.error("reservation_unreadable", why=str(error))
            found.append(reserving_nothing(raw))
    return tuple(found)


class KubeEndpoints:
    """SpiderEndpoints are derived from the records: what is there is made to say what the records say.

    `fence` as in KubeLedger.
    """

    def __init__(self, client: KubeClient, *, clock: Clock, rng: random.Random, fence: Fence = no_fence) -> None:
        self._client = client
        self._clock = clock
        self._rng = rng
        self._fence = fence

    async def write(self, endpoint: Endpoint) -> None:
        what = f"write SpiderEndpoint {endpoint.pod.namespace}/{endpoint.name}"
        for _ in range(ENDPOINT_TRIES):
            if await patiently(what, lambda: self._write_once(endpoint), clock=self._clock, rng=self._rng):
                return
        raise errors.Unavailable(f"{what}: somebody else keeps changing it")

    async def mend(self, seen: Object | None, endpoint: Endpoint) -> None:
        """Make the endpoint say this where it still is as it was `seen` (None: not there); else errors.Conflict."""
        wanted = encode_endpoint(endpoint)
        try:
            if seen is not None and not _must_go(seen, wanted, endpoint):
                await self._replace(seen, wanted)
                return
            if seen is not None:
                await self._delete(seen)
            self._fence()
            await self._client.create(SPIDER_ENDPOINTS, wanted)
        except (AlreadyExists, Conflict, NotFound) as error:
            raise _changed(endpoint.pod.namespace, endpoint.name) from error
        except (ApiError, Unreachable) as error:
            raise errors.Unavailable(
                f"mend SpiderEndpoint {endpoint.pod.namespace}/{endpoint.name}: {error}"
            ) from error

    async def discard(self, seen: Object) -> None:
        """Remove the endpoint where it still is as it was `seen`; else errors.Conflict."""
        meta = seen["metadata"]
        try:
            await self._delete(seen)
        except (Conflict, NotFound) as error:
            raise _changed(meta["namespace"], meta["name"]) from error
        except (ApiError, Unreachable) as error:
            raise errors.Unavailable(f"delete SpiderEndpoint {meta['namespace']}/{meta['name']}: {error}") from error

    async def remove(self, namespace: str, name: str, pod_uid: str) -> None:
        async def attempt() -> bool:
            try:
                found = await self._client.get(SPIDER_ENDPOINTS, name, namespace=namespace)
                if endpoint_uid(found) == pod_uid:
                    await self._delete(found)
            except NotFound:
                return True
            except Conflict:
                # Changed, and by now another pod's, maybe.
                return False
            return True

        what = f"delete SpiderEndpoint {namespace}/{name}"
        for _ in range(ENDPOINT_TRIES):
            if await patiently(what, attempt, clock=self._clock, rng=self._rng):
                return
        raise errors.Unavailable(f"{what}: somebody else keeps changing it")

    async def addresses(self, namespace: str, name: str) -> Mapping[tuple[str, Version], Address]:
        async def attempt() -> Object:
            try:
                return await self._client.get(SPIDER_ENDPOINTS, name, namespace=namespace)
            except NotFound:
                return {}

        what = f"read SpiderEndpoint {namespace}/{name}"
        found = await patiently(what, attempt, clock=self._clock, rng=self._rng)
        return {(each.interface, version_of(each.address)): each.address for each in decode_endpoint(found)}

    async def hand_over(self, namespace: str, name: str, pod_uid: str, heir: Holder) -> None:
        async def attempt() -> None:
            try:
                found = await self._client.get(SPIDER_ENDPOINTS, name, namespace=namespace)
                if endpoint_uid(found) == pod_uid:
                    version = {"resourceVersion": found["metadata"]["resourceVersion"]}
                    current = {"uid": heir.pod_uid, "node": heir.node}
                    patch = {"metadata": version, "status": {"current": current}}
                    self._fence()
                    await self._client.patch(SPIDER_ENDPOINTS, name, patch, namespace=namespace)
            except (NotFound, Conflict):
                # Gone, or written by somebody who knows better.
                return

        what = f"write SpiderEndpoint {namespace}/{name}"
        await patiently(what, attempt, clock=self._clock, rng=self._rng)

    async def _write_once(self, endpoint: Endpoint) -> bool:
        wanted = encode_endpoint(endpoint)
        self._fence()
        try:
            await self._client.create(SPIDER_ENDPOINTS, wanted)
        except AlreadyExists:
            return await self._rewrite(wanted, endpoint)
        except (Conflict, NotFound):
            # A quota that is being counted, or a namespace that is going: the next try, or the pod's end, shows it.
            return False
        return True

    async def _rewrite(self, wanted: Object, endpoint: Endpoint) -> bool:
        """Bring the endpoint that exists in line; False when it changed meanwhile, or had to go first.

        errors.PodGone when it is a successor's: this write comes late, from the ADD of a pod deleted by force.
        """
        meta = wanted["metadata"]
        try:
            found = await self._client.get(SPIDER_ENDPOINTS, meta["name"], namespace=meta["namespace"])
            # In this order: a name is one pod's at a time, so who had the endpoint while this pod stands came before.
            if endpoint_uid(found) not in ("", endpoint.pod.uid) and not await self._stands(endpoint.pod):
                raise errors.PodGone(f"pod {endpoint.pod.namespace}/{endpoint.pod.name} ended during its ADD")
            if _must_go(found, wanted, endpoint):
                await self._delete(found)
                return False
            await self._replace(found, wanted)
        except (NotFound, Conflict):
            return False
        return True

    async def _replace(self, found: Object, wanted: Object) -> None:
        _keep_clean_gateways(found, wanted)
        owners = {key: wanted["metadata"][key] for key in ("ownerReferences",) if key in wanted["metadata"]}
        kept = {key: value for key, value in found["metadata"].items() if key != "ownerReferences"}
        if {**kept, **owners} != found["metadata"] or found.get("status") != wanted["status"]:
            self._fence()
            await self._client.replace(SPIDER_ENDPOINTS, {**wanted, "metadata": {**kept, **owners}})

    async def _stands(self, pod: Pod) -> bool:
        try:
            found = await self._client.get(PODS, pod.name, namespace=pod.namespace, metadata_only=True)
        except NotFound:
            return False
        return bool(found["metadata"]["uid"] == pod.uid)

    async def _delete(self, found: Object) -> None:
        meta = found["metadata"]
        if meta.get("finalizers"):
            # The original's agents put a finalizer there, and no one else is left to take it off.
            without = {"metadata": {"finalizers": None, "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}}
            self._fence()
            freed = await self._client.patch(SPIDER_ENDPOINTS, meta["name"], without, namespace=meta["namespace"])
            meta = freed["metadata"]
        self._fence()
        with suppress(NotFound):
            # A static pod's endpoint is its successor's by the same UID: only the version tells them apart.
            await self._client.delete(
                SPIDER_ENDPOINTS,
                meta["name"],
                namespace=meta["namespace"],
                uid=meta["uid"],
                resource_version=meta["resourceVersion"],
            )


def _must_go(found: Object, wanted: Object, endpoint: Endpoint) -> bool:
    """Whether another one has to be made in its place: a predecessor's, which the garbage collector may be after, by
    uid.
    """
    same_owner = found["metadata"].get("ownerReferences", []) == wanted["metadata"].get("ownerReferences", [])
    return bool(found["metadata"].get("deletionTimestamp")) or not (same_owner or endpoint.is_static)


def _changed(namespace: str, name: str) -> errors.Conflict:
    return errors.Conflict(f"SpiderEndpoint {namespace}/{name} changed since it was read")


def _keep_clean_gateways(found: Object, wanted: Object) -> None:
    """Only an interface's own ADD knows whether its gateway is clean: for the others, what is there stays."""
    said = {entry["interface"]: entry for entry in _interfaces(found)}
    for entry in _interfaces(wanted):
        before = said.get(entry["interface"], {})
        if "cleanGateway" not in entry and "cleanGateway" in before:
            entry["cleanGateway"] = before["cleanGateway"]


def _interfaces(endpoint: Object) -> list[Object]:
    current = (endpoint.get("status") or {}).get("current") or {}
    return list(current.get("ips") or [])
