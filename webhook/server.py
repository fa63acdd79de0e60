"""The HTTP side: which path asks what, what is refused before it is judged, and what an answer looks like.

What the sender did wrong is 4xx, what we cannot do now is 5xx: only the second lets `failurePolicy` have a say.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from aiohttp import web

from allocator.kube import errors
from allocator.runtime import logs
from webhook import review
from webhook.connections import Connections
from webhook.neighbours import NotReadyError
from webhook.review import Allowed, BadReviewError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from allocator.runtime.flags import HostPort
    from webhook.paths import Judge
    from webhook.review import Request, Verdict

log = logs.get_logger(__name__)

HEALTH_PATH: Final = "/webhook-health-check"
# Two objects of 3 MiB (etcd's limit as JSON, doubled) and 1 MiB of review around them.
BODY_LIMIT_BYTES: Final = 7 * 1024 * 1024
# Of timeoutSeconds, so that the API server hears our answer and not silence.
DEADLINE_SHARE: Final = 0.85
# Longer than kube-apiserver keeps idle connections (90 s), so that it is the one to close them.
KEEPALIVE_S: Final = 120.0
HANDSHAKE_S: Final = 5.0
SHUTDOWN_S: Final = 5.0
BACKLOG: Final = 1024


def application(judges: Iterable[Judge], is_ready: Callable[[], bool]) -> web.Application:
    app = web.Application(client_max_size=BODY_LIMIT_BYTES, middlewares=[_border])
    for judge in judges:
        app.router.add_post(judge.path, _handler(judge))

    async def health(_request: web.Request) -> web.Response:
        return web.Response(status=200 if is_ready() else 503)

    app.router.add_get(HEALTH_PATH, health)
    return app


@asynccontextmanager
async def listening(
    app: web.Application, listen: HostPort, tls: ssl.SSLContext | None, connections: Connections | None = None
) -> AsyncIterator[int]:
    """Serve within the block; gives the port, which the system chose when `listen` has 0.

    OSError when the address cannot be had.
    """
    connections = connections or Connections()
    app.middlewares.insert(0, connections.middleware)
    # Nobody compresses reviews; a body of Content-Encoding is refused instead of unpacked (see _body).
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=SHUTDOWN_S,
    )
    await runner.setup()
    try:
        if runner.server is None:
            raise RuntimeError("aiohttp made no server")
        server = await asyncio.get_running_loop().create_server(
            connections.factory(runner.server),
            listen.host or None,
            listen.port,
            ssl=tls,
            ssl_handshake_timeout=HANDSHAKE_S if tls is not None else None,
            backlog=BACKLOG,
        )
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
    finally:
        await runner.cleanup()


@web.middleware
async def _border(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Nothing of our inside goes out: an unexpected error is one traceback in our log, and 500 there."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        return web.Response(status=refusal.status, text=refusal.reason, headers=_kept_headers(refusal))
    except Exception:
        log.exception("request_failed", path=request.path)
        return web.Response(status=500, text="internal error: see the log of spiderpool-webhook")


def _kept_headers(refusal: web.HTTPException) -> dict[str, str]:
    allow = refusal.headers.get("Allow")
    return {"Allow": allow} if allow else {}


def _handler(judge: Judge) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(http: web.Request) -> web.Response:
        began = time.monotonic()
        try:
            async with asyncio.timeout(judge.timeout_s * DEADLINE_SHARE):
                request = review.decode(await _body(http))
                verdict = await _answer(request, judge)
        except BadReviewError as error:
            log.warning("review_refused", path=http.path, error=str(error))
            return web.Response(status=400, text=str(error))
        except (NotReadyError, errors.ApiError, errors.Unreachable, TimeoutError) as error:
            why = str(error) or "out of time"
            log.warning("review_not_judged", path=http.path, error=why)
            return web.Response(status=503, text=f"cannot judge now: {why}")
        _log(request, verdict, http.path, time.monotonic() - began)
        return web.Response(body=review.encode(request, verdict), content_type="application/json")

    return handle


async def _answer(request: Request, judge: Judge) -> Verdict:
    if (request.group, request.kind) != (judge.resource.group, judge.resource.kind):
        raise BadReviewError(f"this path judges {judge.resource.kind}, not {request.kind} of {request.group or 'core'}")
    if request.subresource:
        return Allowed()
    return await judge.answer(request)


async def _body(http: web.Request) -> bytes:
    if http.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(reason="send the review as application/json")
    if http.headers.get("Content-Encoding", "identity") != "identity":
        raise web.HTTPUnsupportedMediaType(reason="send the body without Content-Encoding")
    if http.content_length is not None and http.content_length > BODY_LIMIT_BYTES:
        raise web.HTTPRequestEntityTooLarge(BODY_LIMIT_BYTES, http.content_length)
    return await http.read()


def _log(request: Request, verdict: Verdict, path: str, seconds: float) -> None:
    log.info(
        "review_answered",
        path=path,
        uid=request.uid,
        operation=request.operation,
        kind=request.kind,
        name=request.name,
        namespace=request.namespace,
        dry_run=request.is_dry_run,
        allowed=isinstance(verdict, Allowed),
        message="" if isinstance(verdict, Allowed) else verdict.message,
        warnings=verdict.warnings,
        milliseconds=round(seconds * 1000, 1),
    )
