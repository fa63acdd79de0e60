"""SpiderReservedIP, SpiderEndpoint, and objects side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from allocator.domain import defaulting, overlap, validation
from allocator.domain.validation import Families

if TYPE_CHECKING:
    from allocator.domain.overlap import Extent

BOTH = Families()


def reservation(**spec: Any) -> dict[str, Any]:
    return defaulting.complete_reservation({"kind": "SpiderReservedIP", "spec": spec})


@pytest.mark.parametrize(
    ("spec", "problems"),
    [
        pytest.param({"ips": ["10.20.0.2-10.20.0.3"]}, [], id="right"),
        pytest.param({"ips": ["fd00::-fd00::ffff:ffff:ffff:ffff"]}, [], id="a whole /64"),
        pytest.param({"ipVersion": 4}, [], id="family without addresses"),
        pytest.param({"ips": []}, [("Invalid", "spec.ipVersion")], id="nothing"),
        pytest.param({}, [("Invalid", "spec.ipVersion")], id="no fields"),
        pytest.param({"ipVersion": 7, "ips": ["10.0.0.1"]}, [("NotSupported", "spec.ipVersion")], id="family seven"),
        pytest.param({"ipVersion": 4, "ips": ["fd00::1"]}, [("Invalid", "spec.ips[0]")], id="other family"),
        pytest.param({"ips": ["10.0.0.1", "fd00::1"]}, [("Invalid", "spec.ips[1]")], id="both families"),
        pytest.param({"ips": ["10.0.0.1", "10.0.0.9-10.0.0.2"]}, [("Invalid", "spec.ips[1]")], id="reversed"),
        pytest.param({"ipVersion": 4, "ips": [None]}, [("Invalid", "spec.ips[0]")], id="null item"),
    ],
)
def test_a_reservation_is_judged(spec: dict[str, Any], problems: list[tuple[str, str]]) -> None:
    found = validation.validate_reservation(reservation(**spec), BOTH)
    assert [(e.type, e.field) for e in found] == problems


def test_the_family_of_a_reservation_is_immutable() -> None:
    found = validation.validate_reservation_update(reservation(ips=["10.0.0.1"]), reservation(ips=["fd00::1"]), BOTH)
    assert [(e.type, e.field) for e in found] == [("Forbidden", "spec.ipVersion")]


@pytest.mark.parametrize(
    ("detail", "fields"),
    [
        pytest.param({"interface": "eth0", "ipv4": "10.20.0.10/16", "ipv4Gateway": "10.20.0.1"}, [], id="right"),
        pytest.param({"interface": "", "ipv6": "fd00::1/64"}, [], id="no name yet"),
        pytest.param({"ipv4": "10.20.0.10"}, ["ipv4"], id="no prefix length"),
        pytest.param({"ipv4": "fd00::1/64"}, ["ipv4"], id="other family"),
        pytest.param({"ipv6": 7, "ipv6Gateway": "x"}, ["ipv6", "ipv6Gateway"], id="nonsense"),
    ],
)
def test_an_endpoint_edited_by_hand_is_judged(detail: dict[str, Any], fields: list[str]) -> None:
    found = validation.validate_endpoint({"status": {"current": {"ips": [detail]}}})
    assert [e.field for e in found] == [f"status.current.ips[0].{field}" for field in fields]


@pytest.mark.parametrize(
    "status", [None, [], {"current": 1}, {"current": {"ips": 1}}, {"current": {"ips": [1]}}], ids=str
)
def test_an_endpoint_of_any_form_is_judged_without_failing(status: Any) -> None:
    assert len(validation.validate_endpoint({"status": status})) <= 1


def extent(name: str, subnet: str, *ips: str, kind: str = "SpiderIPPool", **spec: Any) -> Extent:
    raw = {"kind": kind, "metadata": {"name": name, "uid": name}, "spec": {"subnet": subnet, "ips": list(ips), **spec}}
    found = overlap.extent_of(raw)
    assert found is not None
    return found


POOL_A = extent("a", "10.20.0.0/16", "10.20.0.10-10.20.0.20", excludeIPs=["10.20.0.15"])


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        pytest.param(extent("b", "10.20.0.0/16", "10.20.0.15"), None, id="takes what is excluded"),
        pytest.param(extent("b", "10.20.0.0/16", "10.20.0.20-10.20.0.30"), ("Forbidden", "spec.ips"), id="shares one"),
        pytest.param(extent("b", "10.20.0.0/16"), None, id="empty"),
        pytest.param(extent("b", "10.20.4.0/24"), ("Invalid", "spec.subnet"), id="network inside"),
        pytest.param(extent("b", "10.0.0.0/8"), ("Invalid", "spec.subnet"), id="network around"),
        pytest.param(extent("b", "10.21.0.0/16"), None, id="beside"),
        pytest.param(extent("b", "::/0"), None, id="other family"),
        pytest.param(extent("a", "10.20.0.0/16", "10.20.0.10"), None, id="itself"),
    ],
)
def test_pools_side_by_side(other: Extent, problem: tuple[str, str] | None) -> None:
    clashes = overlap.pool_clashes(other, [POOL_A])
    assert [(c.problem.type, c.problem.field) for c in clashes] == ([problem] if problem else [])
    assert all('SpiderIPPool "a"' in clash.problem.message for clash in clashes)


@pytest.mark.parametrize(
    ("subnets", "pools", "problems"),
    [
        pytest.param([extent("s", "10.20.0.0/16", kind="SpiderSubnet")], [], ["spec.subnet"], id="equal subnet"),
        pytest.param([extent("s", "10.20.1.0/24", kind="SpiderSubnet")], [], ["spec.subnet"], id="subnet inside"),
        pytest.param([extent("s", "10.21.0.0/16", kind="SpiderSubnet")], [], [], id="subnet beside"),
        pytest.param([], [extent("p", "10.0.0.0/8")], ["spec.subnet"], id="pool around"),
        pytest.param([], [extent("p", "10.20.0.0/16", "10.20.0.1-10.20.0.9")], [], id="pool inside ips"),
        pytest.param([], [extent("p", "10.20.0.0/16", "10.20.0.1-10.20.0.100")], ["spec.ips"], id="pool beyond ips"),
    ],
)
def test_a_subnet_beside_others(subnets: list[Extent], pools: list[Extent], problems: list[str]) -> None:
    subnet = extent("n", "10.20.0.0/16", "10.20.0.1-10.20.0.99", kind="SpiderSubnet")
    assert [c.problem.field for c in overlap.subnet_clashes(subnet, subnets, pools)] == problems


@pytest.mark.parametrize("spec", [None, {}, {"subnet": None}, {"subnet": "x"}, {"subnet": 7}], ids=str)
def test_a_stored_object_that_cannot_be_read_takes_up_nothing(spec: Any) -> None:
    assert overlap.extent_of({"spec": spec}) is None


def test_a_stored_pool_without_a_family_still_counts() -> None:
    assert extent("old", "10.20.0.0/16", "10.20.0.1").version == 4


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        pytest.param(extent("p", "10.20.0.0/16", "10.20.0.5"), "", id="inside"),
        pytest.param(extent("p", "10.20.0.0/16"), "", id="empty"),
        pytest.param(extent("p", "10.20.0.0/24", "10.20.0.200"), "", id="another network"),
        pytest.param(extent("p", "10.20.0.0/16", "10.20.0.98-10.20.0.101"), "10.20.0.100-10.20.0.101", id="beyond"),
    ],
)
def test_a_pool_of_a_subnets_network_lies_inside_what_the_subnet_offers(pool: Extent, words: str) -> None:
    clashes = overlap.owner_clashes(pool, [extent("dc1", "10.20.0.0/16", "10.20.0.1-10.20.0.99", kind="SpiderSubnet")])
    assert [(c.problem.type, c.problem.field) for c in clashes] == ([("Forbidden", "spec.ips")] if words else [])
    assert all(f'{words} is not offered by SpiderSubnet "dc1"' in clash.problem.message for clash in clashes)


def test_a_pool_whose_network_crosses_a_subnets_is_seen() -> None:
    pool = extent("p", "10.20.0.0/24")
    subnets = [extent(n, net, kind="SpiderSubnet") for n, net in (("a", "10.20.0.0/16"), ("b", "10.21.0.0/16"))]
    subnets += [extent("same", "10.20.0.0/24", kind="SpiderSubnet"), extent("six", "::/0", kind="SpiderSubnet")]
    assert [subnet.name for subnet in overlap.crossed(pool, subnets)] == ["a"]
