"""SpiderSubnets whose networks overlap those of other subnets, or cross those of pools."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.domain.addresses import parse_network
from allocator.domain.overlapping import crossing
from allocator.domain.subnet_overlaps import Subnet, SubnetOverlap, finding, subnet_overlaps
from tests.unit.values import NOON

NETWORKS = ("10.0.0.0/28", "10.0.0.0/29", "10.0.0.8/29", "10.0.0.16/28", "10.0.0.0/27", "fd00::/124", "fd00::/125")


def subnet(name: str, network: str, at: int = 0) -> Subnet:
    return Subnet(name, f"uid-{name}", NOON + timedelta(seconds=at), parse_network(network))


@given(st.sets(st.sampled_from(NETWORKS)))
def test_networks_cross_when_they_differ_and_share_an_address(drawn: set[str]) -> None:
    networks = {parse_network(each) for each in drawn}
    slowly = {(left, right) for left in networks for right in networks if left != right and set(right) <= set(left)}
    found = list(crossing(networks))
    assert set(found) == slowly
    assert len(found) == len(slowly)


@pytest.mark.parametrize(
    ("network", "at", "expected"),
    [
        pytest.param("10.1.0.0/16", 0, SubnetOverlap((), (), ()), id="apart"),
        pytest.param("fd00::/64", 0, SubnetOverlap((), (), ()), id="of the other family"),
        pytest.param("10.0.0.0/24", 0, SubnetOverlap((), ("old",), ()), id="the same, made earlier"),
        pytest.param("10.0.0.0/24", 2, SubnetOverlap(("old",), (), ()), id="the same, made later"),
        pytest.param("10.0.0.0/25", 2, SubnetOverlap(("old",), (), ("pool",)), id="within"),
        pytest.param("10.0.0.0/8", 2, SubnetOverlap(("old",), (), ("pool",)), id="around"),
    ],
)
def test_a_subnet_overlaps_subnets_that_share_an_address_and_pools_of_another_network(
    network: str, at: int, expected: SubnetOverlap
) -> None:
    pools = {"pool": parse_network("10.0.0.0/24")}
    found = subnet_overlaps([subnet("old", "10.0.0.0/24", 1), subnet("new", network, at)], pools)
    assert found["new"] == expected
    assert found["old"].pools == ()


def test_the_condition_says_who_goes_before_whom_and_what_to_do() -> None:
    holds, reason, told = finding(SubnetOverlap(("a",), ("b", "c"), ("p",)))
    assert (holds, reason) == (True, "OverlapsNetworks")
    assert told == (
        "networks that share addresses: SpiderSubnet a, made earlier, goes before this one: delete one; "
        "SpiderSubnet b, c, made later, stands back: delete one; "
        "SpiderIPPool p has a network that crosses this one, and is none of its pools: delete it, or this SpiderSubnet"
    )
    assert finding(SubnetOverlap((), (), ()))[:2] == (False, "NoOverlap")
