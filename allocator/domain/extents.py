"""Many extents, found by name and by where their networks lie; a look costs the same among ten and ten thousand."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.domain.addresses import Network
    from allocator.domain.overlap import Extent

# Family, first address, prefix length: in the order of these, a network is followed by those inside it.
_Place: TypeAlias = tuple[int, int, int]


class Extents:
    def __init__(self) -> None:
        self._by_name: dict[str, Extent] = {}
        self._by_place: defaultdict[_Place, dict[str, Extent]] = defaultdict(dict)
        self._places: list[_Place] = []
        self._lengths: Counter[tuple[int, int]] = Counter()  # of (family, prefix length) among the places

    def __iter__(self) -> Iterator[Extent]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Extent | None:
        return self._by_name.get(name)

    def put(self, extent: Extent) -> None:
        """In place of an earlier one of this name."""
        self.drop(extent.name)
        place = _place(extent.subnet)
        if place not in self._by_place:
            insort(self._places, place)
            self._lengths[place[0], place[2]] += 1
        self._by_place[place][extent.name] = extent
        self._by_name[extent.name] = extent

    def drop(self, name: str) -> None:
        extent = self._by_name.pop(name, None)
        if extent is None:
            return
        place = _place(extent.subnet)
        del self._by_place[place][name]
        if not self._by_place[place]:
            del self._by_place[place]
            del self._places[bisect_left(self._places, place)]
            self._lengths[place[0], place[2]] -= 1

    def near(self, network: Network) -> list[Extent]:
        """Those whose networks share an address with the given one: the same, inside it, or around it."""
        version, first, length = _place(network)
        bits = network.max_prefixlen
        last = first | ((1 << (bits - length)) - 1)
        inside = slice(
            bisect_left(self._places, (version, first, length)), bisect_right(self._places, (version, last, bits))
        )
        places = self._places[inside]
        for (family, shorter), count in self._lengths.items():
            if count and family == version and shorter < length:
                places.append((version, first >> (bits - shorter) << (bits - shorter), shorter))
        return [extent for place in places if place in self._by_place for extent in self._by_place[place].values()]


def _place(network: Network) -> _Place:
    return network.version, int(network.network_address), network.prefixlen
