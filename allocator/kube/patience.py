"""Trying an API call again while the API server is away, for a bounded time; the rest becomes errors of the domain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from allocator.domain import errors
from allocator.kube.errors import (
    ApiError,
    BadRequest,
    Forbidden,
    Gone,
    Invalid,
    ServerError,
    TooManyRequests,
    Unreachable,
)
from allocator.runtime.backoff import delays
from allocator.runtime.logs import get_logger

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from allocator.runtime.clock import Clock

T = TypeVar("T")

_log = get_logger(__name__)

# Longer than a rolling restart of one API server, shorter than the deadline of an ADD.
PATIENCE_S: Final = 30.0
# Gone: a paged list whose token expired even on its last try.
TRANSIENT: Final = (Unreachable, TooManyRequests, ServerError, Gone)


async def patiently(what: str, call: Callable[[], Awaitable[T]], *, clock: Clock, rng: random.Random) -> T:
    """The result of `call`, tried again with full jitter after Unreachable, 429 and 5xx.

    Repeating must be harmless. errors.Unavailable, which says `what` could not be done, after PATIENCE_S or when the
    server refuses for good; NotFound, Conflict and AlreadyExists are the caller's business and pass.
    """
    end = clock.monotonic() + PATIENCE_S
    for delay in delays(base_s=0.05, cap_s=2.0, rng=rng):
        try:
            return await call()
        except TRANSIENT as error:
            retry_after = error.retry_after if isinstance(error, ApiError) else None
            wait = max(delay, retry_after or 0.0)
            if clock.monotonic() + wait > end:
                raise errors.Unavailable(f"{what}: {error}") from error
            _log.debug("api_call_repeated", what=what, why=str(error), wait_s=round(wait, 3))
            await clock.sleep(wait)
        except (Forbidden, Invalid, BadRequest) as error:
            # Permissions, a schema, somebody's webhook: another try does not change it.
            raise errors.Unavailable(f"{what}: the API server refused: {error}") from error
    raise AssertionError("delays() never ends")
