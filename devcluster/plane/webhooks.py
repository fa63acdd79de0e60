"""Admission webhooks: called over TLS with their caBundle, judged as kube-apiserver judges their answers."""

import asyncio
import base64
import binascii
import json
import ssl
import uuid
from collections.abc import Mapping
from typing import Any

import aiohttp
import jsonpatch

from allocator.runtime import logs
from devcluster.plane import problems, scales
from devcluster.plane.api import NAMESPACES, Api, Attributes, clone
from devcluster.plane.problems import Object, Problem
from devcluster.plane.webhook_rules import Phase, Webhook, matches

log = logs.get_logger("devcluster.plane.webhooks")


class CallFailed(Exception):
    """The webhook gave no usable answer; failurePolicy decides what that means."""


class Webhooks:
    """The `Admission` of a plane that serves real webhooks."""

    def __init__(self, api: Api, session: aiohttp.ClientSession) -> None:
        self._api = api
        self._session = session
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def mutate(self, attributes: Attributes, obj: Object | None) -> Object | None:
        """Each webhook sees what those before it made of the object; those that asked for it get a second look."""
        concerned = self._concerned("mutating", attributes, obj)
        last_change = 0
        for at, webhook in enumerate(concerned):
            patched = await self._mutate_once(webhook, attributes, obj)
            last_change = at if patched != obj else last_change
            obj = patched
        for webhook in concerned[:last_change]:
            if webhook.spec.get("reinvocationPolicy") == "IfNeeded":
                obj = await self._mutate_once(webhook, attributes, obj)
        return obj

    async def validate(self, attributes: Attributes, obj: Object | None) -> None:
        """All at once. When several refuse, the first in order is told."""
        concerned = self._concerned("validating", attributes, obj)
        if not concerned:
            return
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._verdict(w, attributes, obj), name=f"webhook {w.name}") for w in concerned]
        for verdict in [task.result() for task in tasks]:
            if verdict is not None:
                raise verdict

    def _concerned(self, phase: Phase, attributes: Attributes, obj: Object | None) -> list[Webhook]:
        collection = f"admissionregistration.k8s.io/{phase}webhookconfigurations"
        webhooks = [
            Webhook(phase, configuration["metadata"]["name"], spec)
            for _, configuration in self._api.store.items(collection)
            for spec in configuration.get("webhooks") or []
        ]
        return [w for w in webhooks if matches(w, attributes, obj, self._namespace_labels)]

    def _namespace_labels(self, name: str) -> Mapping[str, str]:
        rt = self._api.registry.by_collection(NAMESPACES)
        found = self._api.store.get(rt.key("", name)) if rt else None
        labels: Mapping[str, str] = (found or {}).get("metadata", {}).get("labels") or {}
        return labels

    async def _verdict(self, webhook: Webhook, attributes: Attributes, obj: Object | None) -> Problem | None:
        try:
            await self._review(webhook, attributes, obj)
        except Problem as problem:
            return problem
        return None

    async def _mutate_once(self, webhook: Webhook, attributes: Attributes, obj: Object | None) -> Object | None:
        response = await self._review(webhook, attributes, obj)
        if not response or not response.get("patch") or obj is None:
            return obj
        try:
            operations = json.loads(base64.b64decode(response["patch"], validate=True))
            patched = jsonpatch.apply_patch(clone(obj), operations)
        except (ValueError, binascii.Error, jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
            self._failed(webhook, CallFailed(f"invalid patch: {error}"))
            return obj
        return patched if isinstance(patched, dict) else obj

    async def _review(self, webhook: Webhook, attributes: Attributes, obj: Object | None) -> Object | None:
        """The `response` of an AdmissionReview that allows; None when a failure is ignored. Problem when denied."""
        if attributes.call.dry_run and not webhook.serves_dry_run:
            raise problems.bad_request(f'admission webhook "{webhook.name}" does not support dry run')
        request = _request(attributes, obj)
        try:
            response = _checked(await self._post(webhook, request), request["uid"])
        except CallFailed as error:
            self._failed(webhook, error)
            return None
        attributes.call.warnings.extend(str(text) for text in response.get("warnings") or [])
        if not response["allowed"]:
            raise _denial(webhook, response.get("status"))
        return response

    def _failed(self, webhook: Webhook, error: CallFailed) -> None:
        log.warning("webhook_failed", webhook=webhook.name, ignored=webhook.ignores_failure, error=str(error))
        if not webhook.ignores_failure:
            raise problems.internal(f'failed calling webhook "{webhook.name}": {error}') from error

    async def _post(self, webhook: Webhook, request: Object) -> Any:
        config = webhook.spec.get("clientConfig") or {}
        url = f"{_url(config)}?timeout={webhook.timeout_s:g}s"
        if config.get("service"):
            why = "the embedded plane has no service network: register the webhook by url"
            raise CallFailed(f'failed to call webhook: Post "{url}": {why}')
        review = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
        context = self._context(config.get("caBundle") or "")
        try:
            async with (
                asyncio.timeout(webhook.timeout_s),
                self._session.post(url, json=review, ssl=context, allow_redirects=False) as response,
            ):
                answer = await response.read()
        except TimeoutError as error:
            raise CallFailed(f'failed to call webhook: Post "{url}": context deadline exceeded') from error
        except (aiohttp.ClientError, OSError) as error:
            raise CallFailed(f'failed to call webhook: Post "{url}": {error}') from error
        if response.status != 200:
            text = json.dumps(answer[:500].decode(errors="replace").strip())
            raise CallFailed(f"failed to call webhook: an error on the server ({text}), HTTP {response.status}")
        try:
            return json.loads(answer)
        except ValueError as error:
            raise CallFailed(f"failed to call webhook: couldn't decode the answer as JSON: {error}") from error

    def _context(self, bundle: str) -> ssl.SSLContext:
        if bundle not in self._contexts:
            try:
                pem = base64.b64decode(bundle).decode("ascii") if bundle else None
                self._contexts[bundle] = ssl.create_default_context(cadata=pem)
            except (ValueError, ssl.SSLError) as error:
                raise CallFailed(f"unable to load root certificates: {error}") from error
        return self._contexts[bundle]


def _url(config: Object) -> str:
    if service := config.get("service"):
        host = f"{service['name']}.{service['namespace']}.svc:{service.get('port', 443)}"
        return f"https://{host}{service.get('path') or ''}"
    return str(config.get("url") or "")


def _request(attributes: Attributes, obj: Object | None) -> Object:
    rt, call = attributes.rt, attributes.call
    shown = scales.TYPE if attributes.subresource == "scale" else rt
    kind = {"group": shown.group, "version": shown.version, "kind": shown.kind}
    resource = {"group": rt.group, "version": rt.version, "resource": rt.plural}
    options = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}
    request: Object = {
        "uid": str(uuid.uuid4()),
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "name": attributes.name,
        "operation": attributes.operation,
        "userInfo": call.user,
        "object": obj,
        "oldObject": attributes.old,
        "dryRun": call.dry_run,
        "options": {
            "kind": options.get(attributes.operation, "CreateOptions"),
            "apiVersion": "meta.k8s.io/v1",
            **call.options,
        },
    }
    if rt.namespaced:
        request["namespace"] = attributes.namespace
    elif attributes.rt.stored_in == NAMESPACES:
        request["namespace"] = attributes.name
    if attributes.subresource:
        request |= {"subResource": attributes.subresource, "requestSubResource": attributes.subresource}
    return request


def _checked(review: Any, uid: str) -> Object:
    response = review.get("response") if isinstance(review, dict) else None
    if not isinstance(response, dict):
        raise CallFailed("received invalid webhook response: webhook response was absent")
    if response.get("uid") != uid:
        given = response.get("uid") or ""
        raise CallFailed(f'received invalid webhook response: expected response.uid="{uid}", got "{given}"')
    wanted = ("admission.k8s.io/v1", "AdmissionReview")
    if (review.get("apiVersion"), review.get("kind")) != wanted:
        raise CallFailed(
            "received invalid webhook response: expected webhook response of admission.k8s.io/v1, "
            f"Kind=AdmissionReview, got {review.get('apiVersion')}, Kind={review.get('kind')}"
        )
    if response.get("patch") and response.get("patchType") != "JSONPatch":
        raise CallFailed(
            "received invalid webhook response: webhook returned response.patch but not response.patchType"
        )
    return response | {"allowed": bool(response.get("allowed"))}


def _denial(webhook: Webhook, status: Any) -> Problem:
    status = status if isinstance(status, dict) else {}
    refused = f'admission webhook "{webhook.name}" denied the request'
    why = status.get("message") or status.get("reason")
    code = int(status.get("code") or 0)
    return Problem(
        max(code, 400),
        str(status.get("reason") or ""),
        f"{refused}: {why}" if why else f"{refused} without explanation",
        details=status.get("details"),
    )
