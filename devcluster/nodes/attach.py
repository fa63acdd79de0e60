"""Three ways to give a pod its interface, from the most real to the least.

Plugins(chained): a real main plugin (macvlan) with our IPAM plugin as its ipam.type, run by the CNI runtime.
Netlink: the same macvlan interface made here, our IPAM plugin run alone, its result configured here.
Plugins(alone): our IPAM plugin alone, no interface; for a user without the right to make namespaces.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from devcluster.nodes import cni, links, namespaces

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CNI_VERSION = "1.0.0"
NETWORK_NAME = "underlay"
MAIN_PLUGIN = "macvlan"
IPAM_PLUGIN = "spiderpool"

# RFC 4862 with the kernel's defaults (one probe, one second, a random delay of up to one second before it).
SETTLE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A pod's network. namespace is None where namespaces cannot be made; then netns is some path that opens."""

    netns: Path
    namespace: namespaces.Namespace | None


def chained(ipam: Mapping[str, Any]) -> cni.NetworkList:
    main = {"type": MAIN_PLUGIN, "master": links.NODE_LINK, "mode": "bridge", "ipam": dict(ipam)}
    return cni.NetworkList(NETWORK_NAME, CNI_VERSION, (main,))


def alone(ipam: Mapping[str, Any]) -> cni.NetworkList:
    return cni.NetworkList(NETWORK_NAME, CNI_VERSION, ({"type": IPAM_PLUGIN, "ipam": dict(ipam)},))


class Attacher(Protocol):
    async def add(self, attachment: cni.Attachment, sandbox: Sandbox) -> dict[str, Any]:
        """A CNI result with `ips`. CniError or LinkError; call delete() then."""

    async def delete(self, attachment: cni.Attachment, sandbox: Sandbox, result: dict[str, Any] | None) -> None:
        """Repeatable. CniError when a plugin fails."""


class Plugins:
    """The plugins of `network`, run in the node's namespace, or in this process's where `node` is None."""

    def __init__(self, network: cni.NetworkList, folders: tuple[Path, ...], node: namespaces.Namespace | None) -> None:
        self._runtime = cni.Runtime(network, folders, node)

    async def add(self, attachment: cni.Attachment, sandbox: Sandbox) -> dict[str, Any]:  # noqa: ARG002 - Attacher
        return await self._runtime.add(attachment)

    async def delete(
        self,
        attachment: cni.Attachment,
        sandbox: Sandbox,  # noqa: ARG002 - Attacher
        result: dict[str, Any] | None,
    ) -> None:
        await self._runtime.delete(attachment, result)


class Netlink:
    """`addresses` is the IPAM plugin alone."""

    def __init__(self, addresses: Attacher, node: namespaces.Namespace) -> None:
        self._addresses = addresses
        self._node = node

    async def add(self, attachment: cni.Attachment, sandbox: Sandbox) -> dict[str, Any]:
        pod = _namespace_of(sandbox)
        await namespaces.inside(self._node, links.make_macvlan, pod.descriptor, attachment.interface)
        result = await self._addresses.add(attachment, sandbox)
        await namespaces.inside(pod, links.configure, attachment.interface, result)
        await namespaces.inside(pod, links.wait_settled, attachment.interface, within_s=SETTLE_TIMEOUT_S)
        return result

    async def delete(self, attachment: cni.Attachment, sandbox: Sandbox, result: dict[str, Any] | None) -> None:
        # The order of real plugins: addresses are given back first, and a failure leaves the link for the next try.
        await self._addresses.delete(attachment, sandbox, result)
        with contextlib.suppress(OSError):  # the namespace may be gone: so is the link
            await namespaces.inside(_namespace_of(sandbox), links.remove, attachment.interface)


def _namespace_of(sandbox: Sandbox) -> namespaces.Namespace:
    if sandbox.namespace is None:
        raise links.LinkError(f"{sandbox.netns} is no namespace of this devcluster")
    return sandbox.namespace
