"""The pod's own routes: what the annotation means, and which interface each goes through."""

from __future__ import annotations

import pytest

from allocator.domain import errors
from allocator.domain.addresses import parse_address
from allocator.domain.endpoint import Assigned
from allocator.domain.pool import Route
from allocator.domain.routes import routes_of_pod, spread


def of(text: str) -> tuple[Route, ...]:
    return routes_of_pod({"ipam.spidernet.io/routes": text})


def holds(interface: str, address: str, prefix_length: int, *routes: Route) -> Assigned:
    return Assigned(
        interface=interface,
        address=parse_address(address),
        prefix_length=prefix_length,
        pool="a",
        gateway=None,
        routes=routes,
        clean_gateway=False,
    )


def through(assigned: tuple[Assigned, ...]) -> dict[str, list[str]]:
    return {each.interface: [route.dst for route in each.routes] for each in assigned}


FAR = Route("10.99.0.0/16", "10.20.0.254")


def test_routes_are_read_in_canonical_form() -> None:
    text = '[{"Dst": "10.99.7.0/16", "gw": "10.20.0.254"}, {"dst": "FD00:99::/64", "GW": "fd00:20:0::1"}]'
    assert of(text) == (FAR, Route("fd00:99::/64", "fd00:20::1"))


@pytest.mark.parametrize("annotations", [{}, {"ipam.spidernet.io/routes": "[]"}, {"ipam.spidernet.io/routes": "null"}])
def test_a_pod_may_have_no_routes(annotations: dict[str, str]) -> None:
    assert routes_of_pod(annotations) == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("10.99.0.0/16", "routes is not JSON", id="no JSON"),
        pytest.param('{"dst": "10.99.0.0/16", "gw": "10.20.0.1"}', "routes must be a list of routes", id="one object"),
        pytest.param('["10.99.0.0/16"]', "routes at [0] must be an object", id="a text"),
        pytest.param('[{"gw": "10.20.0.1"}]', "at [0].dst must be a CIDR", id="no destination"),
        pytest.param('[{"dst": "10.99.0.5", "gw": "10.20.0.1"}]', "at [0].dst must be a CIDR", id="no prefix length"),
        pytest.param('[{"dst": "10.99.0.0/33", "gw": "10.20.0.1"}]', "at [0].dst must be a CIDR", id="33 bits"),
        pytest.param(
            '[{"dst": "10.99.0.0/16"}]', "at [0].gw must be an IPv4 address, as the destination is", id="no next hop"
        ),
        pytest.param('[{"dst": "10.99.0.0/16", "gw": "10.20.0"}]', "[0].gw must be an IPv4 address", id="no address"),
        pytest.param('[{"dst": "10.99.0.0/16", "gw": "fd00::1"}]', "[0].gw must be an IPv4 address", id="two families"),
        pytest.param(
            '[{"dst": "fd00:9::/64", "gw": "10.20.0.1"}]', "[0].gw must be an IPv6 address", id="two families again"
        ),
        pytest.param(
            '[{"dst": "10.9.0.0/16", "gw": "10.20.0.1"}, {"dst": "x", "gw": "10.20.0.1"}]', "[1].dst", id="the second"
        ),
    ],
)
def test_a_malformed_route_is_named_with_the_place_and_a_right_example(text: str, told: str) -> None:
    with pytest.raises(errors.Invalid) as refusal:
        of(text)
    assert str(refusal.value).startswith("annotation ipam.spidernet.io/routes ")
    assert told in str(refusal.value)
    assert str(refusal.value).endswith('a right value is [{"dst": "10.99.0.0/16", "gw": "10.20.0.254"}]')


def test_a_route_goes_through_the_interface_whose_subnet_holds_its_next_hop() -> None:
    assigned = (holds("eth0", "10.30.0.7", 16), holds("net1", "10.20.0.7", 16), holds("net1", "fd00:20::7", 64))
    six = Route("fd00:99::/64", "fd00:20::1")
    assert [each.routes for each in spread((FAR, six), assigned, complete=True)] == [(), (FAR,), (six,)]


def test_of_two_interfaces_in_one_subnet_the_first_by_name_has_the_route() -> None:
    eth0, net1 = holds("eth0", "10.20.0.7", 16), holds("net1", "10.20.0.8", 16)
    for assigned in ((eth0, net1), (net1, eth0)):
        assert through(spread((FAR,), assigned, complete=True)) == {"eth0": ["10.99.0.0/16"], "net1": []}


def test_a_route_without_a_place_is_refused_once_no_other_interface_can_come() -> None:
    assigned = (holds("eth0", "10.30.0.7", 16),)
    with pytest.raises(errors.Invalid) as refusal:
        spread((FAR,), assigned, complete=True)
    assert str(refusal.value) == (
        "annotation ipam.spidernet.io/routes has a route through 10.20.0.254, which lies in no subnet of the pod's "
        "interfaces (10.30.0.0/16): name a next hop inside one of them"
    )


def test_a_route_without_a_place_waits_for_the_interfaces_that_may_come() -> None:
    assigned = (holds("eth0", "10.30.0.7", 16),)
    assert spread((FAR,), assigned, complete=False) == assigned


def test_the_pods_own_route_stands_in_for_the_pools_to_the_same_destination() -> None:
    pools = (Route("10.99.0.0/16", "10.20.0.1"), Route("10.98.0.0/16", "10.20.0.1"))
    (given,) = spread((FAR,), (holds("eth0", "10.20.0.7", 16, *pools),), complete=True)
    assert given.routes == (pools[1], FAR)
