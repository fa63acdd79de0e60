"""Which NetworkAttachmentDefinition an interface belongs to, as Multus reads the pod's annotations.

Source: the Kubernetes Network Plumbing Working Group's de-facto standard, version 1.3, section 4 (network selection).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_NETWORK: Final = "v1.multus-cni.io/default-network"
NETWORKS: Final = "k8s.v1.cni.cncf.io/networks"
# The interface that the cluster's default network makes.
FIRST_INTERFACE: Final = "eth0"

_EXAMPLE: Final = "netops/macvlan-bond0@net1"


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
        text = annotations.get(DEFAULT_NETWORK) or cluster_network
        selections = parse_networks(text, own_namespace, DEFAULT_NETWORK) if text else []
        return selections[0].network if selections else None
    text = annotations.get(NETWORKS, "")
    selections = parse_networks(text, pod_namespace, NETWORKS) if text else []
    return next((each.network for each in selections if each.interface == interface), None)


def interfaces_in_order(annotations: Mapping[str, str]) -> list[str]:
    """The pod's interfaces as Multus makes them, the cluster's first. errors.Invalid when the list cannot be read."""
    text = annotations.get(NETWORKS, "")
    selections = parse_networks(text, "any", NETWORKS) if text else []
    return [FIRST_INTERFACE, *(each.interface for each in selections)]


def parse_networks(text: str, namespace: str, source: str) -> list[Selection]:
    """A network list in either form: JSON, or `[namespace/]name[@interface]` separated by commas.

    Elements without an interface are net1, net2, ... by their place. errors.Invalid names `source`.
    """
    if any(character in text for character in '[{"'):
        return _from_json(text, namespace, source)
    found = []
    for index, item in enumerate(text.split(","), start=1):
        path, _, interface = item.strip().partition("@")
        found.append(Selection(_qualified(path, namespace, item, source), interface or f"net{index}"))
    return found


def qualified(network: str, namespace: str) -> str:
    """`namespace/name` of a pool's `multusName` item."""
    return network if "/" in network else f"{namespace}/{network}"


def _from_json(text: str, namespace: str, source: str) -> list[Selection]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise errors.Invalid(f"annotation {source} is not JSON ({error})") from None
    if not isinstance(items, list):
        raise errors.Invalid(f"annotation {source} must be a list of networks")
    found = []
    for index, item in enumerate(items, start=1):
        if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item["name"]:
            raise errors.Invalid(f"annotation {source} at [{index - 1}] must be an object with a name")
        place, interface = item.get("namespace") or namespace, item.get("interface") or f"net{index}"
        found.append(Selection(f"{place}/{item['name']}", str(interface)))
    return found


def _qualified(path: str, namespace: str, item: str, source: str) -> str:
    parts = path.split("/")
    if len(parts) > 2 or not all(parts):
        raise errors.Invalid(f'annotation {source}: "{item}" names no network; a right value is {_EXAMPLE}')
    return qualified(path, namespace)
