"""The underlay: one bridge in a namespace of its own, and nodes plugged into it.

The host's namespace stays as it was: both ends of every cable lie in namespaces made here.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

from pyroute2.netlink.exceptions import NetlinkError

from devcluster.nodes import links, namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Underlay:
    """Made by `underlay()`. Not safe to use from several threads at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: list[namespaces.Namespace] = []
        self._ports = itertools.count(1)
        self._bridge = self._new("underlay")

    async def build(self) -> None:
        await namespaces.inside(self._bridge, links.make_bridge)

    async def add_node(self, name: str) -> namespaces.Namespace:
        """A node's namespace with its link eth0 on the underlay, up."""
        node = self._new(name)
        await namespaces.inside(self._bridge, links.plug_node, f"port{next(self._ports)}", node.descriptor)
        await namespaces.inside(node, links.bring_up, "lo", links.NODE_LINK)
        return node

    async def add_sandbox(self, name: str) -> namespaces.Namespace:
        """A pod's namespace with nothing but its loopback."""
        sandbox = self._new(name)
        await namespaces.inside(sandbox, links.bring_up, "lo")
        return sandbox

    def remove(self, namespace: namespaces.Namespace) -> None:
        self._held.remove(namespace)
        namespace.close()

    def close(self) -> None:
        while self._held:
            self._held.pop().close()

    def _new(self, name: str) -> namespaces.Namespace:
        namespace = namespaces.create(name, self._folder)
        self._held.append(namespace)
        return namespace


async def obstacle(folder: Path) -> str:
    """Why there can be no underlay here: no right to namespaces, or a kernel without one of the drivers; "" when it
    can. Found out by making one with a pod.
    """
    try:
        with underlay(folder) as probe:
            await probe.build()
            node, pod = await probe.add_node("probe-node"), await probe.add_sandbox("probe-pod")
            await namespaces.inside(node, links.make_macvlan, pod.descriptor, links.NODE_LINK)
    except PermissionError:
        return "no right to make network namespaces (not root)"
    except OSError as error:
        return str(error)
    except (links.LinkError, NetlinkError) as error:
        return f"this kernel makes no bridge, veth or macvlan ({error})"
    return ""


@contextlib.contextmanager
def underlay(folder: Path) -> Iterator[Underlay]:
    """All namespaces end with the context. `folder` (made when missing) gets their names."""
    folder.mkdir(parents=True, exist_ok=True)
    network = Underlay(folder)
    try:
        yield network
    finally:
        network.close()
