"""Completing an object at admission: family, canonical ranges, label, finalizer.

Each function gives a completed copy and is a fixed point (invariant I13). What cannot be derived stays as it was typed;
validation then refuses it, so nothing fails silently.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

from allocator.domain import fields
from allocator.domain.addresses import AddressError, IntervalSet, parse_span, version_of
from allocator.domain.applications import label_value

if TYPE_CHECKING:
    from allocator.domain.addresses import Network, Version
    from allocator.domain.fields import Raw

FINALIZER: Final = "spiderpool.spidernet.io"
POOL_CIDR_LABEL: Final = "ipam.spidernet.io/ippool-cidr"
SUBNET_CIDR_LABEL: Final = "ipam.spidernet.io/subnet-cidr"
# The SpiderSubnet whose network a pool has.
OWNER_LABEL: Final = "ipam.spidernet.io/owner-spider-subnet"


def complete_pool(raw: Raw, owner: Raw | None = None) -> dict[str, Any]:
    """`owner` is the SpiderSubnet that has the pool's network, if there is one.

    Its gateway and routes are taken over once, with the label: who takes them out later means it. No ownerReference:
    a pool that a person made is not deleted with the subnet.
    """
    completed = _complete_network(raw, POOL_CIDR_LABEL)
    if owner is None or _is_terminating(raw):
        return completed
    spec, name = completed.get("spec"), label_value(str(fields.mapping_at(owner, "metadata").get("name", "")))
    labels = fields.mapping_at(fields.mapping_at(completed, "metadata"), "labels")
    if isinstance(spec, dict) and labels.get(OWNER_LABEL) != name:
        _set_label(completed["metadata"], OWNER_LABEL, name)
        offered = fields.mapping_at(owner, "spec")
        for key in ("gateway", "routes"):
            # An empty list of routes keeps those of the subnet away.
            if spec.get(key) is None and offered.get(key):
                spec[key] = copy.deepcopy(offered[key])
    return completed


def complete_subnet(raw: Raw) -> dict[str, Any]:
    return _complete_network(raw, SUBNET_CIDR_LABEL)


def complete_reservation(raw: Raw) -> dict[str, Any]:
    """The family comes from the first item."""
    completed = _copy(raw)
    spec = completed.get("spec")
    if _is_terminating(raw) or not isinstance(spec, dict):
        return completed
    items = spec.get("ips")
    if spec.get("ipVersion") is None and isinstance(items, list) and items:
        version = _family_of(items[0])
        if version is not None:
            spec["ipVersion"] = version
    _merge(spec, "ips", spec.get("ipVersion"))
    return completed


def cidr_label(network: Network) -> str:
    """The network as the value of a label: `10-20-0-0-16`, `fd00-10---64`.

    `::/64` becomes `0---64`, because the value of a label starts with a letter or digit.
    """
    text = str(network).replace(".", "-").replace(":", "-").replace("/", "-")
    return f"0{text}" if text.startswith("-") else text


def _complete_network(raw: Raw, label: str) -> dict[str, Any]:
    completed = _copy(raw)
    if _is_terminating(raw):
        return completed
    metadata = completed.setdefault("metadata", {})
    spec = completed.get("spec")
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        return completed
    _add_finalizer(metadata)
    subnet = fields.loose_network(spec["subnet"]) if isinstance(spec.get("subnet"), str) else None
    if subnet is not None:
        if spec.get("ipVersion") is None:
            spec["ipVersion"] = version_of(subnet)
        _set_label(metadata, label, cidr_label(subnet))
    _merge(spec, "ips", spec.get("ipVersion"))
    _merge(spec, "excludeIPs", spec.get("ipVersion"))
    return completed


def _merge(spec: dict[str, Any], key: str, version: object) -> None:
    items = spec.get(key)
    if not isinstance(items, list) or not 0 < len(items) <= fields.MAX_TYPED_ITEMS:
        return
    if not all(isinstance(item, str) for item in items):
        return
    try:
        if version == 4:
            spec[key] = IntervalSet.parse(4, items).texts()
        elif version == 6:
            spec[key] = IntervalSet.parse(6, items).texts()
    except AddressError:
        return


def _family_of(item: object) -> Version | None:
    if not isinstance(item, str):
        return None
    version: Version = 6 if ":" in item else 4
    try:
        parse_span(item, version)
    except AddressError:
        return None
    return version


def _add_finalizer(metadata: dict[str, Any]) -> None:
    finalizers = metadata.get("finalizers") or []
    if isinstance(finalizers, list) and FINALIZER not in finalizers:
        metadata["finalizers"] = [*finalizers, FINALIZER]


def _set_label(metadata: dict[str, Any], key: str, value: str) -> None:
    labels = metadata.get("labels") or {}
    if isinstance(labels, dict):
        metadata["labels"] = {**labels, key: value}


def _is_terminating(raw: Raw) -> bool:
    return bool(fields.mapping_at(raw, "metadata").get("deletionTimestamp"))


def _copy(raw: Raw) -> dict[str, Any]:
    return copy.deepcopy(dict(raw))
