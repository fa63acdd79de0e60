"""Rules that SpiderIPPool and SpiderSubnet share: subnet, ranges, gateway, routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from allocator.domain import fields
from allocator.domain.addresses import (
    AddressError,
    IntervalSet,
    parse_address,
    parse_network,
    parse_span,
    version_of,
)

if TYPE_CHECKING:
    from allocator.domain.addresses import Address, Network, Span, Version
    from allocator.domain.fields import Problems, Raw


@dataclass(frozen=True, slots=True)
class Frame:
    """What the other fields are measured by: the family, and the network where it can be read."""

    version: Version | None
    subnet: Network | None

    @property
    def family(self) -> Version | None:
        return version_of(self.subnet) if self.subnet is not None else self.version


def check_network(spec: Raw, version: Version | None, problems: Problems) -> None:
    frame = Frame(version, _read_subnet(spec, version, problems))
    ips = _check_items(spec, "ips", frame, problems)
    excludes = _check_items(spec, "excludeIPs", frame, problems)
    gateway = _check_gateway(spec, frame, problems)
    if gateway is not None:
        _check_gateway_kept(gateway, ips, excludes, spec, problems)
    _check_routes(spec, frame, problems)


def without_value(value: str, error: AddressError) -> str:
    """The words of the error without the quoted value, which the answer shows already."""
    return str(error).removeprefix(f'"{value}" ')


def check_endpoint_detail(detail: Raw, path: str, problems: Problems) -> None:
    """One entry of `status.current.ips` of a SpiderEndpoint."""
    versions: tuple[Version, Version] = (4, 6)
    for version in versions:
        _check_interface(detail.get(f"ipv{version}"), f"{path}.ipv{version}", version, problems)
        gateway = detail.get(f"ipv{version}Gateway")
        if gateway not in (None, ""):
            _read_address(gateway, f"{path}.ipv{version}Gateway", version, problems)


def _check_interface(value: object, path: str, version: Version, problems: Problems) -> None:
    if value in (None, ""):
        return
    try:
        is_right = isinstance(value, str) and "/" in value and ip_interface(value).version == version
    except ValueError:
        is_right = False
    if not is_right:
        example = "10.20.0.10/16" if version == 4 else "fd00:20::10/64"
        problems.invalid(path, value, f"is no IPv{version} address with prefix length: write {example}")


def _read_subnet(spec: Raw, version: Version | None, problems: Problems) -> Network | None:
    text = spec.get("subnet")
    if text is None:
        problems.required("spec.subnet", "write the network of the addresses, for example 10.20.0.0/16")
        return None
    if not isinstance(text, str):
        problems.invalid("spec.subnet", text, "must be a text")
        return None
    # The rest is measured by the network that was meant, host bits or not.
    network = fields.loose_network(text)
    try:
        parse_network(text)
    except AddressError as error:
        problems.invalid("spec.subnet", text, without_value(text, error))
    if network is not None and version is not None and network.version != version:
        message = f"is IPv{network.version}, but spec.ipVersion is {version}: leave spec.ipVersion out"
        problems.invalid("spec.subnet", text, message)
    return network


def _check_items(spec: Raw, key: str, frame: Frame, problems: Problems) -> list[tuple[int, Span]]:
    """The (index, span) pairs of the items that are right."""
    path = f"spec.{key}"
    items = fields.list_at(spec, key, path, problems, most=fields.MAX_ITEMS)
    spans = []
    for index, item in enumerate(items):
        span = _check_item(item, f"{path}[{index}]", frame, problems)
        if span is not None:
            spans.append((index, span))
    return spans


def _check_item(item: object, path: str, frame: Frame, problems: Problems) -> Span | None:
    if not isinstance(item, str):
        problems.invalid(path, item, "must be a text")
        return None
    try:
        first, last = parse_span(item, frame.family or (6 if ":" in item else 4))
    except AddressError as error:
        problems.invalid(path, item, without_value(item, error))
        return None
    subnet = frame.subnet
    if subnet is not None and not int(subnet.network_address) <= first <= last <= int(subnet.broadcast_address):
        message = f"lies outside spec.subnet {subnet}: write addresses from {subnet[0]} to {subnet[-1]}"
        problems.invalid(path, item, message)
        return None
    return first, last


def _check_gateway(spec: Raw, frame: Frame, problems: Problems) -> Address | None:
    if spec.get("gateway") is None:
        return None
    gateway = _read_address(spec["gateway"], "spec.gateway", frame.family, problems)
    if gateway is None or not _is_inside(gateway, frame.subnet):
        if gateway is not None:
            problems.invalid(
                "spec.gateway", str(gateway), f"lies outside spec.subnet {frame.subnet}: write one of its addresses"
            )
        return None
    return gateway


def _check_gateway_kept(
    gateway: Address,
    ips: list[tuple[int, Span]],
    excludes: list[tuple[int, Span]],
    spec: Raw,
    problems: Problems,
) -> None:
    value = int(gateway)
    if any(first <= value <= last for _, (first, last) in excludes):
        return
    for index, (first, last) in ips:
        if first <= value <= last:
            message = f"contains the gateway {gateway}: take it out, or add it to excludeIPs"
            problems.invalid(f"spec.ips[{index}]", spec["ips"][index], message)


def _check_routes(spec: Raw, frame: Frame, problems: Problems) -> None:
    seen: dict[str, int] = {}
    for index, route in enumerate(fields.list_at(spec, "routes", "spec.routes", problems)):
        path = f"spec.routes[{index}]"
        if not isinstance(route, Mapping):
            problems.invalid(path, route, "must be a route: write {dst: 10.99.0.0/16, gw: 10.20.0.254}")
            continue
        network = _check_destination(route.get("dst"), f"{path}.dst", frame, problems)
        if network is not None:
            earlier = seen.setdefault(str(network), index)
            if earlier != index:
                message = f"is the destination of spec.routes[{earlier}] too: keep one"
                problems.duplicate(f"{path}.dst", route["dst"], message)
        gateway = _read_address(route.get("gw"), f"{path}.gw", frame.family, problems)
        if gateway is not None and not _is_inside(gateway, frame.subnet):
            message = f"lies outside spec.subnet {frame.subnet}: write a next hop inside it"
            problems.invalid(f"{path}.gw", route["gw"], message)


def _check_destination(value: object, path: str, frame: Frame, problems: Problems) -> Network | None:
    if value is None:
        problems.required(path, "write the destination, for example 10.99.0.0/16")
        return None
    if not isinstance(value, str):
        problems.invalid(path, value, "must be a text")
        return None
    network = fields.loose_network(value)
    if network is None:
        problems.invalid(path, value, "is not a CIDR: write 10.99.0.0/16 or fd00:99::/64")
        return None
    if network.prefixlen == 0:
        problems.invalid(path, value, "is a default route: set spec.gateway instead")
        return None
    if frame.family is not None and network.version != frame.family:
        problems.invalid(path, value, f"is IPv{network.version}, but the pool is IPv{frame.family}: take it out")
        return None
    return network


def _read_address(value: object, path: str, version: Version | None, problems: Problems) -> Address | None:
    if value is None:
        problems.required(path, "write an address")
        return None
    if not isinstance(value, str):
        problems.invalid(path, value, "must be a text")
        return None
    try:
        return parse_address(value, version)
    except AddressError as error:
        problems.invalid(path, value, without_value(value, error))
        return None


def _is_inside(address: Address, subnet: Network | None) -> bool:
    """Whether the subnet, where it is known, holds the address."""
    return subnet is None or address in IntervalSet.network(subnet)
