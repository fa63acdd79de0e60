"""The `ipam.spidernet.io/` annotations of pods and namespaces, parsed once at the border."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocator.domain.addresses import Version

PREFIX: Final = "ipam.spidernet.io/"
IPPOOL: Final = PREFIX + "ippool"
IPPOOLS: Final = PREFIX + "ippools"
DEFAULT_IPV4_IPPOOL: Final = PREFIX + "default-ipv4-ippool"
DEFAULT_IPV6_IPPOOL: Final = PREFIX + "default-ipv6-ippool"

_IPPOOL_EXAMPLE: Final = '{"ipv4": ["pool-a"], "ipv6": ["pool-b"]}'
_IPPOOLS_EXAMPLE: Final = '[{"interface": "eth0", "ipv4": ["pool-a"]}, {"interface": "net1", "ipv4": ["pool-b"]}]'
_NAMES_EXAMPLE: Final = '["pool-a", "pool-b"]'


@dataclass(frozen=True, slots=True)
class PoolNames:
    """The pools that an annotation or a configuration lists for one interface, in the order they are to be tried."""

    interface: str
    source: str
    by_version: Mapping[Version, tuple[str, ...]]
    clean_gateway: bool = False


def pools_of_pod(annotations: Mapping[str, str], interface: str, *, clean_gateway: bool) -> tuple[PoolNames, ...]:
    """What the pod asks for: `ippools` beats `ippool`; nothing when it has neither.

    `ippool` is about `interface`, which asks; `ippools` is about all of its items, and `interface` must be among them.
    `clean_gateway` is that of the CNI configuration; `ippools` items carry their own. errors.Invalid with the
    annotation's name, the place and a right example when the text is malformed or leaves the interface out.
    """
    if IPPOOLS in annotations:
        return _from_ippools(annotations[IPPOOLS], interface)
    if IPPOOL in annotations:
        item = _object(_parse(IPPOOL, annotations[IPPOOL], _IPPOOL_EXAMPLE), IPPOOL, "", _IPPOOL_EXAMPLE)
        families = _families(item, IPPOOL, "", _IPPOOL_EXAMPLE)
        return (PoolNames(interface, f"annotation {IPPOOL}", families, clean_gateway),)
    return ()


def pools_of_namespace(annotations: Mapping[str, str], interface: str, *, clean_gateway: bool) -> tuple[PoolNames, ...]:
    """The namespace's default pools, if it has any. errors.Invalid when an annotation is malformed."""
    by_version: dict[Version, tuple[str, ...]] = {}
    for version, key in ((4, DEFAULT_IPV4_IPPOOL), (6, DEFAULT_IPV6_IPPOOL)):
        if key in annotations:
            names = _names(_parse(key, annotations[key], _NAMES_EXAMPLE), key, "", _NAMES_EXAMPLE)
            if names:
                by_version[4 if version == 4 else 6] = names
    return (PoolNames(interface, "namespace annotation", by_version, clean_gateway),) if by_version else ()


def _from_ippools(text: str, interface: str) -> tuple[PoolNames, ...]:
    items = _parse(IPPOOLS, text, _IPPOOLS_EXAMPLE)
    if not isinstance(items, list) or not items:
        raise _malformed(IPPOOLS, "", "must be a list with at least one item", _IPPOOLS_EXAMPLE)
    found: dict[str, PoolNames] = {}
    for index, raw in enumerate(items):
        item = _object(raw, IPPOOLS, f"[{index}]", _IPPOOLS_EXAMPLE)
        # One item needs no name: it can only mean the interface that asks.
        name = item.get("interface", interface if len(items) == 1 else None)
        if not isinstance(name, str) or not name:
            raise _malformed(IPPOOLS, f"[{index}].interface", "must name the interface", _IPPOOLS_EXAMPLE)
        if name in found:
            raise _malformed(IPPOOLS, f"[{index}].interface", f'"{name}" is listed twice', _IPPOOLS_EXAMPLE)
        found[name] = _from_item(item, name, f"[{index}]")
    if interface not in found:
        raise _malformed(IPPOOLS, "", f'does not list the interface "{interface}"', _IPPOOLS_EXAMPLE)
    return tuple(found.values())


def _from_item(item: Mapping[str, object], interface: str, where: str) -> PoolNames:
    clean = item.get("cleangateway", False)
    if not isinstance(clean, bool):
        raise _malformed(IPPOOLS, f"{where}.cleangateway", "must be true or false", _IPPOOLS_EXAMPLE)
    families = _families(item, IPPOOLS, where, _IPPOOLS_EXAMPLE)
    return PoolNames(interface, f"annotation {IPPOOLS}", families, clean)


def _families(
    item: Mapping[str, object], annotation: str, where: str, example: str
) -> Mapping[Version, tuple[str, ...]]:
    by_version: dict[Version, tuple[str, ...]] = {}
    if "ipv4" in item:
        by_version[4] = _names(item["ipv4"], annotation, f"{where}.ipv4", example)
    if "ipv6" in item:
        by_version[6] = _names(item["ipv6"], annotation, f"{where}.ipv6", example)
    by_version = {version: names for version, names in by_version.items() if names}
    if not by_version:
        raise _malformed(annotation, where, "lists no pool", example)
    return by_version


def _names(value: object, annotation: str, where: str, example: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise _malformed(annotation, where, "must be a list of pool names", example)
    names = tuple(str(name) for name in value)
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise _malformed(annotation, where, f'lists the pool "{doubles[0]}" twice', example)
    return names


def _parse(annotation: str, text: str, example: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError as error:
        raise _malformed(annotation, "", f"is not JSON ({error})", example) from None
    except RecursionError:
        raise _malformed(annotation, "", "is nested too deeply", example) from None
    return value


def _object(value: object, annotation: str, where: str, example: str) -> Mapping[str, object]:
    """The value as an object, its keys in lower case: Go's decoder, which people's manifests rely on, ignores case."""
    if not isinstance(value, dict):
        raise _malformed(annotation, where, "must be an object", example)
    return {str(key).lower(): member for key, member in value.items()}


def _malformed(annotation: str, where: str, problem: str, example: str) -> errors.Invalid:
    place = f" at {where.removeprefix('.')}" if where else ""
    return errors.Invalid(f"annotation {annotation}{place} {problem}; a right value is {example}")
