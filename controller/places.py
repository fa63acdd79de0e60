"""Records by their addresses, so that those in a range are found whatever pool they came from."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

from allocator.domain.addresses import version_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.domain.addresses import IntervalSet, Version
    from allocator.domain.record import Record


class Places:
    def __init__(self) -> None:
        self._records: dict[Version, dict[int, Record]] = {4: {}, 6: {}}
        self._values: dict[Version, list[int]] = {4: [], 6: []}  # in ascending order

    def put(self, record: Record) -> None:
        """In place of an earlier one of this address."""
        version, value = version_of(record.address), int(record.address)
        if value not in self._records[version]:
            insort(self._values[version], value)
        self._records[version][value] = record

    def drop(self, record: Record) -> None:
        version, value = version_of(record.address), int(record.address)
        del self._records[version][value]
        del self._values[version][bisect_left(self._values[version], value)]

    def within(self, addresses: IntervalSet) -> Iterator[Record]:
        records, values = self._records[addresses.version], self._values[addresses.version]
        for first, last in addresses.spans:
            for value in values[bisect_left(values, first) : bisect_right(values, last)]:
                yield records[value]
