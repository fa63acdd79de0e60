"""What `ip show` says about pools and times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from allocator.domain.addresses import parse_address
from allocator.domain.overlapping import Overlap
from allocator.domain.record import Holder, Record, State
from allocator.kube.codec import decode_pool, decode_reservation
from ctl import address_report
from tests.unit import values

if TYPE_CHECKING:
    from allocator.domain.pool import Pool, Reservation

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ADDRESS = parse_address("10.20.0.12")
SPEC = {"ipVersion": 4, "subnet": "10.20.0.0/16", "ips": ["10.20.0.10-10.20.0.20"]}


def pool(*, meta: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **spec: Any) -> Pool:
    metadata = {"name": "rack7", "uid": "u1", "generation": 1, **(meta or {})}
    return decode_pool({"metadata": metadata, "spec": SPEC | spec, "status": status or {}})


def reservation(*ips: str, version: int = 4, **meta: Any) -> Reservation:
    metadata = {"name": "printers", "uid": "u2", "generation": 1, **meta}
    return decode_reservation({"metadata": metadata, "spec": {"ipVersion": version, "ips": list(ips)}})


@pytest.mark.parametrize(
    ("found", "reservations", "reason"),
    [
        pytest.param(pool(), [], "free", id="free"),
        pytest.param(pool(excludeIPs=["10.20.0.12"]), [], "excluded", id="excluded"),
        pytest.param(pool(gateway="10.20.0.12"), [], "gateway", id="gateway"),
        pytest.param(pool(), [reservation("10.20.0.11-10.20.0.13")], "SpiderReservedIP printers", id="reserved"),
        pytest.param(pool(), [reservation("10.20.0.11")], "free", id="a neighbour is reserved"),
        pytest.param(pool(), [reservation("fd00::c", version=6)], "free", id="IPv6 is reserved"),
        pytest.param(
            pool(),
            [reservation("10.20.0.12", deletionTimestamp="2026-11-22T12:00:00Z")],
            "free",
            id="the reservation is being deleted",
        ),
        pytest.param(pool(disable=True), [], "disabled", id="pool disabled"),
        pytest.param(pool(meta={"deletionTimestamp": "2026-11-22T12:00:00Z"}), [], "being deleted", id="pool deleted"),
        pytest.param(pool(status={"allocatedIPs": "{}"}), [], "not adopted", id="the original's records"),
    ],
)
def test_the_reason_of_a_pool_is_named(found: Pool, reservations: list[Reservation], reason: str) -> None:
    standing = address_report.standing_in(found, ADDRESS, reservations)
    assert reason in standing.reason
    assert standing.is_free is (reason == "free")


def test_of_pools_that_overlap_the_later_one_names_the_earlier_one() -> None:
    overlap = Overlap(("rack6",), (), values.pool("rack7", "10.20.0.12").ips, crosses=False)
    standing = address_report.standing_in(pool(), ADDRESS, [], overlap)
    assert (standing.is_free, standing.reason) == (
        False,
        "not given out: SpiderIPPool rack6, made earlier, has it",
    )
    elsewhere = address_report.standing_in(pool(), parse_address("10.20.0.13"), [], overlap)
    assert elsewhere.is_free


def record(state: State, *, since: datetime = NOON, until: datetime | None = None) -> Record:
    holder = Holder(namespace="shop", pod="cart", pod_uid="u", interface="eth0", node="n", container_id="c")
    return Record(address=ADDRESS, pool="rack7", state=state, holder=holder, since=since, until=until)


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(seconds=5), "5 s ago"),
        (timedelta(seconds=119), "119 s ago"),
        (timedelta(minutes=2), "2 min ago"),
        (timedelta(hours=3), "3 h ago"),
        (timedelta(days=400), "400 d ago"),
        (timedelta(seconds=-5), "do the clocks agree"),
    ],
)
def test_the_age_of_a_record_is_in_words(age: timedelta, words: str) -> None:
    shown = dict(address_report.rows(record(State.HELD, since=NOON - age), NOON))
    assert words in shown["Since"]


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_explained(state: State) -> None:
    shown = dict(address_report.rows(record(state, until=NOON + timedelta(seconds=10)), NOON))
    assert len(shown["State"]) > len(f"{state}, ")
    assert ("Pod" in shown) is (state in (State.HELD, State.CONFLICT))


def test_a_machine_that_migrates_is_shown_with_both_pods() -> None:
    launcher, source = values.launcher("bbbbb"), values.launcher("aaaaa", "u0", node="n0")
    found = values.record("10.20.0.12", launcher, peer=values.holder(source))
    shown = dict(address_report.rows(found, NOON))
    assert shown["Migrates with"] == "shop/virt-launcher-ledger-aaaaa (UID u0) on n0"
    assert shown["Slot"] == "VirtualMachineInstance shop/ledger"
    assert address_report.document(address_report.Report(ADDRESS, found))["peer"]["podUID"] == "u0"
