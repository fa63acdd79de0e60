"""The two webhook configurations that send the API server here, and putting them back when somebody changes them."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from allocator.kube import errors
from allocator.kube.resources import MUTATING_WEBHOOKS, SPIDERPOOL_GROUP, SPIDERPOOL_VERSION, VALIDATING_WEBHOOKS
from allocator.runtime import logs
from webhook.server import path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource
    from allocator.runtime.clock import Clock

log = logs.get_logger(__name__)

NAME: Final = "spiderpool-webhook"
ACCOUNTS: Final = ("spiderpool-agent", "spiderpool-controller", "spiderpool-webhook")
PLURALS: Final = {
    "SpiderSubnet": "spidersubnets",
    "SpiderIPPool": "spiderippools",
    "SpiderReservedIP": "spiderreservedips",
    "SpiderEndpoint": "spiderendpoints",
}
# A person waits for kubectl, and the API server for us.
TIMEOUT_S: Final = 2
# What somebody overwrites is back within 10 s.
CHECK_S: Final = 5.0
# A stop has half a minute, and an API server that is going too may not answer.
REMOVAL_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class UrlTarget:
    """Only one process: `base` is https://host:port. Registered for as long as it runs."""

    base: str

    def client_config(self, path: str) -> Object:
        return {"url": f"{self.base}{path}"}


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """Whatever pods stand behind the Service. Registered for good: other replicas go on."""

    namespace: str
    name: str = NAME
    port: int = 443

    def client_config(self, path: str) -> Object:
        service = {"namespace": self.namespace, "name": self.name, "path": path, "port": self.port}
        return {"service": service}


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What is to be registered. `namespace` is where our own accounts live, which are exempt."""

    target: UrlTarget | ServiceTarget
    namespace: str
    has_subnets: bool

    def webhooks(self, resource: Resource, ca_bundle: str) -> list[Object]:
        """Every field is written out, defaults too, so that what is stored can be compared with it."""
        is_mutating = resource == MUTATING_WEBHOOKS
        kinds = ["SpiderSubnet"] if self.has_subnets else []
        kinds += ["SpiderIPPool", "SpiderReservedIP"]
        if not is_mutating:
            kinds.append("SpiderEndpoint")
        return [self._webhook(kind, ca_bundle, is_mutating=is_mutating) for kind in kinds]

    def _webhook(self, kind: str, ca_bundle: str, *, is_mutating: bool) -> Object:
        plural = PLURALS[kind]
        operations = ["CREATE", "UPDATE"]
        if not is_mutating and kind in ("SpiderSubnet", "SpiderIPPool"):
            operations.append("DELETE")
        path = path_of(kind, "mutate" if is_mutating else "validate")
        rule = {
            "apiGroups": [SPIDERPOOL_GROUP],
            "apiVersions": [SPIDERPOOL_VERSION],
            "resources": [plural],
            "operations": operations,
            "scope": "*",
        }
        webhook: Object = {
            "name": f"{kind.lower()}.{SPIDERPOOL_GROUP}",
            "clientConfig": {
                **self.target.client_config(path),
                "caBundle": base64.b64encode(ca_bundle.encode()).decode(),
            },
            "rules": [rule],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "timeoutSeconds": TIMEOUT_S,
            # Endpoints are made by agents; a rule for edits by hand must not stand in a pod's way.
            "failurePolicy": "Ignore" if kind == "SpiderEndpoint" else "Fail",
            "matchPolicy": "Equivalent",
            "matchConditions": self._conditions("status" if kind == "SpiderEndpoint" else "spec"),
            "namespaceSelector": {},
            "objectSelector": {},
        }
        return {**webhook, "reinvocationPolicy": "IfNeeded"} if is_mutating else webhook

    def _conditions(self, part: str) -> list[Object]:
        """CEL: our own accounts and metadata (finalizers, labels) are exempt, so a dead webhook stops no pod.

        For DELETE `object` is null; the first operand keeps it from being looked at.
        """
        accounts = ", ".join(f"'system:serviceaccount:{self.namespace}:{name}'" for name in ACCOUNTS)
        return [
            {"name": "not-our-own", "expression": f"!(request.userInfo.username in [{accounts}])"},
            {
                "name": f"{part}-changes",
                "expression": (
                    f"request.operation != 'UPDATE' || !has(object.{part}) || !has(oldObject.{part})"
                    f" || object.{part} != oldObject.{part}"
                ),
            },
        ]


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
