"""The addresses of a pool that an agent does not know to be taken: spans that are changed in place.

Finding the next one, taking and giving back cost O(log spans), whatever the number of addresses.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from allocator.domain.addresses import IntervalSet


class Vacancies:
    """Ascending spans without overlap, as two lists; neighbours may touch, which costs a span and no more."""

    def __init__(self, free: IntervalSet) -> None:
        self._firsts = [first for first, _ in free.spans]
        self._lasts = [last for _, last in free.spans]
        self.size = free.size

    def __contains__(self, value: int) -> bool:
        index = bisect_right(self._firsts, value) - 1
        return index >= 0 and value <= self._lasts[index]

    def next_from(self, value: int) -> int:
        """The first vacant address from `value` on, beginning anew at the end. IndexError when there is none."""
        index = bisect_left(self._lasts, value)
        return max(self._firsts[index], value) if index < len(self._lasts) else self._firsts[0]

    def nth(self, index: int) -> int:
        """The vacant address at `index` (0-based) in ascending order. IndexError when there are not so many."""
        for first, last in zip(self._firsts, self._lasts, strict=True):
            if index <= last - first:
                return first + index
            index -= last - first + 1
        raise IndexError("there are not so many vacant addresses")

    def take(self, value: int) -> None:
        """The address is vacant no more; nothing happens when it was not."""
        index = bisect_right(self._firsts, value) - 1
        if index < 0 or value > self._lasts[index]:
            return
        first, last = self._firsts[index], self._lasts[index]
        parts = [(low, high) for low, high in ((first, value - 1), (value + 1, last)) if low <= high]
        self._firsts[index : index + 1] = [low for low, _ in parts]
        self._lasts[index : index + 1] = [high for _, high in parts]
        self.size -= 1

    def give(self, value: int) -> None:
        """The address is vacant again; nothing happens when it was."""
        if value not in self:
            index = bisect_left(self._firsts, value)
            self._firsts.insert(index, value)
            self._lasts.insert(index, value)
            self.size += 1
