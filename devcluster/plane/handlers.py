"""From an HTTP method and a path to a verb, and from its result to an answer."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import yaml
from aiohttp import web

from devcluster.plane import deletion, listing, patches, problems, reviews, scales, watching
from devcluster.plane.api import Api, Call, Change, Replacement
from devcluster.plane.problems import Object
from devcluster.plane.request import Target, accepted_view, flag, read_body
from devcluster.plane.views import View

_PATCHES_OF_BUILTINS = (patches.JSON, patches.MERGE, patches.STRATEGIC)
_MADE_BY_PUT = {"coordination.k8s.io/leases", "/endpoints", "/events"}  # a PUT to an absent name makes the object
_POLICIES = ("Foreground", "Background", "Orphan")
_VALIDATIONS = {"": "Warn", "Strict": "Strict", "Warn": "Warn", "Ignore": "Ignore"}


def answer(body: Any, *, status: int = 200, content_type: str = "application/json") -> web.Response:
    if content_type == "application/yaml":
        return web.Response(status=status, content_type=content_type, text=yaml.safe_dump(body))
    return web.Response(status=status, content_type=content_type, body=msgspec.json.encode(body))


def _wrong_option(method: str, field: str, given: str, supported: tuple[str, ...]) -> problems.Problem:
    kind = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions"}.get(method, "DeleteOptions")
    values = ", ".join(f'"{value}"' for value in supported)
    text = f"Unsupported value: {given}: supported values: {values}"
    return listing.wrong_options([problems.FieldProblem("FieldValueNotSupported", field, text)], kind)


class Handlers:
    def __init__(self, api: Api) -> None:
        self._api = api

    async def handle(self, request: web.Request, target: Target, user: Object) -> web.StreamResponse:
        match "GET" if request.method == "HEAD" else request.method:
            case "GET" if flag(request.query, "watch") and not target.subresource:
                return await self._watch(request, target)
            case "GET":
                return self._read(request, target)
            case "POST" | "PUT" | "PATCH" | "DELETE":
                return await self._write(request, target, user)
            case _:
                raise problems.method_not_allowed()

    def _read(self, request: web.Request, target: Target) -> web.Response:
        rt = target.rt
        if "get" not in rt.verbs:
            raise problems.method_not_allowed()
        view, content_type = accepted_view(rt, request.headers.get("Accept", ""), request.query)
        now = self._api.clock()
        if not target.name:
            page = listing.list_page(self._api.store, rt, target.namespace, request.query)
            return answer(view.many(page.objects, now, page.metadata), content_type=content_type)
        self._check_subresource(target, {"status", "scale"})
        obj = self._api.get(rt, target.namespace, target.name)
        return answer(self._shown(view, target, obj), content_type=content_type)

    def _shown(self, view: View, target: Target, obj: Object) -> Object:
        if target.subresource == "scale":
            scales.check_set(target.rt, obj)
            return replace(view, rt=scales.TYPE).one(scales.scale_of(target.rt, obj), self._api.clock())
        return view.one(obj, self._api.clock())

    def _check_subresource(self, target: Target, allowed: set[str]) -> None:
        rt, sub = target.rt, target.subresource
        served = {
            "": True,
            "status": rt.status,
            "scale": rt.scale is not None,
            "finalize": rt.stored_in == "/namespaces",
            "binding": rt.stored_in == "/pods",
            "eviction": rt.stored_in == "/pods",
        }
        if not served.get(sub):
            raise problems.Problem(404, "NotFound", "the server could not find the requested resource")
        if sub and sub not in allowed:
            raise problems.method_not_allowed()

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        view, content_type = accepted_view(target.rt, request.headers.get("Accept", ""), request.query)
        if content_type != "application/json":
            raise problems.not_acceptable("application/json")
        watch = watching.Watch(self._api.store, target.rt, target.namespace, request.query, target.name)
        response = web.StreamResponse(headers={"Content-Type": content_type})
        show = watching.shown(view, self._api.clock)
        try:
            await response.prepare(request)
            async for kind, obj in watch.events():
                await response.write(msgspec.json.encode(show(kind, obj)) + b"\n")
            await response.write_eof()
        except ConnectionError:
            pass  # the client is gone, as watchers go
        finally:
            watch.close()
        return response

    async def _write(self, request: web.Request, target: Target, user: Object) -> web.Response:
        query = request.query
        # Reviews are answered alike whatever they ask, and kubectl asks in protobuf.
        is_review = target.rt.verbs == ("create",)
        body, duplicates = ({}, []) if is_review else await read_body(request)
        validation = _VALIDATIONS.get(query.get("fieldValidation", ""))
        if validation is None:
            given = query["fieldValidation"]
            raise _wrong_option(request.method, "fieldValidation", json.dumps(given), ("", "Ignore", "Strict", "Warn"))
        dry_run = query.getall("dryRun", [])
        if request.method == "DELETE" and isinstance(body, dict):
            dry_run = dry_run or body.get("dryRun") or []
        if dry_run not in ([], ["All"], [""]):
            raise _wrong_option(request.method, "dryRun", json.dumps(dry_run), ("All",))
        call = Call(
            user=user,
            dry_run=dry_run == ["All"],
            field_validation=validation,
            options={"fieldManager": query["fieldManager"]} if query.get("fieldManager") else {},
            duplicates=duplicates,
        )
        try:
            response = await self._dispatch(request, target, body, call)
        except problems.Problem as problem:
            # Who is refused hears the warnings too.
            response = answer(problem.status(), status=problem.code)
        for text in call.warnings:
            quoted = text.replace("\\", "\\\\").replace('"', '\\"')
            response.headers.add("Warning", f'299 - "{quoted}"')
        return response

    async def _dispatch(self, request: web.Request, target: Target, body: Any, call: Call) -> web.Response:
        view, content_type = accepted_view(target.rt, request.headers.get("Accept", ""), request.query)
        if request.method == "DELETE":
            return answer(await self._delete(request, target, body, call, view), content_type=content_type)
        if body is None or (not isinstance(body, dict) and request.method != "PATCH"):
            raise problems.bad_request("the body of the request must be an object")
        match request.method:
            case "POST":
                return answer(await self._post(target, body, call, view), status=201, content_type=content_type)
            case "PUT" if target.name:
                self._check_subresource(target, {"status", "scale", "finalize"})
                if target.rt.stored_in in _MADE_BY_PUT and not target.subresource and not self._exists(target):
                    return answer(await self._make(target, body, call, view), status=201, content_type=content_type)
                return answer(await self._change(target, Replacement(body), call, view), content_type=content_type)
            case "PATCH" if target.name:
                self._check_subresource(target, {"status", "scale"})
                change = self._patching(request.content_type, target, body)
                return answer(await self._change(target, change, call, view), content_type=content_type)
            case "PUT" | "PATCH":
                raise problems.bad_request("name must be provided")
            case _:
                raise problems.method_not_allowed()

    def _exists(self, target: Target) -> bool:
        return self._api.store.get(target.rt.key(target.namespace, target.name)) is not None

    async def _make(self, target: Target, body: Object, call: Call, view: View) -> Object:
        """A PUT that creates. It may not mean an object that was there before."""
        metadata = dict(body.get("metadata") or {})
        if metadata.get("uid"):
            why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: "
            raise problems.conflict(target.rt, target.name, why)
        metadata.pop("resourceVersion", None)
        return view.one(
            await self._api.create(target.rt, target.namespace, body | {"metadata": metadata}, call), self._api.clock()
        )

    async def _post(self, target: Target, body: Object, call: Call, view: View) -> Object:
        rt = target.rt
        if rt.verbs == ("create",):
            return reviews.review(rt, body, call.user)
        if target.subresource:
            self._check_subresource(target, {"binding", "eviction"})
            return await self._act(target, body, call)
        if target.name or (rt.namespaced and not target.namespace):
            raise problems.method_not_allowed()
        return view.one(await self._api.create(rt, target.namespace, body, call), self._api.clock())

    async def _act(self, target: Target, body: Object, call: Call) -> Object:
        """The subresources of a pod that are verbs in truth."""
        if target.subresource == "eviction":
            options = body.get("deleteOptions") or {}
            await self._api.delete(target.rt, target.namespace, target.name, options, call)
        else:
            node = (body.get("target") or {}).get("name") or ""

            def bind(pod: Object) -> Object:
                if bound := pod["spec"].get("nodeName"):
                    raise problems.conflict(
                        target.rt, target.name, f'pod {target.name} is already assigned to node "{bound}"'
                    )
                return reviews.bound(pod, node, self._api.clock())

            await self._api.update(target.rt, target.namespace, target.name, bind, call, subresource="binding")
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

    def _patching(self, content_type: str, target: Target, body: Any) -> Change:
        if content_type == patches.APPLY:
            raise problems.unsupported_media_type(
                ", ".join(_PATCHES_OF_BUILTINS), "server-side apply is not served by this development stand-in"
            )
        allowed = _PATCHES_OF_BUILTINS[:2] if target.rt.custom else _PATCHES_OF_BUILTINS
        if content_type not in allowed:
            raise problems.unsupported_media_type(", ".join([*allowed, patches.APPLY]))
        return lambda obj: patches.apply_patch(content_type, obj, body)

    async def _change(self, target: Target, change: Change, call: Call, view: View) -> Object:
        rt, sub = target.rt, target.subresource
        obj = await self._api.update(rt, target.namespace, target.name, change, call, subresource=sub)
        return self._shown(view, target, obj)

    async def _delete(self, request: web.Request, target: Target, body: Any, call: Call, view: View) -> Object:
        if target.subresource or (target.rt.namespaced and not target.namespace) or "delete" not in target.rt.verbs:
            raise problems.method_not_allowed()
        options = _delete_options(request.query, body)
        if not target.name:
            return await self._delete_listed(request, target, options, call, view)
        obj, gone = await self._api.delete(target.rt, target.namespace, target.name, options, call)
        if gone and target.rt.stored_in not in deletion.RETURN_DELETED:
            return problems.success(target.rt, target.name, obj["metadata"]["uid"])
        return view.one(obj, self._api.clock())

    async def _delete_listed(
        self, request: web.Request, target: Target, options: Object, call: Call, view: View
    ) -> Object:
        page = listing.list_page(self._api.store, target.rt, target.namespace, request.query)
        deleted = []
        for metadata in [obj["metadata"] for obj in page.objects]:
            try:
                done, _ = await self._api.delete(
                    target.rt, metadata.get("namespace", ""), metadata["name"], options, call
                )
            except problems.Problem as problem:
                if problem.code != 404:
                    raise
            else:
                deleted.append(done)
        return view.many(deleted, self._api.clock(), {"resourceVersion": str(self._api.store.revision)})


def _delete_options(query: Mapping[str, str], body: Any) -> Object:
    """From the body, or from the query where the body says nothing."""
    options = dict(body) if isinstance(body, dict) else {}
    for field in ("gracePeriodSeconds", "propagationPolicy"):
        if field in query and field not in options:
            options[field] = int(query[field]) if query[field].isdigit() else query[field]
    policy = options.get("propagationPolicy")
    if policy not in (None, *_POLICIES):
        raise _wrong_option("DELETE", "propagationPolicy", json.dumps(policy), (*_POLICIES, "nil"))
    return options
