"""Is the holder of an address gone, and what follows for its record?

One look gives one verdict. A verdict alone changes nothing: the controller acts when a second look, a grace period
later and made of live reads, comes to the same end. The table:

    pod                                                  record Held                     record Retained
    missing; another UID; Succeeded or Failed;           slot wanted: retain             slot wanted: keep
    terminating past its grace, by both clocks           otherwise:   release            otherwise:   release
    running without an address, where the operator       slot: keep                      keep
    has switched that on                                 otherwise:   release
    anything else                                        keep                            keep

A slot is not wanted where the pool is gone: without it nobody can be told the address in full.

While a virtual machine migrates, two pods have the address. Where one of them is gone the other goes on with it alone;
the table is for the time when both are.

Cooling, Quarantined and Conflict records, and states that this version does not know, are nobody's to free here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from allocator.domain.record import State

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from allocator.domain.record import Holder, Record
    from allocator.domain.request import Pod


class Act(StrEnum):
    KEEP = "Keep"
    RETAIN = "Retain"
    PART = "Part"
    RELEASE = "Release"


class Why(StrEnum):
    """Stable codes: receipts and events carry them."""

    NOT_OURS_TO_FREE = "NotOursToFree"
    POD_STANDS = "PodStands"
    SLOT_WANTED = "SlotWanted"
    PARTNER_GONE = "PartnerGone"
    POD_MISSING = "PodMissing"
    POD_REPLACED = "PodReplaced"
    POD_FINISHED = "PodFinished"
    POD_EVICTED = "PodEvicted"
    POD_OVERDUE = "PodTerminationOverdue"
    POD_WITHOUT_IPS = "PodWithoutIPs"
    SLOT_UNWANTED = "SlotUnwanted"
    POOL_GONE = "PoolGone"


class NodeState(StrEnum):
    """Of the node that the holder ran on. A node that is gone counts as not ready, and so does one that is fenced: a
    person has tainted it out-of-service (KEP-2268), which says that nothing runs there any more.
    """

    READY = "Ready"
    NOT_READY = "NotReady"
    FENCED = "Fenced"
    GONE = "Gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The operator's switches. `extra_grace` is added to the deletionTimestamp, which has the pod's grace in it.

    The switches are the original's. By the state of their node: whether pods that still exist but have finished or are
    overdue lose their addresses. `without_ips`: whether pods do that are said to run and have no address. They do not
    concern static pods, and no pod that is gone.
    """

    extra_grace: timedelta = timedelta(0)
    on_ready_node: bool = True
    on_unready_node: bool = True
    without_ips: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """A pod's deletion as this leader has watched it: no wall clock is in it.

    `grace` is metadata.deletionGracePeriodSeconds, `watched` the monotonic time since this deletionTimestamp was first
    seen.
    """

    grace: timedelta
    watched: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one look saw. `pod` is whoever has the holder's name now, `ending` its deletion when it is being deleted;
    `peer_pod` is whoever has the peer's name; `slot_wanted` is False without a slot, and where the pool is gone.
    `mirror_has_own`: `pod` is another one than the holder, and holds an address of this family for this interface.
    """

    record: Record
    pod: Pod | None
    peer_pod: Pod | None = None
    node: NodeState
    ending: Ending | None = None
    slot_wanted: bool = False
    pool_gone: bool = False
    mirror_has_own: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    act: Act
    why: Why


# How long an address of a pod that nobody saw end, on a node that does not answer, is the last choice.
UNSEEN_END_DELAY: Final = timedelta(minutes=10)

# k8s.io/api core/v1, MirrorPodAnnotationKey: only kubelets set it.
MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"

FREEABLE: Final = (State.HELD, State.RETAINED)
# What a pod's status says, and its kubelet writes; where the node is gone, the pod garbage collector does.
_SEEN_ENDS: Final = (Why.POD_FINISHED, Why.POD_EVICTED)


def judge(seen: Sighting, rules: Rules, now: datetime) -> Verdict:
    """What this one look says. RETAIN, PART and RELEASE make a suspect, never more."""
    record = seen.record
    if record.state not in FREEABLE or record.holder is None:
        return Verdict(Act.KEEP, Why.NOT_OURS_TO_FREE)
    if record.peer is not None and (standing := _standing(seen)):
        is_pair = len(standing) == len(record.parties)
        return Verdict(Act.KEEP, Why.POD_STANDS) if is_pair else Verdict(Act.PART, Why.PARTNER_GONE)
    why = _absence(seen, rules, now)
    if why is None or not _switched_on(why, seen, rules):
        return Verdict(Act.KEEP, Why.POD_STANDS)
    if record.slot is not None and seen.slot_wanted:
        return Verdict(Act.RETAIN, why) if record.state is State.HELD else Verdict(Act.KEEP, Why.SLOT_WANTED)
    if record.state is State.HELD:
        return Verdict(Act.RELEASE, why)
    return Verdict(Act.RELEASE, Why.POOL_GONE if seen.pool_gone else Why.SLOT_UNWANTED)


def survivor(seen: Sighting) -> Holder:
    """Of two that have the address the one that goes on with it, for the verdict PART."""
    (only,) = _standing(seen)
    return only


def cooling_time(verdict: Verdict, node: NodeState, reuse_delay: timedelta) -> timedelta:
    """How long the released address cools.

    Only a kubelet sees a pod's containers end. Where the pod was deleted without it (by force, by the end of its node's
    object), they may still run and answer for the address.
    """
    is_unseen = node is NodeState.GONE or (node is NodeState.NOT_READY and verdict.why not in _SEEN_ENDS)
    return max(reuse_delay, UNSEEN_END_DELAY) if is_unseen else reuse_delay


def is_gone(pod_uid: str, pod: Pod | None) -> bool:
    """Whether the pod of this UID exists no more; `pod` is whoever has its name now. A UID never comes back."""
    return pod is None or pod.uid != pod_uid


def has_own(pod: Pod | None, record: Record, theirs: Iterable[Record]) -> bool:
    """Whether the pod, who is not the record's holder, holds another address in its place; `theirs` are its records."""
    holder = record.holder
    if pod is None or holder is None or pod.uid == holder.pod_uid:
        return False
    return any(
        each.is_of(pod.uid, holder.interface) and each.address.version == record.address.version for each in theirs
    )


def may_run(holder: Holder, pod: Pod | None) -> bool:
    """Whether the holder's containers may run; `pod` is whoever has its name now.

    That a pod is being deleted proves nothing: its node may be cut off, and its containers run on.
    """
    return pod is not None and pod.uid == holder.pod_uid and not pod.is_over


def stands_for(record: Record, pod_uid: str) -> bool:
    """Whether the record keeps its address for this pod, or for the pod's successor."""
    return record.state in FREEABLE and any(party.pod_uid == pod_uid for party in record.parties)


def _standing(seen: Sighting) -> tuple[Holder, ...]:
    """Those of the holder and its peer that may run."""
    pods = (seen.pod, seen.peer_pod)
    return tuple(party for party, pod in zip(seen.record.parties, pods, strict=False) if may_run(party, pod))


def _absence(seen: Sighting, rules: Rules, now: datetime) -> Why | None:
    holder, pod, extra_grace = seen.record.holder, seen.pod, rules.extra_grace
    if pod is None or holder is None:
        return Why.POD_MISSING
    if pod.uid != holder.pod_uid:
        return None if _stands_in_the_mirror(seen, pod) else Why.POD_REPLACED
    if pod.deleted_at is not None:
        is_over = now >= pod.deleted_at + extra_grace and _was_watched_long_enough(seen.ending, extra_grace)
        return Why.POD_OVERDUE if is_over else None
    if not pod.alive:
        return Why.POD_EVICTED if pod.reason == "Evicted" else Why.POD_FINISHED
    return Why.POD_WITHOUT_IPS if pod.runs_without_ips else None


def _was_watched_long_enough(ending: Ending | None, extra_grace: timedelta) -> bool:
    """The deletionTimestamp is of the API server's clock. A clock of ours that is fast must not end a pod early."""
    return ending is not None and ending.watched >= ending.grace + extra_grace


def _stands_in_the_mirror(seen: Sighting, pod: Pod) -> bool:
    """Whether the holder may be a pod from its kubelet's own files: it runs on while its mirror in the API, deleted
    by somebody, comes back under another UID. Where the file was edited another pod runs, with an address of its own.
    """
    holder = seen.record.holder
    is_same_place = holder is not None and pod.node == holder.node
    is_mirror = seen.record.state is State.HELD and pod.alive and is_same_place and MIRROR_ANNOTATION in pod.annotations
    return is_mirror and not seen.mirror_has_own


def _switched_on(why: Why, seen: Sighting, rules: Rules) -> bool:
    is_static = seen.record.slot is not None
    if why is Why.POD_WITHOUT_IPS:
        return rules.without_ips and not is_static
    if why in (Why.POD_MISSING, Why.POD_REPLACED) or is_static:
        return True
    return rules.on_ready_node if seen.node is NodeState.READY else rules.on_unready_node
