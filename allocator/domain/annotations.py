"""The annotations of pods and namespaces that name pools, parsed once at the border."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from allocator.domain.fields import some_of
from allocator.domain.json_annotation import PREFIX, JsonAnnotation, is_plain, quoted
from allocator.domain.networks import interfaces_in_order
from allocator.domain.patterns import is_pattern, pattern_problem
from allocator.domain.selector_rules import SUBDOMAIN, SUBDOMAIN_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from allocator.domain.addresses import Version

IPPOOL: Final = JsonAnnotation(
    PREFIX + "ippool", '{"ipv4": ["pool-a"], "ipv6": ["pool-b"]} or, in short, pool-a,pool-b'
)
IPPOOLS: Final = JsonAnnotation(
    PREFIX + "ippools", '[{"interface": "eth0", "ipv4": ["pool-a"]}, {"interface": "net1", "ipv4": ["pool-b"]}]'
)
DEFAULTS: Final[Mapping[Version, JsonAnnotation]] = {
    4: JsonAnnotation(PREFIX + "default-ipv4-ippool", '["pool-a", "pool-b"]'),
    6: JsonAnnotation(PREFIX + "default-ipv6-ippool", '["pool-a", "pool-b"]'),
}
# In one annotation. Far above what a pod needs, and few enough patterns to match each with all pools.
MAX_NAMES: Final = 256
MAX_PATTERNS: Final = 32

# Linux allows no longer name (IFNAMSIZ), and not all of ASCII's characters that can be seen.
INTERFACE: Final = re.compile(r"[!-.0-9;-~]{1,15}")

_VERSIONS: Final[tuple[Version, ...]] = (4, 6)


@dataclass(frozen=True, slots=True)
class Asked:
    """What an annotation or a configuration says of one interface, as it is written: names may be patterns."""

    # Empty in a list without names, until the item's place has given it one.
    interface: str
    source: str
    by_version: Mapping[Version, tuple[str, ...]]
    clean_gateway: bool
    # Those of the short form, of which only the pools know the family.
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolNames:
    """The pools that are listed for one interface, in the order they are to be tried."""

    interface: str
    source: str
    by_version: Mapping[Version, tuple[str, ...]]
    clean_gateway: bool = False
    # The SpiderSubnets that they are made of, where the pod asks for those; then there may be no pool yet.
    subnets: Mapping[Version, tuple[str, ...]] = field(default_factory=dict)


def asked_by_pod(annotations: Mapping[str, str]) -> tuple[Asked, ...]:
    """What the pod asks for, whichever interface asks: `ippools` beats `ippool`; nothing when it has neither.

    `interface` stays empty where it can only mean the one that asks. errors.Invalid with the annotation's name, the
    place and a right example when the text is malformed.
    """
    if (text := annotations.get(IPPOOLS.key)) is not None:
        return tuple(_placed(_items(text), annotations))
    if (text := annotations.get(IPPOOL.key)) is not None:
        return (_from_ippool(text),)
    return ()


def pools_of_pod(annotations: Mapping[str, str], interface: str, *, clean_gateway: bool) -> tuple[Asked, ...]:
    """What the pod asks for when `interface` asks, which must be among the items of `ippools`.

    `clean_gateway` is that of the CNI configuration; `ippools` items carry their own. errors.Invalid as asked_by_pod
    has it, and when the interface is left out.
    """
    if (text := annotations.get(IPPOOLS.key)) is None:
        asked = asked_by_pod(annotations)
        return tuple(replace(each, interface=interface, clean_gateway=clean_gateway) for each in asked)
    items = _items(text)
    asked = tuple(replace(each, interface=each.interface or interface) for each in _placed(items, annotations))
    interfaces = [each.interface for each in asked]
    if interface not in interfaces:
        places = "" if items[0].interface else " (by the items' places)"
        raise IPPOOLS.wrong("", f'does not list the interface "{interface}", only {some_of(interfaces)}{places}')
    return asked


def pools_of_namespace(annotations: Mapping[str, str], interface: str, *, clean_gateway: bool) -> tuple[Asked, ...]:
    """The namespace's default pools, if it has any. errors.Invalid when an annotation is malformed."""
    by_version: dict[Version, tuple[str, ...]] = {}
    for version, annotation in DEFAULTS.items():
        if (text := annotations.get(annotation.key)) is not None:
            names = _names(annotation.parsed(text), annotation, "")
            if names:
                by_version[version] = names
    source = "namespace annotation " + " and ".join(DEFAULTS[version].key for version in by_version)
    return (Asked(interface, source, by_version, clean_gateway),) if by_version else ()


def problem_of(names: Sequence[str]) -> str:
    """What is wrong with a list of pool names, or nothing."""
    if problem := _too_many(names):
        return problem
    for index, name in enumerate(names):
        is_name = SUBDOMAIN.fullmatch(name) or (is_pattern(name) and is_plain(name))
        if len(name) > SUBDOMAIN_LIMIT or not is_name:
            return f"lists {quoted(name)}, which cannot be the name of a SpiderIPPool"
        if is_pattern(name) and (problem := pattern_problem(name)):
            return f"is malformed: {problem}"
        if name in names[:index]:
            return f'lists the pool "{name}" twice'
    return ""


def _too_many(names: Sequence[str]) -> str:
    patterns = sum(map(is_pattern, names))
    if len(names) > MAX_NAMES:
        return f"lists {len(names)} pools, more than {MAX_NAMES}: use a pattern like pool-*"
    return f"lists {patterns} patterns, more than {MAX_PATTERNS}" if patterns > MAX_PATTERNS else ""


def _from_ippool(text: str) -> Asked:
    if text.lstrip().startswith(("{", "[", '"')):
        item = IPPOOL.members(IPPOOL.parsed(text))
        return Asked("", str(IPPOOL), _families(item, IPPOOL, ""), clean_gateway=False)
    names = tuple(name.strip() for name in text.split(","))
    if problem := problem_of(names):
        raise IPPOOL.wrong("", problem)
    return Asked("", str(IPPOOL), {}, clean_gateway=False, names=names)


def _items(text: str) -> list[Asked]:
    """The items of `ippools`, all with names or all without."""
    asked = [_from_item(raw, f"[{index}]") for index, raw in enumerate(IPPOOLS.items(IPPOOLS.parsed(text)))]
    if problem := _too_many([name for each in asked for names in each.by_version.values() for name in names]):
        raise IPPOOLS.wrong("", problem)
    named = [bool(each.interface) for each in asked]
    if any(named) and not all(named):
        index = named.index(False)
        raise IPPOOLS.wrong(f"[{index}].interface", "must name the interface, as other items do: name all or none")
    return asked


def _placed(items: Sequence[Asked], annotations: Mapping[str, str]) -> list[Asked]:
    """Items without names: each is about the interface that Multus makes at its place, the cluster's own first.

    The original names them in the order in which the ADDs come. A single item can only mean the one that asks.
    """
    asked = list(items)
    if len(items) > 1 and not items[0].interface:
        made = interfaces_in_order(annotations)
        made += [f"net{place}" for place in range(len(made), len(items))]
        asked = [replace(each, interface=name) for each, name in zip(items, made, strict=False)]
    interfaces = [each.interface for each in asked]
    for index, name in enumerate(interfaces):
        if name in interfaces[:index]:
            raise IPPOOLS.wrong(f"[{index}].interface", f'"{name}" is listed twice')
    return asked


def _from_item(raw: object, where: str) -> Asked:
    item = IPPOOLS.members(raw, where)
    name = item.get("interface") or ""
    if not isinstance(name, str) or (name and not INTERFACE.fullmatch(name)):
        raise IPPOOLS.wrong(f"{where}.interface", "must be the name of an interface, 15 characters at most")
    clean = item.get("cleangateway") or False
    if not isinstance(clean, bool):
        raise IPPOOLS.wrong(f"{where}.cleangateway", "must be true or false")
    return Asked(name, str(IPPOOLS), _families(item, IPPOOLS, where), clean)


def _families(item: Mapping[str, object], annotation: JsonAnnotation, where: str) -> Mapping[Version, tuple[str, ...]]:
    listed = {version: _names(item.get(f"ipv{version}"), annotation, f"{where}.ipv{version}") for version in _VERSIONS}
    by_version = {version: names for version, names in listed.items() if names}
    if not by_version:
        raise annotation.wrong(where, "lists no pool")
    return by_version


def _names(value: object, annotation: JsonAnnotation, where: str) -> tuple[str, ...]:
    names = annotation.texts(value, where, "pool names")
    if problem := problem_of(names):
        raise annotation.wrong(where, problem)
    return names
