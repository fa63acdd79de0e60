"""SpiderIPPool `status` to a value and back. What others keep there (unknown keys, conditions of other types) stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from allocator.domain.drift import CONDITION as DRIFT
from allocator.domain.projection import PoolStatus
from allocator.kube.codec import LEDGER
from allocator.kube.conditions import decode_conditions, encode_conditions

if TYPE_CHECKING:
    from allocator.kube.resources import Object

_OUR_CONDITIONS: Final = frozenset(
    {
        "Ready",
        "Exhausted",
        "NearlyExhausted",
        "InUseOutsideSpec",
        "Overlapping",
        "AllocatedIPsOmitted",
        "ReclaimBraked",
        DRIFT,
    }
)


def decode_status(raw: Object) -> PoolStatus | None:
    """What the projection wrote last; None when this status is not (yet) the projection's."""
    status = raw.get("status") or {}
    if status.get("allocationSource") != LEDGER:
        return None
    return PoolStatus(
        total=int(status.get("totalIPCount") or 0),
        allocated=int(status.get("allocatedIPCount") or 0),
        free=int(status.get("freeIPCount") or 0),
        allocated_ips=status.get("allocatedIPs"),
        observed_generation=int(status.get("observedGeneration") or 0),
        conditions=decode_conditions(status, _OUR_CONDITIONS),
    )


def encode_status(raw: Object, status: PoolStatus) -> Object:
    """The pool as it was read with this status in it, to PUT to /status: its resourceVersion is the precondition."""
    before = raw.get("status") or {}
    after = {
        **{key: value for key, value in before.items() if key != "allocatedIPs"},
        "totalIPCount": status.total,
        "allocatedIPCount": status.allocated,
        "freeIPCount": status.free,
        "allocationSource": LEDGER,
        "observedGeneration": status.observed_generation,
        "conditions": encode_conditions(before, status.conditions, _OUR_CONDITIONS),
    }
    if status.allocated_ips is not None:
        after["allocatedIPs"] = status.allocated_ips
    return {**raw, "status": after}
