"""Links, addresses and routes through netlink. Every function works in the namespace of the calling thread.

Run them with namespaces.inside(), never on the event loop's own thread (pyroute2 has a loop of its own inside);
descriptors of other namespaces say where a new link goes.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Any

import pyroute2
from pyroute2.netlink.exceptions import NetlinkError

if TYPE_CHECKING:
    from collections.abc import Mapping

BRIDGE = "underlay"
NODE_LINK = "eth0"  # what a node calls its own link to the underlay, and what macvlan takes as master

# linux/if_addr.h
IFA_F_DADFAILED = 0x08
IFA_F_TENTATIVE = 0x40


class LinkError(Exception):
    """The kernel refused a link, an address or a route, or a duplicate address was found."""


def make_bridge() -> None:
    with pyroute2.IPRoute() as route:
        route.link("add", ifname=BRIDGE, kind="bridge")
        _up(route, "lo")
        _up(route, BRIDGE)


def plug_node(port: str, node_descriptor: int) -> None:
    """A veth pair from the bridge (as `port`, at most 15 characters) into the node's namespace."""
    with pyroute2.IPRoute() as route:
        route.link("add", ifname=port, kind="veth", peer={"ifname": NODE_LINK, "net_ns_fd": node_descriptor})
        route.link("set", index=_index(route, port), master=_index(route, BRIDGE))
        _up(route, port)


def bring_up(*names: str) -> None:
    with pyroute2.IPRoute() as route:
        for name in names:
            _up(route, name)


def make_macvlan(pod_descriptor: int, name: str) -> None:
    """A macvlan in bridge mode on the node's link, born in the pod's namespace."""
    with pyroute2.IPRoute() as route:
        try:
            route.link(
                "add",
                ifname=name,
                kind="macvlan",
                link=_index(route, NODE_LINK),
                macvlan_mode="bridge",
                net_ns_fd=pod_descriptor,
            )
        except NetlinkError as error:
            raise LinkError(f"macvlan {name} on {NODE_LINK}: {error}") from error


def configure(name: str, result: Mapping[str, Any]) -> None:
    """Give link `name` the addresses and routes of a CNI result (version 1.0.0) and bring it up."""
    with pyroute2.IPRoute() as route:
        index = _index(route, name)
        _up(route, name)
        try:
            for ip in result.get("ips") or ():
                address, prefix = str(ip["address"]).split("/")
                route.addr("add", index=index, address=address, prefixlen=int(prefix))
            for item in result.get("routes") or ():
                route.route("add", dst=item["dst"], gateway=item["gw"], oif=index)
        except NetlinkError as error:
            raise LinkError(f"address or route on {name}: {error}") from error


def remove(name: str) -> None:
    """Nothing when there is no such link."""
    with pyroute2.IPRoute() as route:
        for index in route.link_lookup(ifname=name):
            with contextlib.suppress(NetlinkError):
                route.link("del", index=index)


def wait_settled(name: str, *, within_s: float) -> None:
    """Until IPv6 duplicate address detection is over (RFC 4862 5.4): before, nothing can bind an address."""
    deadline = time.monotonic() + within_s
    with pyroute2.IPRoute() as route:
        index = _index(route, name)
        while True:
            flags = [_flags(message) for message in route.get_addr(family=socket.AF_INET6, index=index)]
            if any(flag & IFA_F_DADFAILED for flag in flags):
                raise LinkError(f"{name}: someone else on the underlay uses its IPv6 address")
            if not any(flag & IFA_F_TENTATIVE for flag in flags):
                return
            if time.monotonic() > deadline:
                raise LinkError(f"{name}: IPv6 addresses are still tentative after {within_s:g} s")
            time.sleep(0.02)


def addresses(name: str) -> list[str]:
    """Global addresses of the link with their prefix, as ip(8) prints them; empty when there is no such link."""
    with pyroute2.IPRoute() as route:
        found = route.link_lookup(ifname=name)
        if not found:
            return []
        messages = route.get_addr(index=found[0], scope=0)
        return [f"{message.get('address')}/{message['prefixlen']}" for message in messages]


def names() -> dict[str, str]:
    """Links of this namespace and their kind; "" where the kind is the device's own."""
    with pyroute2.IPRoute() as route:
        return {str(link.get("ifname")): str(link.get(("linkinfo", "kind")) or "") for link in route.get_links()}


def gateways() -> list[str]:
    """Of the IPv4 routes of this namespace."""
    with pyroute2.IPRoute() as route:
        found = (message.get("gateway") for message in route.get_routes(family=socket.AF_INET))
        return [str(gateway) for gateway in found if gateway]


def _flags(message: Any) -> int:
    return int(message.get("flags") or 0)


def _up(route: Any, name: str) -> None:
    route.link("set", index=_index(route, name), state="up")


def _index(route: Any, name: str) -> int:
    found = route.link_lookup(ifname=name)
    if not found:
        raise LinkError(f"there is no link {name} in this network namespace")
    return int(found[0])
