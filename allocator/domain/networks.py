"""Which NetworkAttachmentDefinition an interface belongs to, as Multus reads the pod's annotations.

Source: the Kubernetes Network Plumbing Working Group's de-facto standard, version 1.3, section 4 (network selection).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.domain.json_annotation import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_NETWORK: Final = "v1.multus-cni.io/default-network"
NETWORKS: Final = "k8s.v1.cni.cncf.io/networks"
# The interface that the cluster's default network makes.
FIRST_INTERFACE: Final = "eth0"

# The agent's environment variable with the network of the cluster.
CLUSTER_NETWORK: Final = "MULTUS_CLUSTER_NETWORK"

_EXAMPLE: Final = "netops/macvlan-bond0@net1"
_ITEM: Final = '{"name": "macvlan-bond0", "namespace": "netops", "interface": "net1"}'
# Names as Kubernetes has them; Linux takes no longer name for an interface (IFNAMSIZ).
_NAME: Final = "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_ELEMENT: Final = re.compile(rf"(?P<path>({_NAME}/)?{_NAME})(@(?P<interface>[!-.0-?A-~]{{1,15}}))?")


@dataclass(frozen=True, slots=True)
class Selection:
    """One element of a network list."""

    network: str
    interface: str


def network_of(
    annotations: Mapping[str, str], interface: str, *, pod_namespace: str, own_namespace: str, cluster_network: str
) -> str | None:
    """`namespace/name` of the interface's network, or None when nothing says which it is.

    eth0 has the pod's default network, else the cluster's; a network without a namespace is in ours there, and in the
    pod's for every other interface. errors.Invalid when an annotation cannot be read.
    """
    if interface == FIRST_INTERFACE:
        own = annotations.get(DEFAULT_NETWORK)
        source, text = (f"annotation {DEFAULT_NETWORK}", own) if own else (CLUSTER_NETWORK, cluster_network)
        selections = parse_networks(text, own_namespace, source)
        return selections[0].network if selections else None
    selections = parse_networks(annotations.get(NETWORKS, ""), pod_namespace, f"annotation {NETWORKS}")
    return next((each.network for each in selections if each.interface == interface), None)


def interfaces_in_order(annotations: Mapping[str, str]) -> list[str]:
    """The pod's interfaces as Multus makes them, the cluster's first. errors.Invalid when the list cannot be read."""
    selections = parse_networks(annotations.get(NETWORKS, ""), "any", f"annotation {NETWORKS}")
    return [FIRST_INTERFACE, *(each.interface for each in selections)]


def parse_networks(text: str, namespace: str, source: str) -> list[Selection]:
    """A network list in either form: JSON, or `[namespace/]name[@interface]` separated by commas; nothing when empty.

    Elements without an interface are net1, net2, ... by their place. errors.Invalid names `source`.
    """
    if not text:
        return []
    if any(character in text for character in '[{"'):
        return _from_json(text, namespace, source)
    found = []
    for index, item in enumerate(text.split(","), start=1):
        match = _ELEMENT.fullmatch(item.strip())
        if match is None:
            raise errors.Invalid(f"{source}: {quoted(item)} names no network; a right value is {_EXAMPLE}")
        found.append(Selection(qualified(match["path"], namespace), match["interface"] or f"net{index}"))
    return found


def qualified(network: str, namespace: str) -> str:
    """`namespace/name` of a pool's `multusName` item."""
    return network if "/" in network else f"{namespace}/{network}"


def _from_json(text: str, namespace: str, source: str) -> list[Selection]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise errors.Invalid(f"{source} is not JSON ({error})") from None
    if not isinstance(items, list):
        raise errors.Invalid(f"{source} must be a list of networks")
    found = []
    for index, item in enumerate(items, start=1):
        members = item if isinstance(item, dict) else {}
        name, place, interface = (members.get(key) or "" for key in ("name", "namespace", "interface"))
        path, at = f"{place}/{name}" if place else str(name), f"@{interface}" if interface else ""
        is_text = all(isinstance(part, str) for part in (name, place, interface))
        if not is_text or not _ELEMENT.fullmatch(f"{path}{at}"):
            raise errors.Invalid(f"{source} at [{index - 1}] names no network; a right item is {_ITEM}")
        found.append(Selection(qualified(path, namespace), str(interface) or f"net{index}"))
    return found
