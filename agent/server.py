"""HTTP on the unix socket and the port for probes: who may ask, how much, for how long, and what errors become."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import structlog
from aiohttp import web

from agent import answers, bodies, openapi
from agent.routes import OPERATIONS, Operation
from allocator.domain import errors
from allocator.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from agent.work import Work
    from allocator.runtime.flags import HostPort

_log = get_logger(__name__)

# The list of all attachments of a full node (250 pods of four interfaces) fits twice.
BODY_LIMIT: Final = 256 * 1024
# Connections that wait to be accepted: a node that starts has all its pods ask at once.
BACKLOG: Final = 1024
# Our plugin says how much of its own deadline is left; the original's says nothing.
DEADLINE_HEADER: Final = "X-Spiderpool-Deadline-Seconds"

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LOGGED: Final = frozenset(openapi.BASE_PATH + operation.path for operation in OPERATIONS if operation.is_logged)


def on_socket(work: Work) -> web.Application:
    """Every operation, for root."""
    app = web.Application(middlewares=[_border, _peer_is_root], client_max_size=BODY_LIMIT)
    app.add_routes([*(_route(each, _handler(each, work)) for each in OPERATIONS), *_descriptions()])
    return app


def on_tcp(work: Work) -> web.Application:
    """The probes, for everybody; the rest answers that it is not here."""
    app = web.Application(middlewares=[_border], client_max_size=1024)
    app.add_routes(
        [*(_route(each, _handler(each, work) if each.on_tcp else _elsewhere) for each in OPERATIONS), *_descriptions()]
    )
    return app


def _route(operation: Operation[Any], handler: Handler) -> web.RouteDef:
    options = {"allow_head": False} if operation.method == "GET" else {}
    return web.route(operation.method, openapi.BASE_PATH + operation.path, handler, **options)


def _handler(operation: Operation[Any], work: Work) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        asked: bodies.Form | None = None
        if operation.body is not None:
            asked = bodies.read(operation.body, await _json_body(request))
        elif operation.query is not None:
            asked = bodies.read_query(operation.query, request.query)
        return await operation.does(work, asked, _deadline_s(request, operation.within_s))

    return handle


async def _elsewhere(request: web.Request) -> web.StreamResponse:
    return answers.coded(501, f"{request.method} {request.path} is served on the agent's unix socket only")


def _descriptions() -> list[web.RouteDef]:
    described, page = openapi.document(OPERATIONS), openapi.page(OPERATIONS)

    async def swagger(_request: web.Request) -> web.StreamResponse:
        return web.json_response(described)

    async def docs(_request: web.Request) -> web.StreamResponse:
        return web.Response(text=page, content_type="text/html")

    return [
        web.get("/swagger.json", swagger, allow_head=False),
        web.get(f"{openapi.BASE_PATH}/docs", docs, allow_head=False),
    ]


@web.middleware
async def _border(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors become answers here, and each request that may change something one line of log."""
    with structlog.contextvars.bound_contextvars(method=request.method, path=request.path):
        began = asyncio.get_running_loop().time()
        response = await _answered(request, handler)
        if request.path in _LOGGED:
            took = round((asyncio.get_running_loop().time() - began) * 1000, 1)
            _log.info("request_served", status=response.status, took_ms=took)
        return response


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except bodies.BadRequest as error:
        return answers.coded(error.code, str(error))
    except errors.IpamError as error:
        _log.warning("request_refused", reason=error.reason, why=str(error))
        return answers.refusal(error)
    except web.HTTPException as error:
        return _not_reached(request, error)
    except Exception:  # noqa: BLE001 - the border of the process
        # A bug: the traceback goes to the log, and the caller learns where to look.
        _log.exception("request_failed")
        return answers.bare(500, "the agent failed on this request; its log says more")


def _not_reached(request: web.Request, error: web.HTTPException) -> web.Response:
    """What was refused before an operation was found for it."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ",".join(sorted(error.allowed_methods))
        response = answers.coded(405, f"method {request.method} is not allowed, but [{allowed}] are")
        response.headers["Allow"] = allowed
        return response
    message = f"path {request.path} was not found" if error.status == 404 else error.text or error.reason
    return answers.coded(error.status, message)


@web.middleware
async def _peer_is_root(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Only root, or whoever runs the agent, may ask: the socket's mode says so, and the kernel's word is the proof."""
    connection = request.transport.get_extra_info("socket") if request.transport is not None else None
    if connection is not None and connection.family == socket.AF_UNIX:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _pid, uid, _gid = struct.unpack("3i", credentials)
        if uid not in (0, os.geteuid()):
            return answers.bare(403, f"user {uid} may not ask the agent: the plugin must run as root")
    return await handler(request)


async def _json_body(request: web.Request) -> bytes:
    if request.can_read_body and request.content_type != openapi.JSON_TYPE:
        sent = request.content_type
        raise web.HTTPUnsupportedMediaType(text=f'unsupported media type "{sent}", only [{openapi.JSON_TYPE}] is taken')
    return await request.read()


def _deadline_s(request: web.Request, limit: float) -> float:
    """What the caller has left, when it says so, and never more than the limit."""
    try:
        left = float(request.headers.get(DEADLINE_HEADER, limit))
    except ValueError:
        return limit
    return left if 0 <= left <= limit else limit  # nor a NaN


@asynccontextmanager
async def serve_probes(work: Work, listen: HostPort | None) -> AsyncIterator[None]:
    """Serve on the TCP port until the block ends. OSError when it is taken; nothing to do without one."""
    if listen is None:
        yield
        return
    runner = web.AppRunner(on_tcp(work), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, listen.host or None, listen.port).start()
    try:
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serve(work: Work, path: Path) -> AsyncIterator[None]:
    """Serve on the unix socket until the block ends; then answer what has begun, and take the socket away.

    The caller holds the node's lock, so a socket that is there is a dead agent's. OSError when something else is.
    """
    listener = _listen(path)
    runner = web.AppRunner(on_socket(work), access_log=None, handler_cancellation=True, shutdown_timeout=10.0)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=BACKLOG).start()
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
    listener.listen(BACKLOG)
    unnamed.rename(path)
    return listener
