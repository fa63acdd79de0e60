"""The annotations that ask for a pool of one's own, made from a SpiderSubnet; their forms are the original's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain.annotations import DEFAULTS, INTERFACE, IPPOOL, IPPOOLS
from allocator.domain.json_annotation import PREFIX, JsonAnnotation, quoted
from allocator.domain.networks import FIRST_INTERFACE
from allocator.domain.selector_rules import SUBDOMAIN, SUBDOMAIN_LIMIT, is_label_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocator.domain.addresses import Version

SUBNET: Final = JsonAnnotation(PREFIX + "subnet", '{"ipv4": ["subnet-a"], "ipv6": ["subnet-b"]}')
SUBNETS: Final = JsonAnnotation(
    PREFIX + "subnets",
    '[{"interface": "eth0", "ipv4": ["subnet-a"]}, {"interface": "net1", "ipv4": ["subnet-b"]}]',
)
DEFAULT_SUBNETS: Final[Mapping[Version, JsonAnnotation]] = {
    4: JsonAnnotation(PREFIX + "default-ipv4-subnet", '["subnet-a", "subnet-b"]'),
    6: JsonAnnotation(PREFIX + "default-ipv6-subnet", '["subnet-a", "subnet-b"]'),
}
IP_NUMBER: Final = JsonAnnotation(PREFIX + "ippool-ip-number", '"5", or "+2" for two more than replicas')
RECLAIM: Final = JsonAnnotation(PREFIX + "ippool-reclaim", '"true" or "false"')

_VERSIONS: Final[tuple[Version, ...]] = (4, 6)
_NUMBER: Final = re.compile(r"(?P<plus>\+?)(?P<number>[0-9]{1,9})")
# As Go's strconv.ParseBool reads them.
_TRUE: Final = ("1", "t", "T", "TRUE", "true", "True")
_FALSE: Final = ("0", "f", "F", "FALSE", "false", "False")


@dataclass(frozen=True, slots=True)
class SubnetNames:
    """The SpiderSubnets of each family for one interface, in the order in which they are asked for room."""

    interface: str
    by_version: Mapping[Version, tuple[str, ...]]
    source: str = "pod annotation"


@dataclass(frozen=True, slots=True)
class IpNumber:
    """How many addresses the pool is to have; `is_surplus`: beyond those of the replicas."""

    number: int
    is_surplus: bool

    def __str__(self) -> str:
        return f"{'+' if self.is_surplus else ''}{self.number}"


def subnets_of_pod(annotations: Mapping[str, str]) -> tuple[SubnetNames, ...]:
    """`subnets` beats `subnet`; nothing without either. errors.Invalid when the one that counts is malformed."""
    if (text := annotations.get(SUBNETS.key)) is not None:
        return _from_subnets(text)
    if (text := annotations.get(SUBNET.key)) is not None:
        return (_from_item(SUBNET.parsed(text), SUBNET, "", default=FIRST_INTERFACE),)
    return ()


def subnets_for(
    annotations: Mapping[str, str],
    namespace_annotations: Mapping[str, str],
    defaults: Mapping[Version, tuple[str, ...]],
) -> tuple[SubnetNames, ...]:
    """What a pod of this namespace takes its addresses from, by interface: its own annotations say it, then those of
    its namespace, then the cluster's `defaults`. At each of the three, subnets go before pools, and whoever names
    pools first gets none of this. Defaults are for the first interface.

    errors.Invalid when the annotation that counts is malformed.
    """
    if found := subnets_of_pod(annotations):
        return found
    if IPPOOL.key in annotations or IPPOOLS.key in annotations:
        return ()
    if found := _defaults_of(namespace_annotations):
        return found
    if any(annotation.key in namespace_annotations for annotation in DEFAULTS.values()):
        return ()
    return (SubnetNames(FIRST_INTERFACE, defaults, "cluster default subnets"),) if defaults else ()


def _defaults_of(namespace_annotations: Mapping[str, str]) -> tuple[SubnetNames, ...]:
    by_version = {}
    for version, annotation in DEFAULT_SUBNETS.items():
        text = namespace_annotations.get(annotation.key)
        if text is not None and (names := _names(annotation.parsed(text), annotation, "")):
            by_version[version] = names
    return (SubnetNames(FIRST_INTERFACE, by_version, "namespace default subnets"),) if by_version else ()


def ip_number(annotations: Mapping[str, str]) -> IpNumber | None:
    """None without the annotation. errors.Invalid when it is malformed."""
    text = annotations.get(IP_NUMBER.key)
    if text is None:
        return None
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise IP_NUMBER.wrong("", f"is {quoted(text)}, which is no number of addresses")
    return IpNumber(int(match["number"]), bool(match["plus"]))


def is_reclaimed(annotations: Mapping[str, str]) -> bool:
    """Whether the pool goes with its application: yes, unless said otherwise. errors.Invalid when malformed."""
    text = annotations.get(RECLAIM.key, "true")
    if text not in (*_TRUE, *_FALSE):
        raise RECLAIM.wrong("", f"is {quoted(text)}")
    return text in _TRUE


def _from_subnets(text: str) -> tuple[SubnetNames, ...]:
    items = SUBNETS.items(SUBNETS.parsed(text))
    found = tuple(_from_item(raw, SUBNETS, f"[{index}]") for index, raw in enumerate(items))
    interfaces: set[str] = set()
    names: set[tuple[Version, str]] = set()
    for index, item in enumerate(found):
        if item.interface in interfaces:
            raise SUBNETS.wrong(f"[{index}].interface", f'"{item.interface}" is listed twice')
        interfaces.add(item.interface)
        for version, (first, *_) in item.by_version.items():
            if (version, first) in names:
                raise SUBNETS.wrong(f"[{index}].ipv{version}", f'begins with "{first}", as another item does')
            names.add((version, first))
    return found


def _from_item(raw: object, annotation: JsonAnnotation, where: str, default: str = "") -> SubnetNames:
    item = annotation.members(raw, where)
    interface = item.get("interface") or default
    # The pool has it in a label.
    if not isinstance(interface, str) or not INTERFACE.fullmatch(interface) or not is_label_value(interface):
        raise annotation.wrong(
            f"{where}.interface",
            'must be the name of an interface, 15 characters at most, of letters, digits and "-_."',
        )
    listed = {version: _names(item.get(f"ipv{version}"), annotation, f"{where}.ipv{version}") for version in _VERSIONS}
    by_version = {version: name for version, name in listed.items() if name}
    if not by_version:
        raise annotation.wrong(where, "lists no subnet")
    return SubnetNames(interface, by_version)


def _names(value: object, annotation: JsonAnnotation, where: str) -> tuple[str, ...]:
    names = annotation.texts(value, where, "subnet names")
    for name in names:
        if len(name) > SUBDOMAIN_LIMIT or not SUBDOMAIN.fullmatch(name):
            raise annotation.wrong(where, f"lists {quoted(name)}, which cannot be the name of a SpiderSubnet")
    return tuple(dict.fromkeys(names))
