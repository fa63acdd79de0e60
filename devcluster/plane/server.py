"""The embedded plane's HTTPS face: who may speak, which path leads where, start and stop."""

import asyncio
import secrets
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from aiohttp import web

from allocator.runtime import logs
from devcluster.plane import discovery, openapi, problems, tls
from devcluster.plane import identity as identities
from devcluster.plane.api import Api, Call
from devcluster.plane.builtins import BUILTINS
from devcluster.plane.handlers import Handlers, answer
from devcluster.plane.housekeeping import Housekeeper
from devcluster.plane.journal import Journal
from devcluster.plane.metrics import Metrics
from devcluster.plane.problems import Object, Problem
from devcluster.plane.registry import Registry
from devcluster.plane.request import BODY_LIMIT, Target, parse_path
from devcluster.plane.store import Store
from devcluster.plane.webhooks import Webhooks

NOTICE = (
    "embedded plane: a development stand-in for kube-apiserver; it leaves out CEL (x-kubernetes-validations, "
    "matchConditions, admission policies), server-side apply, RBAC, and the schemas of built-in kinds"
)
_ADMIN: Object = {"username": "kubernetes-admin", "groups": ["system:masters", "system:authenticated"]}
_STOP_S = 1.0
FIRST_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")

log = logs.get_logger("devcluster.plane")


class Server:
    def __init__(self, api: Api, token: str) -> None:
        self._api = api
        self._token = token
        self._handlers = Handlers(api)
        self._metrics = Metrics()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._route(request)
        except Problem as problem:
            return answer(problem.status(), status=problem.code)
        except web.HTTPException:
            raise
        except Exception:
            log.exception("request_failed", method=request.method, path=request.path)
            return answer(problems.internal("a bug of the embedded plane; see its log").status(), status=500)

    def _user(self, request: web.Request) -> Object:
        """Problem 401 for strangers. `kubectl --as` may speak for anyone."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), self._token.encode()):
            raise problems.unauthorized()
        if name := request.headers.get("Impersonate-User"):
            groups = request.headers.getall("Impersonate-Group", [])
            return {"username": name, "groups": [*groups, "system:authenticated"]}
        return _ADMIN

    async def _route(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/") or "/"
        if path in {"/healthz", "/livez", "/readyz"}:
            return web.Response(text="ok")
        if path == "/version":
            return answer(discovery.VERSION)
        user = self._user(request)
        if target := parse_path(path, self._api.registry):
            return await self._served(request, target, user)
        if path == "/metrics":
            return web.Response(text=self._metrics.text())
        if request.method == "GET" and (found := self._document(request, path)):
            return found
        if self._serves(path.split("/")):
            raise problems.Problem(404, "NotFound", "the server could not find the requested resource")
        return web.Response(status=404, text="404 page not found\n")

    async def _served(self, request: web.Request, target: Target, user: Object) -> web.StreamResponse:
        code = 500
        try:
            response = await self._handlers.handle(request, target, user)
            code = response.status
            return response
        except Problem as problem:
            code = problem.code
            raise
        finally:
            self._metrics.count(request, target, code)

    def _serves(self, parts: list[str]) -> bool:
        """Whether the path, split at its slashes, lies in a group and version that there are."""
        match parts:
            case ["", "api", "v1", *_]:
                return True
            case ["", "apis", group, version, *_]:
                return discovery.resource_list(self._api.registry, group, version) is not None
            case _:
                return False

    def _document(self, request: web.Request, path: str) -> web.Response | None:
        parts = path.strip("/").split("/")
        if parts[0] == "openapi":
            return self._openapi(request, parts[1:])
        if parts in (["api"], ["apis"]) and discovery.wants_aggregated(request.headers.get("Accept", "")):
            response = answer(discovery.aggregated(self._api.registry, core=parts == ["api"]))
            response.headers["Content-Type"] = discovery.AGGREGATED
            return response
        found = discovery.document(self._api.registry, parts, request.host)
        return None if found is None else answer(found)

    def _openapi(self, request: web.Request, parts: list[str]) -> web.Response | None:
        registry = self._api.registry
        match parts:
            case ["v2"] if "json" in (accept := request.headers.get("Accept", "")) or accept in ("", "*/*"):
                return answer(openapi.swagger(registry))
            case ["v2"]:
                return web.Response(body=openapi.EMPTY_PROTOBUF, headers={"Content-Type": openapi.PROTOBUF})
            case ["v3"]:
                return answer(openapi.index(registry))
            case ["v3", "api", version] if found := openapi.document(registry, "", version):
                return answer(found)
            case ["v3", "apis", group, version] if found := openapi.document(registry, group, version):
                return answer(found)
            case _:
                return None


def new_api() -> Api:
    return Api(Store(), Registry(BUILTINS), clock=lambda: datetime.now(UTC), new_uid=lambda: str(uuid.uuid4()))


@asynccontextmanager
async def serve(directory: Path, data_dir: Path | None = None) -> AsyncIterator[tuple[Path, Api]]:
    """A running embedded plane: its kubeconfig, and the API for those in the same process. Loopback only.

    What is written is in `data_dir` before it is answered, and a plane that starts there later goes on with it, on the
    same port and with the same credentials. OSError when somebody else has the port by then.
    """
    print(NOTICE, file=sys.stderr, flush=True)
    api = new_api()
    housekeeper = Housekeeper(api)
    async with AsyncExitStack() as stack:
        if data_dir is not None:
            stack.callback(_keep(api.store, data_dir))
        await _make_first_namespaces(api)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        kubeconfig = await stack.enter_async_context(_listening(api, directory, data_dir))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        api.admission = Webhooks(api, session)
        keeper = group.create_task(housekeeper.run(), name="housekeeping")
        stack.callback(keeper.cancel)
        yield kubeconfig, api


def _keep(store: Store, data_dir: Path) -> Callable[[], None]:
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    journal = Journal(data_dir)
    journal.restore(store)
    return journal.follow(store)


async def _make_first_namespaces(api: Api) -> None:
    namespaces = api.registry.find("", "v1", "namespaces")
    assert namespaces is not None  # noqa: S101 -- built in
    for name in FIRST_NAMESPACES:
        if api.store.get(namespaces.key("", name)) is None:
            await api.create(namespaces, "", {"metadata": {"name": name}}, Call())
    api.store.compact()  # nobody watched this; and version 1 is then as old here as on a real server


@asynccontextmanager
async def _listening(api: Api, directory: Path, data_dir: Path | None) -> AsyncIterator[Path]:
    identity = (identities.kept(data_dir) if data_dir else None) or identities.new_identity()
    app = web.Application(client_max_size=BODY_LIMIT)
    app.router.add_route("*", "/{path:.*}", Server(api, identity.token).handle)
    # A watcher that hangs up must end its handler at once, not at the next event.
    path = directory / "kubeconfig"
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_STOP_S)
    await runner.setup()
    try:
        context = identity.context(directory)
        await web.TCPSite(runner, "127.0.0.1", identity.port, ssl_context=context, backlog=1024).start()
        identity = identity.at(runner.addresses[0][1])
        if data_dir:
            identities.keep(data_dir, identity)
        tls.write_private(path, identity.kubeconfig())
        yield path
    finally:
        path.unlink(missing_ok=True)
        await runner.cleanup()
