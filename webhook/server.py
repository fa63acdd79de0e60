"""The HTTP side: which path asks what, what is refused before it is judged, and what an answer looks like.

What the sender did wrong is 4xx, what we cannot do now is 5xx: only the second lets `failurePolicy` have a say.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from aiohttp import web

from allocator.kube import errors
from allocator.runtime import logs
from webhook import review
from webhook.neighbours import NotReadyError
from webhook.review import Allowed, BadReviewError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from webhook.paths import Judge
    from webhook.review import Request, Verdict

log = logs.get_logger(__name__)

HEALTH_PATH: Final = "/webhook-health-check"
# Two objects of 3 MiB (etcd's limit as JSON, doubled) and 1 MiB of review around them.
BODY_LIMIT_BYTES: Final = 7 * 1024 * 1024
# A sender chooses up to 7 MiB of text.
LOGGED_TEXT_LIMIT: Final = 1000
# Of timeoutSeconds, so that the API server hears our answer and not silence.
DEADLINE_SHARE: Final = 0.85


def application(judges: Iterable[Judge], is_ready: Callable[[], bool]) -> web.Application:
    app = web.Application(client_max_size=BODY_LIMIT_BYTES, middlewares=[_border])
    for judge in judges:
        app.router.add_post(judge.path, _handler(judge))

    async def health(_request: web.Request) -> web.Response:
        return web.Response(status=200 if is_ready() else 503)

    app.router.add_get(HEALTH_PATH, health)
    return app


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
        deadline = asyncio.get_running_loop().time() + judge.timeout_s * DEADLINE_SHARE
        body = await _body(http, deadline)
        try:
            async with asyncio.timeout_at(deadline):
                request = review.decode(body)
                verdict = await _answer(request, judge)
        except BadReviewError as error:
            log.warning("review_refused", path=http.path, error=_cut(str(error)))
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


async def _body(http: web.Request, deadline: float) -> bytes:
    if http.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(reason="send the review as application/json")
    if http.headers.get("Content-Encoding", "identity") != "identity":
        raise web.HTTPUnsupportedMediaType(reason="send the body without Content-Encoding")
    if http.content_length is not None and http.content_length > BODY_LIMIT_BYTES:
        raise web.HTTPRequestEntityTooLarge(BODY_LIMIT_BYTES, http.content_length)
    try:
        async with asyncio.timeout_at(deadline):
            return await http.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(reason="the body did not come in time") from None
    except (web.RequestPayloadError, OSError):
        raise web.HTTPBadRequest(reason="the body is not framed as its headers say, or was cut off") from None


def _log(request: Request, verdict: Verdict, path: str, seconds: float) -> None:
    log.info(
        "review_answered",
        path=path,
        uid=_cut(request.uid),
        operation=request.operation,
        kind=request.kind,
        name=_cut(request.name),
        namespace=_cut(request.namespace),
        dry_run=request.is_dry_run,
        allowed=isinstance(verdict, Allowed),
        message="" if isinstance(verdict, Allowed) else _cut(verdict.message),
        warnings=[_cut(warning) for warning in verdict.warnings],
        milliseconds=round(seconds * 1000, 1),
    )


def _cut(text: str) -> str:
    return text[:LOGGED_TEXT_LIMIT]
