"""Whose address may go back: the whole table of domain/reclaim.py."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from allocator.domain.reclaim import (
    UNSEEN_END_DELAY,
    Act,
    Ending,
    NodeState,
    Rules,
    Sighting,
    Verdict,
    Why,
    cooling_time,
    has_own,
    judge,
    survivor,
)
from allocator.domain.record import State
from tests.unit.records import NOON, SLOT, a_pod, a_record

if TYPE_CHECKING:
    from allocator.domain.record import Record
    from allocator.domain.request import Pod

SECOND = timedelta(seconds=1)
# Watched from its beginning to its end.
ENDED = Ending(grace=30 * SECOND, watched=30 * SECOND)
MIRROR = {"kubernetes.io/config.mirror": "hash"}


def verdict(
    record: Record,
    pod: Pod | None,
    *,
    wanted: bool = False,
    node: NodeState = NodeState.READY,
    rules: Rules | None = None,
    ending: Ending | None = ENDED,
) -> Verdict:
    return judge(Sighting(record=record, pod=pod, node=node, ending=ending, slot_wanted=wanted), rules or Rules(), NOON)


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(a_pod(), id="running"),
        pytest.param(a_pod(phase="Pending"), id="pending"),
        pytest.param(a_pod(phase="Unknown"), id="node lost"),
        pytest.param(a_pod(deleted_at=NOON + SECOND), id="terminating, within its grace"),
        pytest.param(a_pod(phase="Succeeded", deleted_at=NOON + SECOND), id="succeeded and terminating"),
    ],
)
@pytest.mark.parametrize("node", list(NodeState))
def test_a_pod_that_stands_keeps_its_address_whatever_its_node(pod: Pod, node: NodeState) -> None:
    assert verdict(a_record(), pod, node=node) == Verdict(Act.KEEP, Why.POD_STANDS)


GONE = [
    pytest.param(None, Why.POD_MISSING, id="missing"),
    pytest.param(a_pod(uid="uid-2"), Why.POD_REPLACED, id="another UID"),
    pytest.param(a_pod(phase="Succeeded"), Why.POD_FINISHED, id="succeeded"),
    pytest.param(a_pod(phase="Failed"), Why.POD_FINISHED, id="failed"),
    pytest.param(a_pod(phase="Failed", reason="Evicted"), Why.POD_EVICTED, id="evicted"),
    pytest.param(a_pod(phase="Failed", reason="Terminated"), Why.POD_FINISHED, id="ended by its node's shutdown"),
    pytest.param(a_pod(phase="Failed", reason="DeadlineExceeded"), Why.POD_FINISHED, id="over its deadline"),
    pytest.param(a_pod(phase="Failed", reason="OutOfcpu"), Why.POD_FINISHED, id="refused by its node"),
    pytest.param(a_pod(deleted_at=NOON), Why.POD_OVERDUE, id="terminating past its deletionTimestamp"),
]


@pytest.mark.parametrize(("pod", "why"), GONE)
@pytest.mark.parametrize("node", list(NodeState))
def test_the_address_of_a_pod_that_is_gone_is_released_whatever_its_node(
    pod: Pod | None, why: Why, node: NodeState
) -> None:
    assert verdict(a_record(), pod, node=node) == Verdict(Act.RELEASE, why)


@pytest.mark.parametrize(("pod", "why"), GONE)
def test_the_address_of_a_slot_that_is_still_wanted_is_retained(pod: Pod | None, why: Why) -> None:
    assert verdict(a_record(slot=SLOT), pod, wanted=True) == Verdict(Act.RETAIN, why)


@pytest.mark.parametrize(("pod", "why"), GONE)
def test_the_address_of_a_slot_that_is_not_wanted_any_more_is_released(pod: Pod | None, why: Why) -> None:
    assert verdict(a_record(slot=SLOT), pod) == Verdict(Act.RELEASE, why)


def test_a_retained_address_waits_while_its_slot_is_wanted() -> None:
    retained = a_record(state=State.RETAINED, slot=SLOT)
    assert verdict(retained, None, wanted=True) == Verdict(Act.KEEP, Why.SLOT_WANTED)


def test_a_retained_address_is_released_when_its_slot_is_not_wanted_any_more() -> None:
    retained = a_record(state=State.RETAINED, slot=SLOT)
    assert verdict(retained, None) == Verdict(Act.RELEASE, Why.SLOT_UNWANTED)


def test_no_slot_keeps_an_address_whose_pool_is_gone() -> None:
    def without_pool(state: State) -> Verdict:
        record = a_record(state=state, slot=SLOT)
        return judge(Sighting(record=record, pod=None, node=NodeState.READY, pool_gone=True), Rules(), NOON)

    assert without_pool(State.RETAINED) == Verdict(Act.RELEASE, Why.POOL_GONE)
    assert without_pool(State.HELD) == Verdict(Act.RELEASE, Why.POD_MISSING)


def test_a_retained_address_whose_last_holder_still_stands_is_kept() -> None:
    retained = a_record(state=State.RETAINED, slot=SLOT)
    assert verdict(retained, a_pod()).act is Act.KEEP


@pytest.mark.parametrize("state", [State.COOLING, State.QUARANTINED, State.CONFLICT])
def test_records_in_other_states_are_never_touched(state: State) -> None:
    assert verdict(a_record(state=state), None) == Verdict(Act.KEEP, Why.NOT_OURS_TO_FREE)


def test_a_record_without_a_holder_is_never_touched() -> None:
    assert verdict(a_record(holder=None), None) == Verdict(Act.KEEP, Why.NOT_OURS_TO_FREE)


def test_extra_grace_is_added_to_the_deletion_timestamp_and_the_pods_grace_is_not() -> None:
    rules = Rules(extra_grace=timedelta(seconds=10))
    ending = Ending(grace=30 * SECOND, watched=40 * SECOND)
    assert verdict(a_record(), a_pod(deleted_at=NOON - 9 * SECOND), rules=rules, ending=ending).act is Act.KEEP
    assert verdict(a_record(), a_pod(deleted_at=NOON - 10 * SECOND), rules=rules, ending=ending).act is Act.RELEASE


def test_a_clock_that_is_hours_fast_ends_no_pod_before_its_grace_was_watched() -> None:
    pod, rules = a_pod(deleted_at=NOON - timedelta(hours=3)), Rules(extra_grace=timedelta(seconds=10))
    assert verdict(a_record(), pod, rules=rules, ending=None).act is Act.KEEP
    assert verdict(a_record(), pod, rules=rules, ending=Ending(30 * SECOND, 39.9 * SECOND)).act is Act.KEEP
    assert verdict(a_record(), pod, rules=rules, ending=Ending(30 * SECOND, 40 * SECOND)).act is Act.RELEASE


@pytest.mark.parametrize("node", [NodeState.NOT_READY, NodeState.GONE])
def test_the_address_of_a_pod_whose_end_no_kubelet_saw_is_the_last_choice_for_ten_minutes(node: NodeState) -> None:
    overdue = verdict(a_record(), a_pod(deleted_at=NOON), node=node)
    assert cooling_time(overdue, node, 30 * SECOND) == UNSEEN_END_DELAY
    assert cooling_time(overdue, NodeState.READY, 30 * SECOND) == 30 * SECOND


@pytest.mark.parametrize("node", [NodeState.NOT_READY, NodeState.GONE])
@pytest.mark.parametrize(
    ("record", "pod"),
    [
        pytest.param(a_record(), None, id="deleted by force"),
        pytest.param(a_record(), a_pod(uid="uid-2"), id="and replaced"),
        pytest.param(a_record(slot=SLOT), a_pod(deleted_at=NOON), id="overdue, of a slot that is given up"),
        pytest.param(a_record(state=State.RETAINED, slot=SLOT), None, id="retained, of a slot that is given up"),
    ],
)
def test_the_same_holds_for_every_pod_that_went_without_its_kubelet(
    record: Record, pod: Pod | None, node: NodeState
) -> None:
    assert cooling_time(verdict(record, pod, node=node), node, 30 * SECOND) == UNSEEN_END_DELAY


@pytest.mark.parametrize("node", [NodeState.READY, NodeState.NOT_READY, NodeState.FENCED])
def test_what_a_kubelet_has_reported_as_ended_cools_as_usual(node: NodeState) -> None:
    finished = verdict(a_record(), a_pod(phase="Succeeded"), node=node)
    assert cooling_time(finished, node, 30 * SECOND) == 30 * SECOND


def test_of_a_node_that_is_gone_no_kubelet_reported_the_end() -> None:
    failed = verdict(a_record(), a_pod(phase="Failed"), node=NodeState.GONE)
    assert cooling_time(failed, NodeState.GONE, 30 * SECOND) == UNSEEN_END_DELAY


def test_a_node_that_a_person_has_fenced_runs_nothing_any_more() -> None:
    forced = verdict(a_record(), None, node=NodeState.FENCED)
    assert cooling_time(forced, NodeState.FENCED, 30 * SECOND) == 30 * SECOND


def test_a_mirror_that_came_back_under_another_uid_keeps_the_address_of_its_pod() -> None:
    assert verdict(a_record(), a_pod(uid="uid-2", annotations=MIRROR)) == Verdict(Act.KEEP, Why.POD_STANDS)


def test_a_mirror_of_an_edited_file_has_an_address_of_its_own_and_keeps_none_of_its_predecessor() -> None:
    mirror, record = a_pod(uid="uid-2", annotations=MIRROR), a_record()
    assert not has_own(mirror, record, [a_record("10.20.0.11", pod_uid="uid-3"), a_record("fd00::1", pod_uid="uid-2")])
    assert has_own(mirror, record, [a_record("10.20.0.11", pod_uid="uid-2")])
    seen = Sighting(record=record, pod=mirror, node=NodeState.READY, mirror_has_own=True)
    assert judge(seen, Rules(), NOON) == Verdict(Act.RELEASE, Why.POD_REPLACED)


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(a_pod(uid="uid-2", annotations=MIRROR, node="node-2"), id="on another node"),
        pytest.param(a_pod(uid="uid-2", annotations=MIRROR, phase="Failed"), id="that has failed"),
        pytest.param(a_pod(uid="uid-2", annotations={"a": "b"}), id="that is no mirror"),
    ],
)
def test_a_successor_keeps_no_address_by_its_name_alone(pod: Pod) -> None:
    assert verdict(a_record(), pod) == Verdict(Act.RELEASE, Why.POD_REPLACED)


@pytest.mark.parametrize(
    ("rules", "node", "act"),
    [
        (Rules(on_ready_node=False), NodeState.READY, Act.KEEP),
        (Rules(on_ready_node=False), NodeState.NOT_READY, Act.RELEASE),
        (Rules(on_unready_node=False), NodeState.READY, Act.RELEASE),
        (Rules(on_unready_node=False), NodeState.NOT_READY, Act.KEEP),
        (Rules(on_unready_node=False), NodeState.GONE, Act.KEEP),
    ],
)
def test_the_node_switches_hold_back_pods_that_still_exist(rules: Rules, node: NodeState, act: Act) -> None:
    assert verdict(a_record(), a_pod(deleted_at=NOON), node=node, rules=rules).act is act


SILENT = [
    pytest.param(a_pod(), id="running"),
    pytest.param(a_pod(phase="Unknown"), id="on a node that is silent"),
]


@pytest.mark.parametrize("pod", SILENT)
def test_a_running_pod_without_an_address_loses_its_record_only_where_that_is_switched_on(pod: Pod) -> None:
    assert verdict(a_record(), pod).act is Act.KEEP
    assert verdict(a_record(), pod, rules=Rules(without_ips=True)) == Verdict(Act.RELEASE, Why.POD_WITHOUT_IPS)


@pytest.mark.parametrize(
    ("record", "pod"),
    [
        pytest.param(a_record(), a_pod(ips=("10.20.0.10",)), id="that has one"),
        pytest.param(a_record(), a_pod(phase="Pending"), id="that does not run yet"),
        pytest.param(a_record(slot=SLOT), a_pod(), id="of a slot"),
    ],
)
def test_that_switch_does_not_concern_a_pod(record: Record, pod: Pod) -> None:
    assert verdict(record, pod, wanted=True, rules=Rules(without_ips=True)) == Verdict(Act.KEEP, Why.POD_STANDS)


def test_the_node_switches_say_nothing_about_pods_that_are_gone() -> None:
    rules = Rules(on_ready_node=False, on_unready_node=False)
    assert verdict(a_record(), None, rules=rules).act is Act.RELEASE


def pair() -> Record:
    """A virtual machine that migrates from pod `source` to pod `cart`."""
    return a_record(slot=SLOT, peer=a_record(pod="source", pod_uid="uid-0").holder)


SOURCE = a_pod(name="source", uid="uid-0")
ENDS = [
    pytest.param(a_pod(), SOURCE, Verdict(Act.KEEP, Why.POD_STANDS), id="both run"),
    pytest.param(a_pod(deleted_at=NOON), SOURCE, Verdict(Act.KEEP, Why.POD_STANDS), id="one is being deleted"),
    pytest.param(a_pod(), None, Verdict(Act.PART, Why.PARTNER_GONE), id="source missing"),
    pytest.param(a_pod(), replace(SOURCE, uid="x"), Verdict(Act.PART, Why.PARTNER_GONE), id="source replaced"),
    pytest.param(a_pod(), replace(SOURCE, phase="Succeeded"), Verdict(Act.PART, Why.PARTNER_GONE), id="source ended"),
    pytest.param(None, SOURCE, Verdict(Act.PART, Why.PARTNER_GONE), id="target missing"),
    pytest.param(a_pod(phase="Failed"), SOURCE, Verdict(Act.PART, Why.PARTNER_GONE), id="target failed"),
    pytest.param(None, None, Verdict(Act.RELEASE, Why.POD_MISSING), id="both missing"),
    pytest.param(a_pod(phase="Failed"), None, Verdict(Act.RELEASE, Why.POD_FINISHED), id="both gone"),
]


@pytest.mark.parametrize(("pod", "peer", "expected"), ENDS)
def test_of_two_pods_with_one_address_the_one_that_runs_goes_on_with_it(
    pod: Pod | None, peer: Pod | None, expected: Verdict
) -> None:
    seen = Sighting(record=pair(), pod=pod, peer_pod=peer, node=NodeState.READY, ending=ENDED)
    assert judge(seen, Rules(), NOON) == expected
    if expected.act is Act.PART:
        assert survivor(seen).pod_uid == ("uid-1" if pod and pod.alive else "uid-0")
