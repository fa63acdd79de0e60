"""The pod's own routes (annotation `routes`), and which of its interfaces each goes through."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.domain.addresses import AddressError, parse_address, version_of
from allocator.domain.endpoint import in_order
from allocator.domain.fields import loose_network
from allocator.domain.json_annotation import PREFIX, JsonAnnotation
from allocator.domain.pool import Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from allocator.domain.addresses import Address, Network
    from allocator.domain.endpoint import Assigned

ROUTES: Final = JsonAnnotation(PREFIX + "routes", '[{"dst": "10.99.0.0/16", "gw": "10.20.0.254"}]')


def routes_of_pod(annotations: Mapping[str, str]) -> tuple[Route, ...]:
    """The routes in canonical form. errors.Invalid with the place and a right example when one is malformed."""
    text = annotations.get(ROUTES.key)
    if text is None:
        return ()
    items = ROUTES.parsed(text) or []
    if not isinstance(items, list):
        raise ROUTES.wrong("", "must be a list of routes")
    return tuple(_route(item, f"[{index}]") for index, item in enumerate(items))


def spread(routes: Iterable[Route], assigned: Iterable[Assigned], *, complete: bool) -> tuple[Assigned, ...]:
    """The assigned addresses with the pod's routes: each goes through the first whose subnet holds its next hop.

    There it stands in for a pool's route to the same destination. `complete`: no other interface of the pod can come;
    then one that has no place is errors.Invalid, else it is left for the others.
    """
    held = list(in_order(assigned))
    own: list[list[Route]] = [[] for _ in held]
    for route in routes:
        place = _place(parse_address(route.gw), held)
        if place is not None:
            own[place].append(route)
        elif complete:
            subnets = ", ".join(str(_subnet(each)) for each in held)
            problem = f"has a route through {route.gw}, which lies in no subnet of the pod's interfaces ({subnets})"
            raise errors.Invalid(f"{ROUTES} {problem}: name a next hop inside one of them")
    return tuple(_with(each, mine) for each, mine in zip(held, own, strict=True))


def _with(assigned: Assigned, own: Sequence[Route]) -> Assigned:
    destinations = {route.dst for route in own}
    return replace(assigned, routes=(*(route for route in assigned.routes if route.dst not in destinations), *own))


def _place(gateway: Address, held: Sequence[Assigned]) -> int | None:
    return next((index for index, each in enumerate(held) if gateway in _subnet(each)), None)


def _subnet(assigned: Assigned) -> Network:
    return ip_network(assigned.with_prefix, strict=False)


def _route(raw: object, where: str) -> Route:
    members = ROUTES.members(raw, where)
    destination, gateway = members.get("dst"), members.get("gw")
    network = loose_network(destination) if isinstance(destination, str) else None
    if network is None:
        raise ROUTES.wrong(f"{where}.dst", "must be a CIDR like 10.99.0.0/16 or fd00:99::/64")
    try:
        hop = parse_address(gateway, version_of(network)) if isinstance(gateway, str) else None
    except AddressError:
        hop = None
    if hop is None:
        raise ROUTES.wrong(f"{where}.gw", f"must be an IPv{network.version} address, as the destination is")
    return Route(str(network), str(hop))
