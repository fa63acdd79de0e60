"""What a pod that asks for addresses of SpiderSubnets is told when it is created."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from allocator.domain.subnet_advice import KnownSubnet, Subnets, subnet_warnings

if TYPE_CHECKING:
    from allocator.domain.addresses import Version

PREFIX = "ipam.spidernet.io/"
SUBNET = f"{PREFIX}subnet"
STANDING = {
    "a": KnownSubnet(4),
    "b": KnownSubnet(4),
    "six": KnownSubnet(6),
    "leaving": KnownSubnet(4, is_leaving=True),
    "just-made": KnownSubnet(None),
}


def told(
    annotations: dict[str, str], subnets: Subnets | None = None, versions: tuple[Version, ...] = (4, 6)
) -> list[str]:
    ours = {f"{PREFIX}{key}": text for key, text in annotations.items()}
    return [*subnet_warnings(ours, subnets or Subnets(find=STANDING.get), versions)]


@pytest.mark.parametrize(
    "annotations",
    [
        pytest.param({}, id="none of them"),
        pytest.param({"subnet": '{"ipv4": ["a", "b"], "ipv6": ["six"]}', "ippool-ip-number": "+0"}, id="all is well"),
        pytest.param({"subnet": '{"ipv4": ["just-made"]}'}, id="one whose family is not known yet"),
        pytest.param({"subnets": '[{"interface": "eth0", "ipv4": ["a"]}]', "subnet": "{"}, id="a beaten one"),
        pytest.param({"ippool-ip-number": "5", "ippool-reclaim": "false"}, id="subnets may come from the namespace"),
    ],
)
def test_nothing_is_said_of_what_may_be_meant_so(annotations: dict[str, str]) -> None:
    assert told(annotations) == []


@pytest.mark.parametrize(
    ("annotations", "warning"),
    [
        pytest.param(
            {"subnet": '{"ipv4": ["a", "x", "leaving", "six"]}'},
            f"annotation {SUBNET}: x: there is no SpiderSubnet of this name; leaving: the subnet is being deleted; "
            "six: the subnet is IPv6, listed for IPv4",
            id="some do not serve",
        ),
        pytest.param(
            {"subnet": '{"ipv4": ["x", "y"]}'},
            f"no IPv4 SpiderSubnet of the annotation {SUBNET} serves eth0 of this pod now: "
            "x, y: there is no SpiderSubnet of this name",
            id="none serves",
        ),
        pytest.param(
            {"subnets": '[{"interface": "eth0", "ipv4": ["a"]}, {"interface": "net1", "ipv6": ["b"]}]'},
            f"no IPv6 SpiderSubnet of the annotation {PREFIX}subnets serves net1 of this pod now: "
            "b: the subnet is IPv4, listed for IPv6",
            id="of a second interface",
        ),
        pytest.param(
            {"subnet": '{"ipv4": ["a"]}', "ippool-ip-number": "0"},
            f'annotation {PREFIX}ippool-ip-number is "0": a pool without addresses serves no pod',
            id="no address",
        ),
        pytest.param(
            {"ippool": "a", "ippool-ip-number": "5"},
            f"annotation {PREFIX}ippool-ip-number means nothing beside {PREFIX}ippool: no pool is made for this pod",
            id="a number beside a pool",
        ),
    ],
)
def test_what_is_certain_is_told(annotations: dict[str, str], warning: str) -> None:
    assert told(annotations) == [warning]


def test_a_family_that_is_switched_off_is_not_looked_at() -> None:
    assert told({"subnet": '{"ipv4": ["a"], "ipv6": ["x"]}'}, versions=(4,)) == [
        f"annotation {SUBNET}: IPv6 is switched off in this cluster, so this is not looked at: x"
    ]


def test_where_nobody_knows_the_subnets_nothing_is_said_of_them() -> None:
    assert told({"subnet": '{"ipv4": ["x"]}'}, Subnets(find=None)) == []


def test_of_what_is_switched_off_only_that_is_told() -> None:
    asked = {"subnet": '{"ipv4": ["x"]}', "ippool-ip-number": "0"}
    assert told(asked, Subnets(find=STANDING.get, is_on=False)) == [
        f"annotation {SUBNET} is not looked at: enableSpiderSubnet is false in this cluster"
    ]
    (warning,) = told(asked, Subnets(find=STANDING.get, makes_pools=False))
    assert warning.startswith(f"annotation {SUBNET} will be refused when the pod asks for its address: enableAutoPool")
