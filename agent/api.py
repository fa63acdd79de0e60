"""What the agent API answers, version 1: JSON forms as the original's plugin and its users read them.

Member names and which members are left out are the wire format. The forms are here twice: as types, which the OpenAPI
document shows, and as the functions that make them; a test holds real answers against the document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from allocator.domain.dns import NO_DNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from allocator.domain.dns import PodDns
    from allocator.domain.endpoint import Assigned
    from allocator.domain.request import Pod

_DEFAULT_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}


class Route(TypedDict):
    ifName: str
    dst: str
    gw: str


class IpConfig(TypedDict):
    version: int
    address: str
    nic: str
    ipPool: NotRequired[str]
    gateway: NotRequired[str]
    vlan: NotRequired[int]
    enableIPConflictDetection: NotRequired[bool]
    enableGatewayDetection: NotRequired[bool]


class Dns(TypedDict):
    nameservers: NotRequired[list[str]]
    domain: NotRequired[str]
    search: NotRequired[list[str]]
    options: NotRequired[list[str]]


class IpamAddResponse(TypedDict):
    ips: list[IpConfig]
    routes: list[Route]
    dns: Dns


class WorkloadInterface(TypedDict):
    interface: str
    ipv4: NotRequired[str]
    ipv6: NotRequired[str]
    ipv4Pool: NotRequired[str]
    ipv6Pool: NotRequired[str]
    ipv4Gateway: NotRequired[str]
    ipv6Gateway: NotRequired[str]
    vlan: NotRequired[int]
    routes: list[Route]


class WorkloadEndpointStatus(TypedDict):
    podNamespace: str
    podName: str
    podUID: str
    node: str
    interfaces: list[WorkloadInterface]


@dataclass(frozen=True, slots=True)
class Detection:
    """What the original's plugin is to find out on the wire before it uses an address."""

    conflict: bool = False
    gateway: bool = False

    def flags(self, assigned: Assigned) -> dict[str, bool]:
        """Of an address that a machine brings along from another pod the other pod would be found."""
        flags = {
            "enableIPConflictDetection": self.conflict and not assigned.shared,
            "enableGatewayDetection": self.gateway,
        }
        return {key: value for key, value in flags.items() if value}


def add_response(assigned: Sequence[Assigned], detection: Detection) -> dict[str, Any]:
    """IpamAddResponse: every address with its gateway, and the routes of pools and pod with the default routes."""
    ips: list[dict[str, Any]] = []
    routes: list[dict[str, str]] = []
    for each in assigned:
        ips.append(
            {
                "address": each.with_prefix,
                "ipPool": each.pool,
                "nic": each.interface,
                "version": each.version,
                **({} if each.gateway is None else {"gateway": str(each.gateway)}),
                **detection.flags(each),
            }
        )
        routes += _routes(each)
        default = _DEFAULT_ROUTES[each.version]
        # A default route of the pod's own stands in for the gateway's.
        if each.gateway is not None and not each.clean_gateway and all(route.dst != default for route in each.routes):
            routes.append({"ifName": each.interface, "dst": default, "gw": str(each.gateway)})
    return {"ips": ips, "routes": routes, "dns": _dns(assigned[0].dns if assigned else NO_DNS)}


def workload_endpoint(pod: Pod, assigned: Iterable[Assigned]) -> dict[str, Any]:
    """WorkloadEndpointStatus: what the pod's interfaces hold."""
    interfaces: dict[str, dict[str, Any]] = {}
    for each in assigned:
        entry = interfaces.setdefault(each.interface, {"interface": each.interface, "routes": []})
        family = f"ipv{each.version}"
        entry |= {family: each.with_prefix, f"{family}Pool": each.pool}
        if each.gateway is not None:
            entry[f"{family}Gateway"] = str(each.gateway)
        entry["routes"] += _routes(each)
    return {
        "podNamespace": pod.namespace,
        "podName": pod.name,
        "podUID": pod.uid,
        "node": pod.node,
        "interfaces": list(interfaces.values()),
    }


def _routes(assigned: Assigned) -> list[dict[str, str]]:
    return [{"ifName": assigned.interface, "dst": route.dst, "gw": route.gw} for route in assigned.routes]


def _dns(dns: PodDns) -> dict[str, Any]:
    members = {
        "nameservers": list(dns.nameservers),
        "domain": dns.domain,
        "search": list(dns.search),
        "options": list(dns.options),
    }
    return {key: value for key, value in members.items() if value}
