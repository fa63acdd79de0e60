"""What the API server may answer instead of what was asked for, sorted by what the caller does next."""

from collections.abc import Mapping
from typing import Any

from allocator.runtime.config import ConfigError

# Bodies that are no metav1.Status come from proxies and may be whole HTML pages: a line of log is enough of them.
MESSAGE_LIMIT = 300


class ApiError(Exception):
    """The server answered and refused: the request had no effect.

    `reason` is the machine-readable metav1.Status reason ("" when the answer was no Status), `details` its details,
    `retry_after` the seconds that the server asks to wait, None when it asks nothing.
    """

    def __init__(
        self,
        status: int,
        reason: str = "",
        message: str = "",
        *,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, reason, message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details: dict[str, Any] = dict(details or {})
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.status} {self.reason or type(self).__name__}: {self.message or 'no message'}"


class BadRequest(ApiError):
    """Any other 4xx: the request is wrong and will stay wrong (401 too: the credentials are; 404 pages too)."""


class NotFound(ApiError):
    """404 in the API server's own words: the object is not there.

    A 404 page is none: it comes from a proxy, or from an API server that does not know the whole group.
    """


class AlreadyExists(ApiError):
    """409 at create: the name is taken."""


class Conflict(ApiError):
    """409 at update or delete: a precondition (resourceVersion, uid) does not hold. Read again, decide again."""


class Gone(ApiError):
    """410: the resourceVersion or continue token is too old. List again."""


class Forbidden(ApiError):
    """403: RBAC, an admission plugin, or a namespace that is being deleted."""


class Invalid(ApiError):
    """422: the object breaks its schema, a CEL rule or a validating webhook; `details["causes"]` names fields."""


class TooManyRequests(ApiError):
    """429: wait `retry_after` seconds and try again. An eviction that a budget refuses is one too."""


class ServerError(ApiError):
    """5xx: the server could not. For 504 and 500 the write may still have happened."""


class Unreachable(Exception):
    """No (whole) answer: the outcome of a write is unknown. Read before you repeat what is not idempotent."""


class NoAccess(ConfigError):
    """There is no usable kubeconfig, nor a service account; the message says what to do."""


def from_response(status: int, body: object, *, retry_after: float | None = None) -> ApiError:
    """The error for an HTTP status and its body: a decoded metav1.Status, or whatever else came."""
    if not isinstance(body, Mapping) or body.get("kind") != "Status":
        # What is not there is released; only the API server may say so.
        kind = BadRequest if status == 404 else _class_of(status, "")
        return kind(status, "", _short(body), retry_after=retry_after)
    reason = _text(body.get("reason"))
    details = body.get("details")
    details = details if isinstance(details, Mapping) else {}
    if retry_after is None:
        retry_after = _seconds(details.get("retryAfterSeconds"))
    message = _text(body.get("message"))
    return _class_of(status, reason)(status, reason, message, details=details, retry_after=retry_after)


def _class_of(status: int, reason: str) -> type[ApiError]:
    if reason == "Expired":  # 410 by definition, but some aggregated servers send it with another code
        return Gone
    if status == 409:
        return AlreadyExists if reason == "AlreadyExists" else Conflict
    if status >= 500:
        return ServerError
    return {403: Forbidden, 404: NotFound, 410: Gone, 422: Invalid, 429: TooManyRequests}.get(status, BadRequest)


def _short(body: object) -> str:
    text = " ".join(_text(body).split())
    return text if len(text) <= MESSAGE_LIMIT else text[:MESSAGE_LIMIT] + "..."


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _seconds(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return float(value)
    return None
