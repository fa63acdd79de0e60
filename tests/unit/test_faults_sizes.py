"""No object of ours outgrows what etcd takes (FAULTS.md, F30)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from allocator.domain.addresses import IntervalSet
from allocator.domain.projection import NOTHING_YET, TEXT_LIMIT, project
from allocator.kube.pool_status import encode_status
from tests.unit.records import NOON, a_pool, a_record

if TYPE_CHECKING:
    from allocator.domain.projection import PoolStatus
    from allocator.domain.record import Record

# etcd's default for a whole request.
ETCD_LIMIT = 3 * 512 * 1024


def status(records: list[Record]) -> PoolStatus:
    pool = a_pool("fd00::1-fd00::ffff", subnet="fd00::/64")
    return project(pool, records, IntervalSet(6), before=NOTHING_YET, now=NOON)


def stored(found: PoolStatus) -> int:
    """What the API server makes of the pool, at least."""
    return len(msgspec.json.encode(encode_status({"status": {}}, found)))


def records_of_pods_named(name: str, count: int = TEXT_LIMIT) -> list[Record]:
    uid = "9e0c6a52-5b0a-4f6e-9a53-0d6f1f1f5a01"
    return [a_record(f"fd00::{number:x}", pod=name, pod_uid=uid) for number in range(1, count + 1)]


def test_the_text_of_the_longest_names_would_be_too_long_for_etcd_and_is_left_out_and_told() -> None:
    found = status(records_of_pods_named("p" * 253))
    assert found.allocated_ips is None
    assert [each.reason for each in found.conditions if each.type == "AllocatedIPsOmitted"] == ["TooManyRecords"]
    assert stored(found) < ETCD_LIMIT


def test_the_longest_text_that_is_written_leaves_room_for_the_rest_of_the_pool() -> None:
    longest = max(
        (status(records_of_pods_named("p" * length)) for length in range(13, 254, 20)),
        key=lambda found: len(found.allocated_ips or ""),
    )
    assert longest.allocated_ips is not None
    assert ETCD_LIMIT / 2 < stored(longest) < ETCD_LIMIT * 0.9


def test_names_as_deployments_make_them_are_listed_up_to_the_full_number() -> None:
    assert status(records_of_pods_named("checkout-frontend-7c9d8b6f5d-x2x4z")).allocated_ips is not None
