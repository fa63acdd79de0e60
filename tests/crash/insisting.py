"""The API server for somebody who knows that it may be away for a while: people, kubelets and the tests' own eyes."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from allocator.kube.errors import AlreadyExists, ApiError, NotFound, ServerError, TooManyRequests, Unreachable
from allocator.runtime.backoff import delays

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource

T = TypeVar("T")

# Longer than any outage that a test makes.
WITHIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Insisting:
    kube: KubeClient

    async def create(self, resource: Resource, obj: Object) -> Object:
        """Also where an earlier try had landed and its answer was lost."""
        meta = obj["metadata"]

        async def attempt() -> Object:
            try:
                return await self.kube.create(resource, obj)
            except AlreadyExists:
                return await self.kube.get(resource, meta["name"], namespace=meta.get("namespace"))

        return await self._until_answered(attempt)

    async def patch(self, resource: Resource, obj: Object, body: Object, *, subresource: str | None = None) -> Object:
        meta = obj["metadata"]
        place = {"namespace": meta.get("namespace"), "subresource": subresource}
        return await self._until_answered(lambda: self.kube.patch(resource, meta["name"], body, **place))

    async def delete(self, resource: Resource, obj: Object, *, grace_period_s: int | None = None) -> None:
        meta = obj["metadata"]

        async def attempt() -> None:
            try:
                await self.kube.delete(
                    resource,
                    meta["name"],
                    namespace=meta.get("namespace"),
                    uid=meta.get("uid"),
                    grace_period_s=grace_period_s,
                )
            except NotFound:
                return

        await self._until_answered(attempt)

    async def find(self, resource: Resource, name: str, namespace: str | None = None) -> Object | None:
        async def attempt() -> Object | None:
            try:
                return await self.kube.get(resource, name, namespace=namespace)
            except NotFound:
                return None

        return await self._until_answered(attempt)

    async def items(self, resource: Resource, **selectors: Any) -> list[Object]:
        """Everything, live; nothing of a kind that is not installed."""

        async def attempt() -> list[Object]:
            try:
                return (await self.kube.list_all(resource, **selectors))[0]
            except ApiError as error:
                if error.status == 404:
                    return []
                raise

        return await self._until_answered(attempt)

    async def _until_answered(self, attempt: Callable[[], Awaitable[T]]) -> T:
        deadline = asyncio.get_running_loop().time() + WITHIN_S
        for delay in delays(base_s=0.1, cap_s=1.0, rng=random.SystemRandom()):
            try:
                return await attempt()
            except (Unreachable, ServerError, TooManyRequests):
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(delay)
        raise AssertionError("delays() never ends")
