"""Reading fields of objects that nobody has checked yet, and collecting what is wrong with them.

A mutating webhook sees objects before the API server has compared them with the schema, so any field may have any type.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from allocator.domain.addresses import AddressError, parse_network
from allocator.domain.errors import FieldError

if TYPE_CHECKING:
    from allocator.domain.addresses import Network

Raw: TypeAlias = Mapping[str, Any]

# As in the CRDs: what the cost limit of CEL rules lets the API server check.
MAX_ITEMS: Final = 4096
# Of any list, before it is looked at: 10,000 single addresses take about 50 ms to merge, and everybody else waits.
MAX_TYPED_ITEMS: Final = 10_000
MAX_SHOWN: Final = 5

# As Go reads it, and so the API server: a length without leading zeros.
_PREFIX: Final = re.compile(r"[^/%]+/(0|[1-9]\d{0,2})")


@dataclass(slots=True)
class Problems:
    """All problems of one object, in the order of its fields."""

    found: list[FieldError] = field(default_factory=list)

    def invalid(self, path: str, value: object, message: str) -> None:
        self.found.append(FieldError("Invalid", path, message, value))

    def required(self, path: str, message: str) -> None:
        self.found.append(FieldError("Required", path, message))

    def forbidden(self, path: str, message: str) -> None:
        self.found.append(FieldError("Forbidden", path, message))

    def unsupported(self, path: str, value: object, message: str) -> None:
        self.found.append(FieldError("NotSupported", path, message, value))

    def duplicate(self, path: str, value: object, message: str) -> None:
        self.found.append(FieldError("Duplicate", path, message, value))


def mapping_at(parent: Raw, key: str) -> Raw:
    """The object at `key`; empty when it is absent or something else."""
    value = parent.get(key)
    return value if isinstance(value, Mapping) else {}


def list_at(parent: Raw, key: str, path: str, problems: Problems, *, most: int = MAX_TYPED_ITEMS) -> Sequence[Any]:
    """The list at `key`; empty when it is absent; a problem when it is something else, or too long to look at."""
    value = parent.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        problems.invalid(path, value, "must be a list")
        return ()
    if len(value) > most:
        problems.invalid(path, len(value), f"has {len(value)} items: write at most {most}")
        return ()
    return value


def texts_at(parent: Raw, key: str, path: str, problems: Problems) -> list[str]:
    """The texts of the list at `key`; a problem for each item that is none."""
    texts = []
    for index, item in enumerate(list_at(parent, key, path, problems)):
        if isinstance(item, str) and item:
            texts.append(item)
        else:
            problems.invalid(f"{path}[{index}]", item, "must be a text that is not empty")
    return texts


def check_flag(parent: Raw, key: str, path: str, problems: Problems) -> None:
    if not isinstance(parent.get(key), bool | None):
        problems.invalid(path, parent[key], "must be true or false")


def loose_network(text: str) -> Network | None:
    """The network of a CIDR that may have host bits; None when it is none: netmasks and IPv4-mapped IPv6 are not."""
    with suppress(AddressError):
        return parse_network(text)  # nearly always it is right as it is
    try:
        network = ipaddress.ip_network(text, strict=False) if _PREFIX.fullmatch(text) else None
    except ValueError:
        return None
    is_mapped = isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped is not None
    return None if is_mapped else network


def some_of(texts: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    shown = ", ".join(texts[:MAX_SHOWN])
    return f"{shown} and {len(texts) - MAX_SHOWN} more" if len(texts) > MAX_SHOWN else shown
