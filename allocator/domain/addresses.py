"""Addresses, networks and sets of addresses; the cost of every operation is counted in spans, never in addresses.

An `IntervalSet` is a sorted tuple of disjoint, non-touching (first, last) pairs of integers, both ends included.
The form is canonical: two sets are equal exactly when their tuples are. A /64 is one span and costs as much as a
single address.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Version: TypeAlias = Literal[4, 6]
Span: TypeAlias = tuple[int, int]

# Counts are int64 in the CRDs; a larger set is shown as this many, as the original does.
COUNT_LIMIT: Final = 2**63 - 1
# Parsed texts that are kept, of each kind: every rule reads a pool anew, and most of a judgement is parsing. What is
# refused is not kept, however long it is.
PARSED_KEPT: Final = 1024
# Whole lists that are kept beside that: those of a pool with thousands of ranges, while one edit of it is judged. Such
# a list takes about 1 MiB.
LISTS_KEPT: Final = 16


class AddressError(ValueError):
    """The text is no address, range or network; the message says what to write instead."""


@lru_cache(PARSED_KEPT)
def parse_address(text: str, version: Version | None = None) -> Address:
    """The address that `text` names, as Go's net.ParseIP reads it but without IPv4-mapped IPv6.

    AddressError when it is no address, carries a zone, is IPv4-mapped, or is not of `version`.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise AddressError(f'"{text}" is not an IP address: write 10.0.0.1 or fd00::1') from None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise AddressError(f'"{text}" has a zone: write "{text.split("%", maxsplit=1)[0]}"')
        if address.ipv4_mapped is not None:
            raise AddressError(f'"{text}" is IPv4-mapped: write "{address.ipv4_mapped}"')
    if version is not None and address.version != version:
        raise AddressError(f'"{text}" is IPv{address.version}, but an IPv{version} address is needed')
    return address


@lru_cache(PARSED_KEPT)
def parse_network(text: str, version: Version | None = None) -> Network:
    """The network that `text` names; the text must be the canonical form (no host bits, lower case).

    AddressError otherwise, naming the canonical form where there is one.
    """
    try:
        # An address alone would be read as a network of one address, which nobody means.
        network = ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        network = None
    if network is None:
        raise AddressError(f'"{text}" is not a CIDR: write 10.0.0.0/24 or fd00::/64')
    if isinstance(network, IPv6Network) and network.network_address.scope_id is not None:
        raise AddressError(f'"{text}" has a zone: write the network without "%" and what follows it')
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise AddressError(f'"{text}" is IPv4-mapped: write the IPv4 network')
    if version is not None and network.version != version:
        raise AddressError(f'"{text}" is IPv{network.version}, but an IPv{version} network is needed')
    if str(network) != text:
        raise AddressError(f'"{text}" is not in canonical form: write "{network}"')
    return network


@lru_cache(PARSED_KEPT)
def parse_span(text: str, version: Version) -> Span:
    """The (first, last) pair of an item `a` or `a-b`: no blanks, no CIDR, both of `version`, not reversed."""
    first_text, dash, last_text = text.partition("-")
    if "/" in text:
        raise AddressError(f'"{text}" is a CIDR: write a range "first-last"')
    if any(character.isspace() for character in text):
        raise AddressError(f'"{text}" contains blanks: write "{"".join(text.split())}"')
    if "-" in last_text:
        raise AddressError(f'"{text}" has more than one "-": write one range an item')
    first = int(parse_address(first_text, version))
    last = int(parse_address(last_text, version)) if dash else first
    if first > last:
        raise AddressError(f'"{text}" is reversed: write "{last_text}-{first_text}"')
    return first, last


def to_address(version: Version, value: int) -> Address:
    return IPv4Address(value) if version == 4 else IPv6Address(value)


def span_text(version: Version, span: Span) -> str:
    """`a` for one address, `a-b` for more: the form that is stored."""
    first, last = span
    head = str(to_address(version, first))
    return head if first == last else f"{head}-{to_address(version, last)}"


def object_name(address: Address) -> str:
    """The name of the SpiderIPAddress object of `address`: a DNS-1123 subdomain, one to one with the address."""
    if isinstance(address, IPv4Address):
        return str(address)
    return "-".join(f"{(int(address) >> shift) & 0xFFFF:x}" for shift in range(112, -1, -16))


def address_of(name: str) -> Address:
    """The address that `object_name` made `name` from. AddressError when it is no such name."""
    try:
        if "-" not in name:
            return IPv4Address(name)  # takes no other spelling than object_name's
        address = IPv6Address(name.replace("-", ":"))
    except ipaddress.AddressValueError:
        address = None
    if address is None or object_name(address) != name or address.ipv4_mapped is not None:
        raise AddressError(f'"{name}" names no address: 10.0.0.1 does, and fd00-0-0-0-0-0-0-1')
    return address


def version_of(network: Network | Address) -> Version:
    return 4 if network.version == 4 else 6


@dataclass(frozen=True, slots=True)
class IntervalSet:
    """A set of addresses of one family. Make it with `of`, `parse` or `network`, which bring it into canonical form."""

    version: Version
    spans: tuple[Span, ...] = ()

    @classmethod
    def of(cls, version: Version, spans: Iterable[Span]) -> IntervalSet:
        """The set that the spans cover; they may overlap, touch and come in any order."""
        merged: list[Span] = []
        for first, last in sorted(spans):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            else:
                merged.append((first, last))
        return cls(version, tuple(merged))

    @classmethod
    def parse(cls, version: Version, items: Iterable[str]) -> IntervalSet:
        """The set that the items `a` and `a-b` cover. AddressError at the first item that is none."""
        return _parsed(version, tuple(items))

    @classmethod
    def network(cls, network: Network) -> IntervalSet:
        """Every address of the network, its first and last included: on an underlay they are ordinary addresses."""
        version = version_of(network)
        return cls(version, ((int(network.network_address), int(network.broadcast_address)),))

    @classmethod
    def addresses(cls, version: Version, addresses: Iterable[Address]) -> IntervalSet:
        return cls.of(version, ((int(address), int(address)) for address in addresses))

    @property
    def size(self) -> int:
        """How many addresses; `len()` would overflow on a /64."""
        return sum(last - first + 1 for first, last in self.spans)

    @property
    def count(self) -> int:
        """`size` as the int64 of a status field can hold it."""
        return min(self.size, COUNT_LIMIT)

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, IPv4Address | IPv6Address) or address.version != self.version:
            return False
        return self._span_at(int(address)) is not None

    def __or__(self, other: IntervalSet) -> IntervalSet:
        self._same_family(other)
        return IntervalSet.of(self.version, self.spans + other.spans)

    def __and__(self, other: IntervalSet) -> IntervalSet:
        self._same_family(other)
        return IntervalSet(self.version, tuple(_overlaps(self.spans, other.spans)))

    def __sub__(self, other: IntervalSet) -> IntervalSet:
        self._same_family(other)
        return IntervalSet(self.version, tuple(_remainders(self.spans, other.spans)))

    def __le__(self, other: IntervalSet) -> bool:
        """Whether every address of this set lies in the other."""
        return not self - other

    def nth(self, index: int) -> Address:
        """The address at `index` (0-based) in ascending order. IndexError when there are not so many."""
        rest = index
        for first, last in self.spans:
            if rest <= last - first:
                return to_address(self.version, first + rest)
            rest -= last - first + 1
        raise IndexError(f"{index} of {self.size} addresses")

    def head(self, count: int) -> IntervalSet:
        """The first `count` addresses in ascending order, or all when there are not so many."""
        if count >= self.size:
            return self
        last = int(self.nth(count - 1)) if count > 0 else -1
        return IntervalSet(self.version, tuple((first, min(end, last)) for first, end in self.spans if first <= last))

    def texts(self) -> list[str]:
        """The canonical items, as they are stored in `spec.ips`."""
        return [span_text(self.version, span) for span in self.spans]

    def _span_at(self, value: int) -> Span | None:
        index = bisect_right(self.spans, value, key=lambda span: span[0]) - 1
        return self.spans[index] if index >= 0 and value <= self.spans[index][1] else None

    def _same_family(self, other: IntervalSet) -> None:
        if self.version != other.version:
            raise TypeError(f"IPv{self.version} and IPv{other.version} sets do not mix")


@lru_cache(LISTS_KEPT)
def _parsed(version: Version, items: tuple[str, ...]) -> IntervalSet:
    return IntervalSet.of(version, (parse_span(item, version) for item in items))


def _overlaps(left: Sequence[Span], right: Sequence[Span]) -> Iterator[Span]:
    """What two canonical sequences share; each step drops the span that ends first, so the result is canonical too."""
    i = j = 0
    while i < len(left) and j < len(right):
        first, last = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if first <= last:
            yield first, last
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1


def _remainders(left: Sequence[Span], right: Sequence[Span]) -> Iterator[Span]:
    """What of `left` is not in `right`. A hole is at least one address wide, so the parts never touch."""
    j = 0
    for first, last in left:
        start = first
        while j < len(right) and right[j][1] < start:
            j += 1
        k = j
        while k < len(right) and right[k][0] <= last:
            if start < right[k][0]:
                yield start, right[k][0] - 1
            start = right[k][1] + 1
            k += 1
        if start <= last:
            yield start, last
