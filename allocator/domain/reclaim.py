"""Is the holder of an address gone, and what follows for its record?

One look gives one verdict. A verdict alone changes nothing: the controller acts when a second look, a grace period
later and made of live reads, comes to the same end. The table:

    pod                                                  record Held                     record Retained
    missing; another UID; finished or evicted;           slot wanted: retain             slot wanted: keep
    terminating past its deletionTimestamp               otherwise:   release            otherwise:   release
    anything else                                        keep                            keep

Cooling, Quarantined and Conflict records, and states that this version does not know, are nobody's to free here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from allocator.domain.record import State

if TYPE_CHECKING:
    from datetime import datetime

    from allocator.domain.record import Holder, Record
    from allocator.domain.request import Pod


class Act(StrEnum):
    KEEP = "Keep"
    RETAIN = "Retain"
    RELEASE = "Release"


class Why(StrEnum):
    """Stable codes: receipts and events carry them."""

    NOT_OURS_TO_FREE = "NotOursToFree"
    POD_STANDS = "PodStands"
    SLOT_WANTED = "SlotWanted"
    POD_MISSING = "PodMissing"
    POD_REPLACED = "PodReplaced"
    POD_FINISHED = "PodFinished"
    POD_EVICTED = "PodEvicted"
    POD_OVERDUE = "PodTerminationOverdue"
    SLOT_UNWANTED = "SlotUnwanted"


class NodeState(StrEnum):
    """Of the node that the holder ran on. A node that is gone counts as not ready."""

    READY = "Ready"
    NOT_READY = "NotReady"
    GONE = "Gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The operator's switches. `extra_grace` is added to the deletionTimestamp, which has the pod's grace in it.

    The two node switches are the original's: whether pods that still exist but have finished or are overdue lose
    their addresses, by the state of their node. They do not concern static pods, and no pod that is gone.
    """

    extra_grace: timedelta = timedelta(0)
    on_ready_node: bool = True
    on_unready_node: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one look saw. `pod` is whoever has the holder's name now; `slot_wanted` is False without a slot."""

    record: Record
    pod: Pod | None
    node: NodeState
    slot_wanted: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    act: Act
    why: Why


_FREEABLE: Final = (State.HELD, State.RETAINED)


def judge(seen: Sighting, rules: Rules, now: datetime) -> Verdict:
    """What this one look says. RETAIN and RELEASE make a suspect, never more."""
    record = seen.record
    if record.state not in _FREEABLE or record.holder is None:
        return Verdict(Act.KEEP, Why.NOT_OURS_TO_FREE)
    why = _absence(record.holder, seen.pod, rules.extra_grace, now)
    if why is None or not _switched_on(why, seen, rules):
        return Verdict(Act.KEEP, Why.POD_STANDS)
    if record.slot is not None and seen.slot_wanted:
        return Verdict(Act.RETAIN, why) if record.state is State.HELD else Verdict(Act.KEEP, Why.SLOT_WANTED)
    return Verdict(Act.RELEASE, why if record.state is State.HELD else Why.SLOT_UNWANTED)


def is_gone(pod_uid: str, pod: Pod | None) -> bool:
    """Whether the pod of this UID exists no more; `pod` is whoever has its name now. A UID never comes back."""
    return pod is None or pod.uid != pod_uid


def stands_for(record: Record, pod_uid: str) -> bool:
    """Whether the record keeps its address for this pod, or for the pod's successor."""
    return record.state in _FREEABLE and record.holder is not None and record.holder.pod_uid == pod_uid


def _absence(holder: Holder, pod: Pod | None, extra_grace: timedelta, now: datetime) -> Why | None:
    if pod is None:
        return Why.POD_MISSING
    if pod.uid != holder.pod_uid:
        return Why.POD_REPLACED
    if pod.deleted_at is not None:
        return Why.POD_OVERDUE if now >= pod.deleted_at + extra_grace else None
    if not pod.alive:
        return Why.POD_EVICTED if pod.reason == "Evicted" else Why.POD_FINISHED
    return None


def _switched_on(why: Why, seen: Sighting, rules: Rules) -> bool:
    if why in (Why.POD_MISSING, Why.POD_REPLACED) or seen.record.slot is not None:
        return True
    return rules.on_ready_node if seen.node is NodeState.READY else rules.on_unready_node
