"""What can go wrong, sorted by what the caller does next; each class carries the codes of both wire forms.

IpamError
├── Invalid        the request cannot be right as it stands: show it
├── NoPool         no pool serves this pod: show it with every refusal
├── PoolPending    the controller has yet to make the application's pool: show it, the runtime tries again
├── Exhausted      pools serve it, but have no free address now: show it, the runtime tries again
├── SlotInUse      another pod of the same virtual machine still has the address: show it, the runtime tries again
├── PodGone        the pod that asks is not (or no longer) alive: show it
├── Kept           the addresses must stay with their pod: show it
├── SwitchedOff    the operator has switched this off: show it
├── MassRelease    too much would be freed at once to be true: nothing was done, show it
├── NotServing     no ADD can be served now: the runtime asks again
├── Unavailable    the API server or a cache cannot answer now: the runtime tries again
└── DeadlineExceeded   the request's time is used up
Conflict           somebody else wrote in between: read and decide again; never leaves the service
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocator.domain.addresses import Version
    from allocator.domain.applications import Application


@dataclass(frozen=True, slots=True)
class FieldError:
    """One problem of one field, in the terms of metav1.StatusCause."""

    type: Literal["Invalid", "Required", "Forbidden", "NotSupported", "Duplicate", "TooMany", "InternalError"]
    field: str
    message: str
    value: object = None


class IpamError(Exception):
    """A refusal with words for the user. `reason` is the stable CamelCase code that events and headers carry."""

    reason: ClassVar[str] = "Internal"
    # CNI specification 1.1.0, section 5 (Error): 11 is "try again later", 100 and up are the plugin's own.
    cni_code: ClassVar[int] = 999
    # 500 whatever the reason: the original's plugin shows the text of few others.
    http_status: ClassVar[int] = 500

    def name_pod(self, pod: str) -> None:
        """Let the message begin with `namespace/name` of the pod, for readers who do not see it otherwise."""
        if pod not in str(self):
            self.args = (f"pod {pod}: {self}", *self.args[1:])


class Invalid(IpamError):
    reason = "InvalidRequest"


class NoPool(IpamError):
    """`doubtful` names the refused pools of which a cache may not have heard the latest."""

    reason = "NoPoolAvailable"

    def __init__(self, message: str, doubtful: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.doubtful = doubtful


class PoolPending(IpamError):
    """`subnets` are those that the pool may be made of, by the families that lack one."""

    reason = "AutoPoolPending"
    cni_code = 11

    def __init__(self, message: str, application: Application, subnets: Mapping[Version, tuple[str, ...]]) -> None:
        super().__init__(message)
        self.application = application
        self.subnets = subnets


class Exhausted(IpamError):
    """`remembered`: not looked up for this call, but within the last second. `application`: that the pools were made
    for, if they were made for one.
    """

    reason = "PoolExhausted"
    cni_code = 11

    def __init__(self, message: str, *, remembered: bool = False, application: Application | None = None) -> None:
        super().__init__(message)
        self.remembered = remembered
        self.application = application


class SlotInUse(IpamError):
    reason = "SlotInUse"
    cni_code = 11


class PodGone(IpamError):
    reason = "PodNotAlive"


class Kept(IpamError):
    reason = "AddressKept"
    http_status = 522


class SwitchedOff(IpamError):
    reason = "SwitchedOff"
    http_status = 521


class MassRelease(IpamError):
    reason = "MassReleaseBraked"


class NotServing(IpamError):
    reason = "NotServing"
    cni_code = 50


class NotServingInDoubt(NotServing):
    """And pods that run already may have lost their connection."""

    cni_code = 51


class Unavailable(IpamError):
    reason = "Unavailable"
    cni_code = 11


class DeadlineExceeded(IpamError):
    reason = "DeadlineExceeded"
    cni_code = 11


class Conflict(Exception):
    """The object changed since it was read, or is gone: read it again and decide again."""
