"""What can go wrong, sorted by what the caller does next; each class carries the codes of both wire forms.

IpamError
├── Invalid        the request cannot be right as it stands: show it
├── NoPool         no pool serves this pod: show it with every refusal
├── Exhausted      pools serve it, but have no free address now: show it, the runtime tries again
├── PodGone        the pod that asks is not (or no longer) alive: show it
├── Unavailable    the API server or a cache cannot answer now: the runtime tries again
└── DeadlineExceeded   the request's time is used up
Conflict           somebody else wrote in between: read and decide again; never leaves the service
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True)
class FieldError:
    """One problem of one field, in the terms of metav1.StatusCause."""

    type: Literal["Invalid", "Required", "Forbidden", "NotSupported", "Duplicate", "InternalError"]
    field: str
    message: str
    value: object = None


class IpamError(Exception):
    """A refusal with words for the user. `reason` is the stable CamelCase code that events and headers carry."""

    reason: ClassVar[str] = "Internal"
    # CNI specification 1.1.0, section 5 (Error): 11 is "try again later", 100 and up are the plugin's own.
    cni_code: ClassVar[int] = 999


class Invalid(IpamError):
    reason = "InvalidRequest"


class NoPool(IpamError):
    """`doubtful` names the refused pools of which a cache may not have heard the latest."""

    reason = "NoPoolAvailable"

    def __init__(self, message: str, doubtful: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.doubtful = doubtful


class Exhausted(IpamError):
    """`remembered`: not looked up for this call, but within the last second."""

    reason = "PoolExhausted"
    cni_code = 11

    def __init__(self, message: str, *, remembered: bool = False) -> None:
        super().__init__(message)
        self.remembered = remembered


class PodGone(IpamError):
    reason = "PodNotAlive"


class Unavailable(IpamError):
    reason = "Unavailable"
    cni_code = 11


class DeadlineExceeded(IpamError):
    reason = "DeadlineExceeded"
    cni_code = 11


class Conflict(Exception):
    """The object changed since it was read, or is gone: read it again and decide again."""
