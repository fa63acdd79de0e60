"""HTTP on the unix socket: who may ask, how much, for how long, and the answers' outer form."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog
from aiohttp import web

from agent import api
from allocator.domain import errors
from allocator.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from agent.work import Work

_log = get_logger(__name__)

# An IpamAddArgs with hundreds of pool names fits many times.
BODY_LIMIT: Final = 64 * 1024
# The design's bounds: kubelet waits 4 minutes for a sandbox, and DEL has to be back within 2 s.
ADD_DEADLINE_S: Final = 60.0
DEL_DEADLINE_S: Final = 30.0
# Our plugin says how much of its own deadline is left; the original's says nothing.
DEADLINE_HEADER: Final = "X-Spiderpool-Deadline-Seconds"
REASON_HEADER: Final = "X-Spiderpool-Reason"
CNI_CODE_HEADER: Final = "X-Spiderpool-CNI-Code"

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(work: Work) -> web.Application:
    """The agent's routes. Every error leaves as JSON in one of the original's two forms, and none with a traceback."""
    app = web.Application(middlewares=[_border, _peer_is_root], client_max_size=BODY_LIMIT)
    routes = _Routes(work)
    app.add_routes(
        [
            web.get("/v1/ipam/healthy", routes.ready),
            web.post("/v1/ipam/ip", routes.add),
            web.delete("/v1/ipam/ip", routes.delete),
            web.get("/v1/workloadendpoint", routes.workload_endpoint),
            *runtime_routes(work),
        ]
    )
    return app


def runtime_routes(work: Work) -> list[web.RouteDef]:
    """Probes: the same on the socket and on the TCP port."""
    routes = _Routes(work)
    return [
        web.get("/v1/runtime/startup", routes.started),
        web.get("/v1/runtime/readiness", routes.ready),
        web.get("/v1/runtime/liveness", routes.alive),
    ]


class _Routes:
    def __init__(self, work: Work) -> None:
        self._work = work

    async def add(self, request: web.Request) -> web.Response:
        asked = api.read_add(await _json_body(request))
        structlog.contextvars.bind_contextvars(
            pod=f"{asked.namespace}/{asked.pod}", uid=asked.pod_uid, container=asked.interface.container_id
        )
        assigned = await self._work.add(asked, within_s=_deadline_s(request, ADD_DEADLINE_S))
        return web.json_response(api.add_response(assigned))

    async def delete(self, request: web.Request) -> web.Response:
        asked = api.read_del(await _json_body(request))
        structlog.contextvars.bind_contextvars(
            pod=f"{asked.namespace}/{asked.pod}", uid=asked.pod_uid, container=asked.interface.container_id
        )
        await self._work.delete(asked, within_s=_deadline_s(request, DEL_DEADLINE_S))
        return web.Response()

    async def workload_endpoint(self, request: web.Request) -> web.Response:
        names = [request.query.get(key, "") for key in ("podNamespace", "podName")]
        if not all(names):
            raise api.BadBody(602, "podNamespace and podName in query are required")
        found = await self._work.endpoint(*names)
        if found is None:
            return _bare(404, f"pod {'/'.join(names)} has no address on this node")
        return web.json_response(api.workload_endpoint(*found))

    async def started(self, _request: web.Request) -> web.Response:
        return web.Response() if self._work.started else _bare(500, "the caches are not filled yet")

    async def ready(self, _request: web.Request) -> web.Response:
        problem = self._work.problem()
        return web.Response() if problem is None else _bare(500, problem)

    async def alive(self, _request: web.Request) -> web.Response:
        return web.Response()


@web.middleware
async def _border(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors become answers here, and each request of the API one line of log."""
    with structlog.contextvars.bound_contextvars(method=request.method, path=request.path):
        began = asyncio.get_running_loop().time()
        response = await _answered(request, handler)
        if request.path in ("/v1/ipam/ip", "/v1/ipam/ips"):
            took = round((asyncio.get_running_loop().time() - began) * 1000, 1)
            _log.info("request_served", status=response.status, took_ms=took)
        return response


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except api.BadBody as error:
        status = 400 if error.code == 400 else 422
        return web.json_response({"code": error.code, "message": str(error)}, status=status)
    except errors.IpamError as error:
        _log.warning("request_refused", reason=error.reason, why=str(error))
        return _refusal(error)
    except web.HTTPException as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        text = error.text or error.reason
        return web.json_response({"code": error.status, "message": text}, status=error.status, headers=headers)
    except Exception:  # noqa: BLE001 - the border of the process
        # A bug: the traceback goes to the log, and the caller learns where to look.
        _log.exception("request_failed")
        return _bare(500, "the agent failed on this request; its log says more")


@web.middleware
async def _peer_is_root(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Only root, or whoever runs the agent, may ask: the socket's mode says so, and the kernel's word is the proof."""
    connection = request.transport.get_extra_info("socket") if request.transport is not None else None
    if connection is not None and connection.family == socket.AF_UNIX:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _pid, uid, _gid = struct.unpack("3i", credentials)
        if uid not in (0, os.geteuid()):
            return _bare(403, f"user {uid} may not ask the agent: the plugin must run as root")
    return await handler(request)


async def _json_body(request: web.Request) -> bytes:
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text=f"send application/json, not {request.content_type}")
    return await request.read()


def _deadline_s(request: web.Request, limit: float) -> float:
    """What the caller has left, when it says so, and never more than the limit."""
    try:
        left = float(request.headers.get(DEADLINE_HEADER, limit))
    except ValueError:
        return limit
    return left if 0 <= left <= limit else limit  # nor a NaN


def _refusal(error: errors.IpamError) -> web.Response:
    # 500 whatever the reason: the original's plugin shows the text of no other status.
    response = _bare(500, str(error))
    response.headers[REASON_HEADER] = error.reason
    response.headers[CNI_CODE_HEADER] = str(error.cni_code)
    return response


def _bare(status: int, text: str) -> web.Response:
    """The original's error form: a bare JSON string and a newline."""
    return web.Response(status=status, text=json.dumps(text) + "\n", content_type="application/json")


@asynccontextmanager
async def serve(work: Work, path: Path) -> AsyncIterator[None]:
    """Serve on the unix socket until the block ends; then answer what has begun, and take the socket away.

    The caller holds the node's lock, so a socket that is there is a dead agent's. OSError when something else is.
    """
    listener = _listen(path)
    runner = web.AppRunner(application(work), access_log=None, handler_cancellation=True, shutdown_timeout=10.0)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    try:
        yield
    finally:
        await runner.cleanup()
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - the last act of the process


def _listen(path: Path) -> socket.socket:
    """A socket that listens before it has its name: whoever finds the file is answered."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.is_socket() and (path.exists() or path.is_symlink()):
        raise FileExistsError(f"{path} exists and is no socket: remove it, or give another --socket")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Before bind: Linux gives the file this mode from its first moment on.
    os.fchmod(listener.fileno(), 0o600)
    unnamed = path.with_name(f".{path.name}.new")
    unnamed.unlink(missing_ok=True)
    listener.bind(str(unnamed))
    listener.listen(128)
    unnamed.rename(path)
    return listener
