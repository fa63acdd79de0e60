"""The two webhook configurations that send the API server here, and putting them back when somebody changes them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from allocator.kube import errors
from allocator.kube.resources import MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS
from allocator.runtime import logs
from webhook.entries import NAME, UrlTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource
    from allocator.runtime.clock import Clock
    from webhook.entries import Registration

log = logs.get_logger(__name__)

# What somebody overwrites is back within 10 s.
CHECK_S: Final = 5.0
# A stop has half a minute, and an API server that is going too may not answer.
REMOVAL_S: Final = 3.0


class Registrar:
    """Keeps the configurations as they should be. To be run once the server listens and knows its neighbours."""

    def __init__(
        self, client: KubeClient, registration: Registration, *, ca_bundle: Callable[[], str], clock: Clock
    ) -> None:
        self._client = client
        self._registration = registration
        self._ca_bundle = ca_bundle
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled. A registration by URL is taken away at the end: nobody answers there any more."""
        try:
            while True:
                await self._turn()
                log.debug("registration_checked")
                await self._clock.sleep(CHECK_S)
        finally:
            if isinstance(self._registration.target, UrlTarget):
                try:
                    async with asyncio.timeout(REMOVAL_S):
                        await self._remove()
                except TimeoutError:
                    log.warning("registration_left", error="the API server does not answer")

    async def _turn(self) -> None:
        for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
            try:
                await self._put(resource)
            except (errors.AlreadyExists, errors.Conflict, errors.NotFound):
                log.info("registration_raced", resource=resource.plural)
            except (errors.ApiError, errors.Unreachable) as error:
                log.warning("registration_failed", resource=resource.plural, error=str(error))

    async def _put(self, resource: Resource) -> None:
        webhooks = self._registration.webhooks(resource, self._ca_bundle())
        try:
            current = await self._client.get(resource, NAME)
        except errors.NotFound:
            await self._client.create(resource, _configuration(resource, webhooks))
            log.info("registered", resource=resource.plural)
            return
        if current.get("webhooks") != webhooks:
            await self._client.replace(resource, {**current, "webhooks": webhooks})
            log.info("registration_put_right", resource=resource.plural, differs=_differences(current, webhooks))

    async def _remove(self) -> None:
        for resource in (VALIDATING_WEBHOOKS, MUTATING_WEBHOOKS):
            try:
                current = await self._client.get(resource, NAME)
                if _urls(current.get("webhooks") or []) == _urls(self._registration.webhooks(resource, "")):
                    await self._client.delete(resource, NAME, uid=current["metadata"]["uid"])
                    log.info("unregistered", resource=resource.plural)
            except errors.NotFound:
                continue
            except (errors.ApiError, errors.Unreachable) as error:
                log.warning("registration_left", resource=resource.plural, error=str(error))


def _configuration(resource: Resource, webhooks: list[Object]) -> Object:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/part-of": "spiderpool"}},
        "webhooks": webhooks,
    }


def _urls(webhooks: Sequence[Object]) -> set[Any]:
    return {(webhook.get("clientConfig") or {}).get("url") for webhook in webhooks}


def _differences(current: Object, webhooks: Sequence[Object]) -> list[str]:
    """Names of the fields that differ, for the log."""
    stored = {webhook.get("name"): webhook for webhook in current.get("webhooks") or []}
    return sorted(
        f"{webhook['name']}: {key}"
        for webhook in webhooks
        for key, value in webhook.items()
        if stored.get(webhook["name"], {}).get(key) != value
    )
