"""What a pool's status says about its records."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from allocator.domain.addresses import IntervalSet
from allocator.domain.conditions import stated
from allocator.domain.overlapping import Overlap
from allocator.domain.projection import NOTHING_YET, TEXT_LIMIT, PoolStatus, project, project_unreadable
from allocator.domain.record import State
from allocator.kube.pool_status import decode_status, encode_status
from tests.unit import values
from tests.unit.records import NOON, SLOT, a_pool, a_record, cooling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocator.domain.conditions import Condition
    from allocator.domain.pool import Pool
    from allocator.domain.record import Record

POOL = a_pool("10.20.0.10-10.20.0.19")
NONE_RESERVED = IntervalSet(4)


def status(records: Sequence[Record] = (), pool: Pool = POOL, **said: Any) -> PoolStatus:
    return project(pool, records, said.pop("reserved", NONE_RESERVED), **{"before": NOTHING_YET, "now": NOON, **said})


def condition(found: PoolStatus, kind: str) -> Condition:
    return next(each for each in found.conditions if each.type == kind)


def test_an_empty_pool_has_counts_and_no_text() -> None:
    found = status()
    assert (found.total, found.allocated, found.free, found.allocated_ips) == (10, 0, 10, None)


def test_the_text_is_the_originals_json_with_sorted_keys() -> None:
    found = status([a_record("10.20.0.11", pod="b", pod_uid="uid-b"), a_record("10.20.0.10", pod="a", pod_uid="uid-a")])
    assert found.allocated_ips == (
        '{"10.20.0.10":{"pod":"shop/a","podUid":"uid-a"},"10.20.0.11":{"pod":"shop/b","podUid":"uid-b"}}'
    )


@pytest.mark.parametrize("state", [State.HELD, State.RETAINED, State.CONFLICT, State.QUARANTINED])
def test_an_address_in_use_is_counted_and_listed_in_every_state_but_cooling(state: State) -> None:
    found = status([a_record("10.20.0.10", state=state, slot=SLOT)])
    assert (found.allocated, found.free) == (1, 9)
    assert json.loads(found.allocated_ips or "") == {"10.20.0.10": {"pod": "shop/cart", "podUid": "uid-1"}}


def test_a_virtual_machine_is_called_by_its_name_and_not_by_its_pods() -> None:
    found = status([a_record(pod="virt-launcher-ledger-x7k2p", slot=values.launcher().slot)])
    assert json.loads(found.allocated_ips or "") == {"10.20.0.10": {"pod": "shop/ledger", "podUid": "uid-1"}}


def test_a_cooling_address_is_free_since_a_pod_gets_it_when_nothing_else_is_left() -> None:
    found = status([cooling("10.20.0.10", until_s=1)])
    assert (found.allocated, found.free, found.allocated_ips) == (0, 10, None)


def test_total_counts_ips_without_excludes_and_free_leaves_out_reservations_and_the_gateway() -> None:
    pool = a_pool("10.20.0.1-10.20.0.10", excludes=("10.20.0.10",), gateway=POOL.subnet[1])
    found = status(pool=pool, reserved=IntervalSet.parse(4, ["10.20.0.2-10.20.0.3"]))
    assert (found.total, found.free) == (9, 6)


def test_a_slash_64_is_counted_without_being_walked() -> None:
    pool = a_pool("fd00::1-fd00::ffff:ffff:ffff:ffff", subnet="fd00::/64")
    assert status(pool=pool, reserved=IntervalSet(6)).total == 2**63 - 1


def test_records_of_the_other_family_do_not_disturb() -> None:
    assert status([a_record("fd00::1")]).free == 10


def test_the_text_ends_at_its_limit_and_a_condition_says_so() -> None:
    pool = a_pool("10.20.0.0-10.20.255.255")
    records = [a_record(f"10.20.{number // 256}.{number % 256}") for number in range(TEXT_LIMIT + 1)]
    assert status(records[:-1], pool).allocated_ips is not None
    found = status(records, pool)
    assert (found.allocated_ips, found.allocated) == (None, TEXT_LIMIT + 1)
    assert condition(found, "AllocatedIPsOmitted").status == "True"


def test_without_its_turn_the_text_stays_and_the_counts_move() -> None:
    first = status([a_record("10.20.0.10")])
    later = status([], before=first, with_text=False)
    assert (later.allocated_ips, later.allocated) == (first.allocated_ips, 0)


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        pytest.param(POOL, "Serving", id="serving"),
        pytest.param(a_pool("10.20.0.10", disabled=True), "Disabled", id="disabled"),
        pytest.param(a_pool("10.20.0.10", terminating=True), "Terminating", id="terminating"),
        pytest.param(a_pool(), "NoUsableAddress", id="empty"),
    ],
)
def test_ready_says_whether_the_pool_serves_and_why_not(pool: Pool, reason: str) -> None:
    found = condition(status(pool=pool), "Ready")
    assert (found.status, found.reason) == ("True" if reason == "Serving" else "False", reason)


@pytest.mark.parametrize(
    ("used", "nearly", "exhausted"), [(8, "False", "False"), (9, "True", "False"), (10, "True", "True")]
)
def test_the_last_tenth_is_nearly_exhausted_and_nothing_left_exhausted(used: int, nearly: str, exhausted: str) -> None:
    found = status([a_record(f"10.20.0.{10 + number}") for number in range(used)])
    assert condition(found, "NearlyExhausted").status == nearly
    assert condition(found, "Exhausted").status == exhausted


def test_holders_outside_the_spec_are_counted_and_the_first_five_are_named() -> None:
    records = [a_record(f"10.20.1.{number}", pod=f"p{number}") for number in range(7, 0, -1)]
    found = condition(status(records), "InUseOutsideSpec")
    assert found.status == "True"
    assert found.message.startswith(
        "7 in use but excluded, reserved, the gateway or not in spec.ips: 10.20.1.1 (shop/p1), 10.20.1.2 (shop/p2), "
        "10.20.1.3 (shop/p3), 10.20.1.4 (shop/p4), 10.20.1.5 (shop/p5) and 2 more;"
    )


def test_a_reservation_over_an_address_in_use_is_reported() -> None:
    found = status([a_record("10.20.0.10")], reserved=IntervalSet.parse(4, ["10.20.0.10"]))
    assert condition(found, "InUseOutsideSpec").status == "True"


def overlap(earlier: str = "", later: str = "", ceded: tuple[str, ...] = (), *, crosses: bool = False) -> Overlap:
    return Overlap(tuple(earlier.split()), tuple(later.split()), IntervalSet.parse(4, ceded), crosses)


SHARED = overlap("b", ceded=("10.20.0.15-10.20.0.19",))


def test_a_pool_counts_only_what_earlier_pools_leave_it() -> None:
    found = status([a_record("10.20.0.10")], overlap=SHARED)
    assert (found.total, found.allocated, found.free) == (10, 1, 4)
    assert condition(found, "Exhausted").message == "4 of 5 usable addresses are free"


def test_what_is_in_use_through_a_pool_that_overlaps_is_not_free() -> None:
    found = status(
        overlap=overlap(later="b"), strangers=[a_record("10.20.0.10", pool="b"), cooling("10.20.0.11", until_s=1)]
    )
    assert (found.allocated, found.free) == (0, 9)


def test_holders_in_the_overlap_are_not_outside_the_spec_and_the_condition_names_them() -> None:
    found = status([a_record("10.20.0.15"), a_record("10.20.0.10")], overlap=SHARED)
    assert condition(found, "InUseOutsideSpec").status == "False"
    assert (
        "in use through this pool all the same, until their pods go: 10.20.0.15 (shop/cart)."
        in condition(found, "Overlapping").message
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param(
            SHARED,
            "SpiderIPPool b, made earlier, has 10.20.0.15-10.20.0.19: this pool does not hand that out. "
            "No address goes to two pods; exclude what is shared in one of them",
            id="the later one",
        ),
        pytest.param(
            overlap(later="b c"),
            "SpiderIPPools b, c, made later, hand out only what does not overlap this pool. "
            "No address goes to two pods; exclude what is shared in one of them",
            id="the earlier one",
        ),
        pytest.param(
            overlap("b", crosses=True),
            "SpiderIPPool b, made earlier, has a network that crosses this one's, but no address of this pool lies in "
            "it. No address goes to two pods; delete one of those whose networks cross",
            id="networks that cross",
        ),
    ],
)
def test_who_has_the_overlap_is_told_and_what_to_do(given: Overlap, told: str) -> None:
    found = condition(status(overlap=given), "Overlapping")
    assert (found.status, found.reason, found.message) == ("True", "OverlapsPools", told)
    assert condition(status(), "Overlapping").status == "False"


def test_the_first_five_pools_that_overlap_are_named() -> None:
    found = condition(status(overlap=overlap(later="b c d e f g")), "Overlapping")
    assert "SpiderIPPools b, c, d, e, f and 1 more, made later" in found.message


def test_a_pool_whose_addresses_all_belong_to_an_earlier_one_is_not_ready_and_says_whose_they_are() -> None:
    found = condition(status(overlap=overlap("b", ceded=("10.20.0.10-10.20.0.19",))), "Ready")
    assert (found.status, found.reason) == ("False", "NoUsableAddress")
    assert "SpiderIPPool b, made earlier, has 10.20.0.10-10.20.0.19" in found.message


def test_a_pool_that_cannot_be_read_serves_nothing_and_says_why() -> None:
    found = project_unreadable(
        POOL.edition, "10.0.0.9-10.0.0.1 is reversed", [a_record()], before=NOTHING_YET, now=NOON, scanned=True
    )
    assert (found.total, found.allocated, found.free, found.observed_generation) == (0, 1, 0, 1)
    ready = condition(found, "Ready")
    assert (ready.status, ready.reason) == ("False", "Unreadable")
    assert "10.0.0.9-10.0.0.1 is reversed" in ready.message
    assert "10.20.0.10" in (found.allocated_ips or "")


@pytest.mark.parametrize(
    "text", ["2024-01-01t00:00:00z", "2016-12-31T23:59:60Z", "0001-01-01T00:00:00+23:00", "no time"]
)
def test_a_condition_whose_time_cannot_be_read_counts_as_one_of_the_epoch(text: str) -> None:
    raw = encode_status({"metadata": {"name": "a"}}, status())
    raw["status"]["conditions"][0]["lastTransitionTime"] = text
    again = decode_status(raw)
    assert again is not None
    assert again.conditions[0].since.timestamp() == 0


def test_only_a_scan_moves_the_observed_generation() -> None:
    pool = a_pool("10.20.0.10", generation=4)
    assert status(pool=pool).observed_generation == 0
    assert status(pool=pool, scanned=True).observed_generation == 4


def test_a_condition_keeps_its_transition_time_while_its_status_does_not_change() -> None:
    first = status()
    later = status([a_record()], before=first, now=NOON + timedelta(minutes=1))
    assert condition(later, "Exhausted").since == NOON


def test_a_condition_whose_status_changes_takes_the_time_of_the_change() -> None:
    one = a_pool("10.20.0.10")
    later = status([a_record()], one, before=status(pool=one), now=NOON + timedelta(minutes=1))
    assert condition(later, "Exhausted").since == NOON + timedelta(minutes=1)


def test_what_was_written_reads_back_as_the_same_so_that_nothing_is_written_twice() -> None:
    written = status([a_record()], scanned=True, now=NOON + timedelta(microseconds=7))
    again = decode_status(encode_status({"metadata": {"name": "a"}}, written))
    assert again == written
    assert project(POOL, [a_record()], NONE_RESERVED, before=again, now=NOON + timedelta(hours=1)) == written


def test_a_status_of_the_originals_is_not_taken_for_the_projections() -> None:
    assert decode_status({"metadata": {"name": "a"}, "status": {"allocatedIPs": "{}", "totalIPCount": 3}}) is None


def test_keys_and_conditions_of_others_survive_and_the_text_goes_with_the_last_address() -> None:
    others = {"type": "TheirOwn", "status": "True"}
    raw = {"status": {"allocatedIPs": "{}", "newer": 1, "conditions": [others]}}
    after = encode_status(raw, replace(NOTHING_YET, total=3))["status"]
    assert (after["newer"], after["conditions"], after["totalIPCount"]) == (1, [others], 3)
    assert "allocatedIPs" not in after


def test_how_a_pool_stands_to_its_subnet_is_a_condition_of_those_that_have_one() -> None:
    found = status(drift=(True, "DiffersFromSubnet", "SpiderSubnet dc1 has gateway 10.20.0.1"))
    assert condition(found, "SubnetDrift").status == "True"
    assert all(each.type != "SubnetDrift" for each in status().conditions)
    raw = encode_status({"status": {}}, found)
    assert decode_status(raw) == found


def test_what_was_said_before_is_there_for_who_cannot_tell_yet() -> None:
    said = (True, "DiffersFromSubnet", "SpiderSubnet dc1 has gateway 10.20.0.1")
    assert stated("SubnetDrift", status(drift=said).conditions) == said
    assert stated("SubnetDrift", status().conditions) is None
