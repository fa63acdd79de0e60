"""Where a pod's endpoint and the ledger disagree: which of them is believed."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from allocator.domain.mending import NETWORK_STATUS, Disagreement, Shown, compare, has_another, reported_addresses
from tests.unit.records import a_pod, a_record

POD = a_pod(ips=("10.20.0.10",))
SHOWN = Shown("eth0", ip_address("10.20.0.10"), "a")


def test_an_endpoint_that_says_what_the_ledger_says_needs_nothing() -> None:
    assert not compare(POD, [a_record()], [SHOWN])


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param([], id="is missing"),
        pytest.param([Shown("eth0", ip_address("10.20.0.11"), "a")], id="shows another address"),
        pytest.param([Shown("net1", ip_address("10.20.0.10"), "a")], id="shows another interface"),
        pytest.param([Shown("eth0", ip_address("10.20.0.10"), "b")], id="shows another pool"),
        pytest.param([SHOWN, Shown("net1", ip_address("10.20.0.11"), "a")], id="shows one more"),
    ],
)
def test_the_ledger_is_believed_where_the_endpoint(shown: list[Shown]) -> None:
    assert compare(POD, [a_record()], shown) == Disagreement(lost=(), is_outdated=True)


def test_an_address_that_endpoint_and_node_both_report_has_lost_its_record() -> None:
    assert compare(POD, [], [SHOWN]).lost == (SHOWN,)


def test_the_word_of_the_endpoint_alone_brings_no_record_back() -> None:
    assert compare(a_pod(), [], [SHOWN]) == Disagreement(lost=(), is_outdated=True)


def test_an_interface_that_has_an_address_has_lost_none_whatever_its_node_still_reports() -> None:
    elsewhere = a_record("10.20.0.11")
    assert compare(POD, [elsewhere], [SHOWN]).lost == ()


def test_a_record_beside_another_of_its_family_is_one_too_many() -> None:
    record = a_record()
    assert has_another(record, [record, a_record("10.20.0.11")])
    assert not has_another(record, [record, a_record("fd00::1"), a_record("10.20.0.11", pod_uid="uid-2")])


def test_of_two_records_of_an_interface_the_one_that_its_node_does_not_report_is_spare() -> None:
    used, spare = a_record(), a_record("10.20.0.11")
    assert compare(POD, [used, spare], [SHOWN]).spare == (spare,)
    assert compare(a_pod(), [used, spare], [SHOWN]).spare == ()
    assert compare(POD, [used, a_record("fd00::1")], [SHOWN]).spare == ()


def test_of_further_interfaces_the_node_reports_what_multus_wrote() -> None:
    text = '[{"name": "a", "interface": "eth0", "ips": ["10.20.0.10"]}, {"name": "b", "ips": ["fd00::1", "10.21.0.1"]}]'
    pod = a_pod(ips=("10.20.0.10",), annotations={NETWORK_STATUS: text})
    reported = {str(address) for address in reported_addresses(pod)}
    assert reported == {"10.20.0.10", "fd00::1", "10.21.0.1"}


@pytest.mark.parametrize("text", ["", "{", "3", '["a"]', '[{"ips": 3}]', '[{"ips": [3, "x"]}]', "[" * 100_000])
def test_an_annotation_of_another_form_reports_nothing(text: str) -> None:
    assert not list(reported_addresses(a_pod(annotations={NETWORK_STATUS: text})))
