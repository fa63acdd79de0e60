"""Admission webhooks: called over TLS, obeyed, and what happens when they do not answer."""

import asyncio
import base64
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from allocator.kube import resources
from allocator.kube.client import KubeClient
from allocator.kube.errors import ApiError, Forbidden, Invalid, ServerError
from allocator.kube.resources import Object, Resource
from devcluster.plane import Plane, tls
from tests.plane.support import config_map, eventually, is_gone, request, widget

CM = resources.CONFIG_MAPS
Answer = Callable[[Object], Object]


@dataclass(slots=True)
class Hook:
    """A webhook server: `answer` makes the response, `seen` keeps the requests."""

    url: str
    bundle: str
    answer: Answer = lambda _: {"allowed": True}
    seen: list[Object] = field(default_factory=list)
    delay: asyncio.Event | None = None

    async def review(self, http: web.Request) -> web.Response:
        review = await http.json()
        self.seen.append(review["request"] | {"timeout": http.query.get("timeout"), "of": http.match_info["name"]})
        if self.delay:
            await self.delay.wait()
        response = {"uid": review["request"]["uid"]} | self.answer(review["request"])
        return web.json_response({k: review[k] for k in ("apiVersion", "kind")} | {"response": response})


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Hook]:
    authority = tls.Authority("test-webhook-ca")
    certificate, key = authority.issue("webhook", hosts=("127.0.0.1",))
    pair = directory / "hook.pem"
    pair.write_bytes(certificate + key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair)
    hook = Hook("", base64.b64encode(authority.pem).decode())
    app = web.Application()
    app.router.add_post("/review/{name}", hook.review)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    hook.url = f"https://127.0.0.1:{runner.addresses[0][1]}/review"
    try:
        yield hook
    finally:
        await runner.cleanup()


@pytest.fixture
async def hook(tmp_path: Path) -> AsyncIterator[Hook]:
    async with serving(tmp_path) as served:
        yield served


Register = Callable[..., Any]


@pytest.fixture
def register(kube: KubeClient, namespace: str, hook: Hook) -> Register:
    """Registers the hook for config maps and widgets of the test's namespace; waits until it is called."""

    async def run(phase: str, *, name: str = "test.example.com", **changes: Any) -> None:
        resource = resources.MUTATING_WEBHOOKS if phase == "mutating" else resources.VALIDATING_WEBHOOKS
        rule = {"apiGroups": ["", "test.example.com"], "apiVersions": ["v1"], "resources": ["configmaps", "widgets"]}
        webhook = {
            "name": name,
            "clientConfig": {"url": f"{hook.url}/{name}", "caBundle": hook.bundle},
            "rules": [rule | {"operations": ["CREATE", "UPDATE", "DELETE"]}],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "timeoutSeconds": 5,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        } | changes
        body = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": resource.kind,
            "metadata": {"name": f"{phase}-{name}"},
            "webhooks": [webhook],
        }
        await kube.create(resource, body)
        if "clientConfig" in changes:
            return  # nobody will be called

        # A real server takes a moment until it knows a new webhook: probe until it calls.
        async def known() -> bool:
            probe = config_map("probe", namespace, labels={"probe": "yes"})
            try:
                await kube.create(CM, probe, dry_run=True)
            except ApiError:
                return True
            return name in [review["of"] for review in hook.seen]

        await eventually(known)
        hook.seen.clear()

    return run


def patching(*operations: Object) -> Answer:
    patch = base64.b64encode(json.dumps(operations).encode()).decode()
    return lambda _: {"allowed": True, "patchType": "JSONPatch", "patch": patch}


async def test_a_mutating_webhook_patches_the_object(
    kube: KubeClient, widgets: Resource, namespace: str, hook: Hook, register: Register
) -> None:
    await register("mutating")
    hook.answer = patching(
        {"op": "add", "path": "/spec/size", "value": 3}, {"op": "add", "path": "/spec/no", "value": 1}
    )
    made = await kube.create(widgets, widget("one", namespace))
    assert made["spec"] == {"color": "red", "size": 3}


async def test_what_a_webhook_patches_must_fit_the_schema(
    kube: KubeClient, widgets: Resource, namespace: str, hook: Hook, register: Register
) -> None:
    await register("mutating")
    hook.answer = patching({"op": "replace", "path": "/spec/color", "value": "blue"})
    with pytest.raises(Invalid, match=r'spec\.color: Unsupported value: "blue"'):
        await kube.create(widgets, widget("one", namespace))


async def test_a_review_of_a_scale_shows_the_scale(
    kube: KubeClient, widgets: Resource, namespace: str, hook: Hook, register: Register
) -> None:
    rule = {"apiGroups": ["", "test.example.com"], "apiVersions": ["v1"], "operations": ["*"]}
    await register("mutating", rules=[rule | {"resources": ["configmaps", "widgets/scale"]}])
    await kube.create(widgets, widget("one", namespace))
    hook.answer = patching({"op": "replace", "path": "/spec/replicas", "value": 3})
    body = {"metadata": {"name": "one"}, "spec": {"replicas": 2}}
    answer = await kube.raw("PUT", widgets.path(namespace, "one", "scale"), body=body)
    assert answer["spec"] == {"replicas": 3}
    assert (await kube.get(widgets, "one", namespace=namespace))["spec"]["size"] == 3
    asked = next(review for review in hook.seen if review.get("subResource"))
    assert asked["kind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    assert asked["resource"] == {"group": "test.example.com", "version": "v1", "resource": "widgets"}
    assert (asked["subResource"], asked["operation"], asked["name"]) == ("scale", "UPDATE", "one")
    assert (asked["oldObject"]["spec"], asked["object"]["spec"]) == ({"replicas": 1}, {"replicas": 2})


async def test_a_review_tells_who_does_what(
    kube: KubeClient, widgets: Resource, namespace: str, hook: Hook, register: Register
) -> None:
    await register("validating")
    made = await kube.create(widgets, widget("one", namespace))
    await kube.patch(widgets, "one", {"spec": {"size": 2}}, namespace=namespace)
    await kube.patch(widgets, "one", {"status": {"note": "x"}}, namespace=namespace, subresource="status")
    await kube.delete(widgets, "one", namespace=namespace)
    # A server may ask twice, when a write meets another one. The status write is not among these: the rule names the
    # main resource. A real cluster writes config maps of its own into a new namespace.
    asked = {r["operation"]: r for r in hook.seen if r["resource"]["resource"] != "configmaps"}
    assert [*asked] == ["CREATE", "UPDATE", "DELETE"]
    assert not any(r.get("subResource") for r in hook.seen)
    create, update, delete = asked.values()
    assert create["kind"] == {"group": "test.example.com", "version": "v1", "kind": "Widget"}
    assert create["resource"] == {"group": "test.example.com", "version": "v1", "resource": "widgets"}
    assert (create["name"], create["namespace"], create["dryRun"]) == ("one", namespace, False)
    assert create["userInfo"]["username"] == "kubernetes-admin"
    assert "system:masters" in create["userInfo"]["groups"]
    assert create["timeout"] == "5s"
    assert create["oldObject"] is None
    assert create["object"]["metadata"]["uid"] == made["metadata"]["uid"]
    assert (update["oldObject"]["spec"]["size"], update["object"]["spec"]["size"]) == (1, 2)
    assert delete["object"] is None
    assert delete["oldObject"]["metadata"]["name"] == "one"


async def test_a_denial_reaches_the_client_with_code_reason_and_causes(
    kube: KubeClient, widgets: Resource, namespace: str, hook: Hook, register: Register
) -> None:
    await register("validating")
    cause = {"field": "spec.size", "reason": "FieldValueInvalid", "message": "odd"}
    status = {"code": 422, "reason": "Invalid", "message": "size is odd", "details": {"causes": [cause]}}
    hook.answer = lambda _: {"allowed": False, "status": status}
    with pytest.raises(Invalid) as refused:
        await kube.create(widgets, widget("one", namespace))
    assert refused.value.message == 'admission webhook "test.example.com" denied the request: size is odd'
    assert refused.value.details["causes"] == [cause]
    assert await is_gone(kube, widgets, "one", namespace)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        ({"code": 403, "reason": "Forbidden", "message": "no"}, 403, "denied the request: no"),
        ({"message": "no"}, 400, "denied the request: no"),
        (None, 400, "denied the request without explanation"),
        ({"code": 200, "reason": "Because"}, 400, "denied the request: Because"),
    ],
)
async def test_a_denial_always_has_a_code(
    kube: KubeClient, namespace: str, hook: Hook, register: Register, *, status: Object | None, code: int, message: str
) -> None:
    await register("validating")
    hook.answer = lambda _: {"allowed": False} | ({"status": status} if status else {})
    with pytest.raises(ApiError) as refused:
        await kube.create(CM, config_map("one", namespace))
    assert refused.value.status == code
    assert refused.value.message == f'admission webhook "test.example.com" {message}'


async def test_a_webhook_that_is_down_refuses_with_fail(
    kube: KubeClient, namespace: str, hook: Hook, register: Register
) -> None:
    down = {"url": "https://127.0.0.1:1/review", "caBundle": hook.bundle}
    await register("validating", clientConfig=down)

    refusals: list[ServerError] = []

    async def refused() -> list[ServerError]:
        try:
            await kube.create(CM, config_map("one", namespace), dry_run=True)
        except ServerError as error:
            refusals.append(error)
        return refusals

    await eventually(refused)
    (refusal,) = refusals
    assert (refusal.status, refusal.reason) == (500, "InternalError")
    start = 'Internal error occurred: failed calling webhook "test.example.com": failed to call webhook: Post "https'
    assert refusal.message.startswith(start)


async def test_a_webhook_that_is_down_is_passed_over_with_ignore(
    kube: KubeClient, namespace: str, hook: Hook, register: Register
) -> None:
    down = {"url": "https://127.0.0.1:1/review", "caBundle": hook.bundle}
    await register("validating", clientConfig=down, failurePolicy="Ignore")
    await kube.create(CM, config_map("one", namespace))


async def test_a_webhook_with_another_certificate_is_not_believed(
    kube: KubeClient, namespace: str, hook: Hook, register: Register, tmp_path: Path
) -> None:
    other = base64.b64encode(tls.Authority("other").pem).decode()
    await register("validating", clientConfig={"url": hook.url, "caBundle": other})
    refusals: list[ServerError] = []

    # A real server takes a moment until it knows a new webhook.
    async def refused() -> list[ServerError]:
        try:
            await kube.create(CM, config_map("one", namespace), dry_run=True)
        except ServerError as error:
            refusals.append(error)
        return refusals

    await eventually(refused)
    assert re.search(r"failed calling webhook .*certificate", refusals[0].message)
    assert hook.seen == []


async def test_a_webhook_that_is_slow_has_failed(
    kube: KubeClient, namespace: str, hook: Hook, register: Register
) -> None:
    await register("validating", timeoutSeconds=1)
    hook.delay = asyncio.Event()
    with pytest.raises(ServerError, match="context deadline exceeded"):
        await kube.create(CM, config_map("one", namespace))


async def test_a_broken_answer_is_a_failure(kube: KubeClient, namespace: str, hook: Hook, register: Register) -> None:
    await register("validating")
    hook.answer = lambda _: {"uid": "another", "allowed": True}
    with pytest.raises(ServerError, match=r'expected response\.uid="'):
        await kube.create(CM, config_map("one", namespace))


async def test_selectors_decide_who_is_called(kube: KubeClient, namespace: str, hook: Hook, register: Register) -> None:
    await register("validating", objectSelector={"matchExpressions": [{"key": "probe", "operator": "Exists"}]})
    await kube.create(CM, config_map("plain", namespace))
    await kube.create(CM, config_map("elsewhere", "default", labels={"probe": "yes"}), dry_run=True)
    assert hook.seen == []
    await kube.create(CM, config_map("labelled", namespace, labels={"probe": "yes"}))
    assert len(hook.seen) == 1


async def test_dry_run_is_told_to_the_webhook(kube: KubeClient, namespace: str, hook: Hook, register: Register) -> None:
    await register("validating")
    await kube.create(CM, config_map("one", namespace), dry_run=True)
    assert [r["dryRun"] for r in hook.seen] == [True]


@pytest.mark.parametrize(("allowed", "code"), [(True, 201), (False, 400)], ids=["allowed", "refused"])
async def test_warnings_reach_the_client(
    plane: Plane, namespace: str, hook: Hook, register: Register, *, allowed: bool, code: int
) -> None:
    await register("validating")
    hook.answer = lambda _: {"allowed": allowed, "warnings": ["mind the gap"]}
    body = json.dumps(config_map("one", namespace))
    status, _, headers = await request(plane, "POST", CM.path(namespace), body=body)
    assert (status, headers["Warning"]) == (code, '299 - "mind the gap"')


async def test_a_webhook_of_status_sees_status_writes(
    kube: KubeClient, widgets: Resource, namespace: str, hook: Hook, register: Register
) -> None:
    rules = [
        {
            "apiGroups": ["*"],
            "apiVersions": ["*"],
            "resources": ["widgets/status", "configmaps"],
            "operations": ["*"],
            "scope": "Namespaced",
        }
    ]
    await register("validating", rules=rules)
    await kube.create(widgets, widget("one", namespace))
    await kube.patch(widgets, "one", {"status": {"note": "x"}}, namespace=namespace, subresource="status")
    assert [(r["operation"], r["subResource"]) for r in hook.seen] == [("UPDATE", "status")]


async def test_mutation_comes_before_validation(
    kube: KubeClient, namespace: str, hook: Hook, register: Register
) -> None:
    def answer(review: Object) -> Object:
        if "data" in review["object"]:
            return {"allowed": False, "status": {"code": 403, "message": "saw it"}}
        return patching({"op": "add", "path": "/data", "value": {"a": "b"}})(review)

    await register("mutating")
    await register("validating", name="second.example.com")
    hook.answer = answer
    with pytest.raises(Forbidden, match=r'webhook "second\.example\.com" denied the request: saw it'):
        await kube.create(CM, config_map("one", namespace))
