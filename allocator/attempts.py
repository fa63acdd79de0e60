"""Addresses that a call set out to claim and has not answered yet: what an ADD that was cut off may leave behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from allocator.domain.addresses import Address, Version

# Entries to remember; the pods of calls that were cut off come back within seconds, or never.
REMEMBERED: Final = 1000


@dataclass(slots=True)
class Attempt:
    """`address` is the one that was tried last, unless others are known to have won it."""

    address: Address | None = None


class Attempts:
    """By pod UID, interface and family. An entry ends when its address is answered, or undone for certain."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str, Version], Attempt] = {}

    def begin(self, pod_uid: str, interface: str, version: Version) -> Attempt:
        """The open attempt of this family, or a new one. The oldest is forgotten when there are too many."""
        key = (pod_uid, interface, version)
        if key not in self._open:
            if len(self._open) >= REMEMBERED:
                del self._open[next(iter(self._open))]
            self._open[key] = Attempt()
        return self._open[key]

    def open(self, pod_uid: str, interface: str) -> list[Attempt]:
        """Those of the interface that may stand in the ledger without ever having been answered."""
        found = (self._open.get((pod_uid, interface, version)) for version in _VERSIONS)
        return [attempt for attempt in found if attempt is not None and attempt.address is not None]

    def over(self, pod_uid: str, interface: str) -> None:
        """The interface's addresses are answered."""
        for version in _VERSIONS:
            self._open.pop((pod_uid, interface, version), None)


_VERSIONS: Final[tuple[Version, Version]] = (4, 6)
