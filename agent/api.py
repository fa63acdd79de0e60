"""The agent API, version 1: JSON forms on the unix socket, as the original's plugin sends and reads them.

Member names, the bare-string errors and which members are left out are the wire format; values become those of the
domain here and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from allocator.domain.request import AddRequest, DelRequest, Interface

if TYPE_CHECKING:
    from collections.abc import Iterable

    from allocator.domain.endpoint import Assigned
    from allocator.domain.request import Pod

T = TypeVar("T")

_DEFAULT_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}


class BadBody(ValueError):
    """The body is not what the operation takes. `code` is the original's: 400 no JSON, 601 wrong type, 602 missing."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class _AddArgs(msgspec.Struct, rename="camel"):
    container_id: str = msgspec.field(name="containerID")
    if_name: str
    net_namespace: str
    pod_namespace: str
    pod_name: str
    pod_uid: str = msgspec.field(name="podUID")
    default_ipv4_pools: list[str] | None = msgspec.field(name="defaultIPv4IPPool", default=None)
    default_ipv6_pools: list[str] | None = msgspec.field(name="defaultIPv6IPPool", default=None)
    clean_gateway: bool = False
    match_master_subnet: bool = False
    network_name: str = ""


class _DelArgs(msgspec.Struct, rename="camel"):
    container_id: str = msgspec.field(name="containerID")
    if_name: str
    pod_namespace: str
    pod_name: str
    pod_uid: str = msgspec.field(name="podUID")
    net_namespace: str = ""


_add_args = msgspec.json.Decoder(_AddArgs)
_del_args = msgspec.json.Decoder(_DelArgs)


def read_add(body: bytes) -> AddRequest:
    """IpamAddArgs. Unknown members are ignored: a newer plugin may send more. BadBody says what is wrong."""
    args = _decoded(_add_args, body)
    return AddRequest(
        namespace=args.pod_namespace,
        pod=args.pod_name,
        pod_uid=args.pod_uid,
        interface=Interface(container_id=args.container_id, name=args.if_name, netns=args.net_namespace),
        default_ipv4_pools=tuple(args.default_ipv4_pools or ()),
        default_ipv6_pools=tuple(args.default_ipv6_pools or ()),
        clean_gateway=args.clean_gateway,
        match_master_subnet=args.match_master_subnet,
        network=args.network_name,
    )


def read_del(body: bytes) -> DelRequest:
    """IpamDelArgs. BadBody says what is wrong."""
    args = _decoded(_del_args, body)
    return DelRequest(
        namespace=args.pod_namespace,
        pod=args.pod_name,
        pod_uid=args.pod_uid,
        interface=Interface(container_id=args.container_id, name=args.if_name, netns=args.net_namespace),
    )


def add_response(assigned: Iterable[Assigned]) -> dict[str, Any]:
    """IpamAddResponse: every address with its gateway, and the routes of the pools with the default routes."""
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
            }
        )
        routes += [{"ifName": each.interface, "dst": route.dst, "gw": route.gw} for route in each.routes]
        if each.gateway is not None and not each.clean_gateway:
            route = {"ifName": each.interface, "dst": _DEFAULT_ROUTES[each.version], "gw": str(each.gateway)}
            routes.append(route)
    return {"ips": ips, "routes": routes, "dns": {}}


def workload_endpoint(pod: Pod, assigned: Iterable[Assigned]) -> dict[str, Any]:
    """WorkloadEndpointStatus: what the pod's interfaces hold."""
    interfaces: dict[str, dict[str, Any]] = {}
    for each in assigned:
        entry = interfaces.setdefault(each.interface, {"interface": each.interface, "routes": []})
        family = f"ipv{each.version}"
        entry |= {family: each.with_prefix, f"{family}Pool": each.pool}
        if each.gateway is not None:
            entry[f"{family}Gateway"] = str(each.gateway)
        entry["routes"] += [{"ifName": each.interface, "dst": route.dst, "gw": route.gw} for route in each.routes]
    return {
        "podNamespace": pod.namespace,
        "podName": pod.name,
        "podUID": pod.uid,
        "node": pod.node,
        "interfaces": list(interfaces.values()),
    }


def _decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        code = 602 if "missing required" in str(error) else 601
        raise BadBody(code, f"{error} in body") from None
    except msgspec.DecodeError as error:
        raise BadBody(400, f"the body is not JSON: {error}") from None
    except RecursionError:
        raise BadBody(400, "the body is nested too deeply") from None
