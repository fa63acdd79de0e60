"""SpiderIPPool `status` to a value and back. What others keep there (unknown keys, conditions of other types) stays."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from allocator.domain.projection import Condition, PoolStatus
from allocator.kube.codec import LEDGER, decode_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocator.kube.resources import Object

_OUR_CONDITIONS: Final = frozenset(
    {"Ready", "Exhausted", "NearlyExhausted", "InUseOutsideSpec", "Overlapping", "AllocatedIPsOmitted"}
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def decode_status(raw: Object) -> PoolStatus | None:
    """What the projection wrote last; None when this status is not (yet) the projection's."""
    status = raw.get("status") or {}
    if status.get("allocationSource") != LEDGER:
        return None
    ours = {each["type"]: _decode_condition(each) for each in status.get("conditions") or () if _is_ours(each)}
    return PoolStatus(
        total=int(status.get("totalIPCount") or 0),
        allocated=int(status.get("allocatedIPCount") or 0),
        free=int(status.get("freeIPCount") or 0),
        allocated_ips=status.get("allocatedIPs"),
        observed_generation=int(status.get("observedGeneration") or 0),
        conditions=tuple(ours.values()),
    )


def encode_status(raw: Object, status: PoolStatus) -> Object:
    """The pool as it was read with this status in it, to PUT to /status: its resourceVersion is the precondition."""
    before = raw.get("status") or {}
    others = [each for each in before.get("conditions") or () if not _is_ours(each)]
    after = {
        **{key: value for key, value in before.items() if key != "allocatedIPs"},
        "totalIPCount": status.total,
        "allocatedIPCount": status.allocated,
        "freeIPCount": status.free,
        "allocationSource": LEDGER,
        "observedGeneration": status.observed_generation,
        "conditions": [*map(_encode_condition, status.conditions), *others],
    }
    if status.allocated_ips is not None:
        after["allocatedIPs"] = status.allocated_ips
    return {**raw, "status": after}


def _is_ours(condition: Mapping[str, Any]) -> bool:
    return condition.get("type") in _OUR_CONDITIONS


def _decode_condition(raw: Mapping[str, Any]) -> Condition:
    return Condition(
        type=raw["type"],
        status="True" if raw.get("status") == "True" else "False",
        reason=raw.get("reason", ""),
        message=raw.get("message", ""),
        observed_generation=int(raw.get("observedGeneration") or 0),
        since=_decode_since(raw.get("lastTransitionTime")),
    )


def _decode_since(text: str | None) -> datetime:
    """The epoch where no time can be read: the schema lets times through that Python does not know (`z`, second 60)."""
    try:
        return decode_time(text) or _EPOCH
    except (ValueError, OverflowError):
        return _EPOCH


def _encode_condition(condition: Condition) -> dict[str, Any]:
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "observedGeneration": condition.observed_generation,
        "lastTransitionTime": condition.since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
