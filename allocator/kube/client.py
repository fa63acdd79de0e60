"""The API server over HTTP: raw wire.JSON objects in and out.

No generated models: they drop fields that they do not know, and an object is written back as it was read.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar
from urllib.parse import urlencode

import aiohttp
import msgspec
from yarl import URL

from allocator.kube import wire
from allocator.kube.access import Access, find_access
from allocator.kube.errors import Gone, Unreachable
from allocator.kube.resources import Object, Objects, Resource

T = TypeVar("T", bound=msgspec.Struct)

# Calls at a time, each on a connection of its own: a burst waits in line here rather than in the API server, whose
# share for one client is bounded, and a TLS handshake costs both sides more than a call.
CALLS_AT_ONCE = 8
# Longer than pods are apart on a busy node, shorter than what load balancers allow a silent connection.
KEEP_ALIVE_S = 45.0
# One deadline for the whole call (asyncio.timeout), not one for each step.
NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)
PAGE_SIZE = 500  # client-go's: pages the API server can make without hurting
# kube-apiserver sends a bookmark about once a minute: a watch that is silent for longer is half open.
IDLE_S = 90.0


class KubeClient:
    """One connection pool to one API server. Every method raises a subclass of ApiError when the server refused,
    and Unreachable when there was no whole answer within `timeout_s`: the outcome of a write is then unknown.

    Nothing is tried again in here, but a read whose connection turns out closed, and what a 401 refused.
    """

    def __init__(self, access: Access, session: aiohttp.ClientSession, *, user_agent: str, timeout_s: float) -> None:
        self._access = access
        self._session = session
        self._timeout_s = timeout_s
        self._places = asyncio.Semaphore(CALLS_AT_ONCE)
        self.field_manager = user_agent.partition("/")[0]

    @classmethod
    @asynccontextmanager
    async def connect(cls, *, kubeconfig: Path | None, user_agent: str, timeout_s: float = 10.0) -> AsyncIterator[Self]:
        """A client for this kubeconfig, or for the pod's own cluster; closed at the end of the block.

        Nothing is sent yet. NoAccess when there are no usable settings. `timeout_s` bounds each call but watches.
        """
        access = await find_access(kubeconfig)
        connector = aiohttp.TCPConnector(
            ssl=access.tls if access.tls is not None else True, limit=0, keepalive_timeout=KEEP_ALIVE_S
        )
        async with aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": user_agent},
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_send_writes_once,),
        ) as session:
            yield cls(access, session, user_agent=user_agent, timeout_s=timeout_s)

    async def get(
        self, resource: Resource, name: str, *, namespace: str | None = None, metadata_only: bool = False
    ) -> Object:
        accept = wire.AS_METADATA if metadata_only else wire.JSON
        obj = await self._call("GET", resource.path(namespace, name), accept=accept)
        return wire.completed(resource, obj, metadata_only=metadata_only)

    async def list(  # noqa: PLR0913 - the API's own parameters
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        limit: int | None = None,
        continue_: str = "",
        resource_version: str = "",
        metadata_only: bool = False,
    ) -> Object:
        """One page as the list object. Without `resource_version` it is a live (quorum) read."""
        params = wire.filled(
            labelSelector=label_selector,
            fieldSelector=field_selector,
            limit=limit,
            resourceVersion=resource_version,
        )
        if continue_:
            params["continue"] = continue_
        accept = wire.AS_METADATA_LIST if metadata_only else wire.JSON
        answer = await self._call("GET", resource.path(namespace), params=params, accept=accept)
        items = [wire.completed(resource, item, metadata_only=metadata_only) for item in answer.get("items") or []]
        return {**answer, "items": items}

    async def list_all(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
    ) -> tuple[Objects, str]:
        """Everything, live and from one moment: the items and the resourceVersion to watch from.

        A continue token that expired on the way (410) means to begin again; the third time without pages.
        """
        for page_size in (PAGE_SIZE, PAGE_SIZE, None):
            items: Objects = []
            continue_ = ""
            try:
                while True:
                    page = await self.list(
                        resource,
                        namespace=namespace,
                        label_selector=label_selector,
                        field_selector=field_selector,
                        limit=page_size,
                        continue_=continue_,
                        metadata_only=metadata_only,
                    )
                    items += page["items"]
                    meta = page.get("metadata") or {}
                    continue_ = meta.get("continue") or ""
                    if not continue_:
                        return items, str(meta.get("resourceVersion", ""))
            except Gone:
                if page_size is None:
                    raise
        raise AssertionError("unreachable: the last turn returns or raises")

    async def list_as(self, resource: Resource, form: type[T], *, field_selector: str = "") -> Sequence[T]:
        """Everything, live, in one page, of each item only what the msgspec `form` names: that decodes ten times faster
        than whole objects, and a list without pages comes from the API server's watch cache.
        """
        params = wire.filled(fieldSelector=field_selector)
        path = resource.path()
        _, payload = await self._send("GET", path, params=params, body=None, content_type=wire.JSON, accept=wire.JSON)
        return wire.items("GET", path, payload, form)

    async def create(
        self, resource: Resource, obj: Object, *, namespace: str | None = None, dry_run: bool = False
    ) -> Object:
        if resource.namespaced and namespace is None:
            namespace = obj["metadata"]["namespace"]
        params = {"fieldManager": self.field_manager, **({"dryRun": "All"} if dry_run else {})}
        answer = await self._call("POST", resource.path(namespace), params=params, body=obj)
        return wire.completed(resource, answer)

    async def replace(self, resource: Resource, obj: Object, *, subresource: str | None = None) -> Object:
        """PUT. `metadata.resourceVersion` (and `metadata.uid`) in `obj` are the preconditions: Conflict."""
        meta = obj["metadata"]
        namespace = meta["namespace"] if resource.namespaced else None
        path = resource.path(namespace, meta["name"], subresource)
        answer = await self._call("PUT", path, params={"fieldManager": self.field_manager}, body=obj)
        return wire.completed(resource, answer)

    async def patch(  # noqa: PLR0913
        self,
        resource: Resource,
        name: str,
        body: object,
        *,
        namespace: str | None = None,
        form: Literal["merge", "json", "strategic", "apply"] = "merge",
        subresource: str | None = None,
        field_manager: str | None = None,
    ) -> Object:
        """`body` is a list of operations for "json", else an object. "apply" takes fields over from other managers,
        as a controller must: there is nobody to ask.
        """
        params = {"fieldManager": field_manager or self.field_manager}
        if form == "apply":
            params["force"] = "true"
        path = resource.path(namespace, name, subresource)
        answer = await self._call("PATCH", path, params=params, body=body, content_type=wire.PATCH_TYPES[form])
        return wire.completed(resource, answer)

    async def delete(  # noqa: PLR0913
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_period_s: int | None = None,
        propagation: Literal["Orphan", "Background", "Foreground"] | None = None,
    ) -> Object:
        """Delete with preconditions (Conflict when they do not hold). Returns the Status of an object that is gone,
        or the object itself while finalizers or the grace period keep it.
        """
        preconditions = wire.filled(uid=uid, resourceVersion=resource_version)
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if preconditions:
            options["preconditions"] = preconditions
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        if propagation is not None:
            options["propagationPolicy"] = propagation
        return await self._call("DELETE", resource.path(namespace, name), body=options)

    async def watch(  # noqa: PLR0913
        self,
        resource: Resource,
        *,
        resource_version: str,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        timeout_s: int = 300,
        idle_s: float = IDLE_S,
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Events (ADDED, MODIFIED, DELETED, BOOKMARK) after `resource_version`, until the server ends the watch
        after `timeout_s`. Close it with `contextlib.aclosing`.

        An ERROR event is raised (Gone: list again). Unreachable when the connection is cut, or silent for `idle_s`.
        """
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timeout_s),
            **wire.filled(resourceVersion=resource_version, labelSelector=label_selector, fieldSelector=field_selector),
        }
        path = resource.path(namespace)
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._open(
                    "GET",
                    path,
                    params=params,
                    headers={"Accept": wire.AS_METADATA if metadata_only else wire.JSON},
                    timeout=aiohttp.ClientTimeout(total=None, sock_read=idle_s),
                )
                if response.status >= 400:
                    raise wire.refusal(response, await response.read())
            try:
                async with aclosing(wire.lines(response.content)) as lines:
                    async for line in lines:
                        yield wire.watch_event(resource, line, metadata_only=metadata_only)
            finally:
                response.close()
        except (aiohttp.ClientError, OSError) as error:
            raise wire.unreachable("WATCH", path, error) from error

    async def raw(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        content_type: str | None = None,
        params: Mapping[str, str] | None = None,
        accept: str = "*/*",
    ) -> Any:
        """Any path, for discovery, tables, health and the like. Decoded wire.JSON, or text when the answer is none."""
        response, payload = await self._send(
            method, path, params=params or {}, body=body, content_type=content_type or wire.JSON, accept=accept
        )
        return wire.decoded(method, path, payload) if "json" in response.content_type else payload.decode()

    async def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = wire.JSON,
        accept: str = wire.JSON,
    ) -> Object:
        _, payload = await self._send(
            method, path, params=params or {}, body=body, content_type=content_type, accept=accept
        )
        answer = wire.decoded(method, path, payload)
        if not isinstance(answer, dict):
            raise Unreachable(f"{method} {path}: the answer is no object; is something between us and the server?")
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str],
        body: object,
        content_type: str,
        accept: str,
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        headers = {"Accept": accept}
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = msgspec.json.encode(body)
        try:
            # The wait for a place is not part of the answer's time: nothing has been sent yet.
            async with self._places, asyncio.timeout(self._timeout_s):
                response = await self._open(method, path, params=params, headers=headers, data=data)
                async with response:
                    payload = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise wire.unreachable(method, path, error) from error
        if response.status >= 400:
            raise wire.refusal(response, payload)
        return response, payload

    async def _open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str],
        headers: dict[str, str],
        data: bytes | None = None,
        timeout: aiohttp.ClientTimeout = NO_TIMEOUT,  # noqa: ASYNC109 - aiohttp's settings, not a deadline
    ) -> aiohttp.ClientResponse:
        """The response with its body still to come. A 401 is tried once more with renewed credentials: the server
        authenticates before it does anything.
        """
        query = f"?{urlencode(params)}" if params else ""
        url = URL(f"{self._access.server}{path}{query}", encoded=True)
        renewed = False
        while True:
            authorization = await self._access.credentials.authorization()
            response = await self._session.request(
                method,
                url,
                headers={**headers, **({"Authorization": authorization} if authorization else {})},
                data=data,
                timeout=timeout,
                allow_redirects=False,
                server_hostname=self._access.server_name,
                proxy=self._access.proxy,
            )
            if response.status != 401 or renewed or not await self._access.credentials.renew():
                return response
            renewed = True
            response.release()


async def _send_writes_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Because aiohttp sends PUT and DELETE again when the connection breaks, and the second answer (Conflict, NotFound)
    would hide that the first one succeeded.
    """
    try:
        return await send(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        if request.method == "GET":
            raise
        raise wire.unreachable(request.method, request.url.path, error) from error
