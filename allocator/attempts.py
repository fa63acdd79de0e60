"""Addresses that a call set out to claim and has not answered yet: what an ADD that was cut off may leave behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

    from allocator.domain.addresses import Address, Version

# Pods to remember; those of calls that were cut off come back within seconds, or never.
REMEMBERED: Final = 1000


@dataclass(slots=True)
class Attempt:
    """`address` is the one that was tried last, unless others are known to have won it."""

    interface: str
    version: Version
    address: Address | None = None


class Attempts:
    """By pod UID, with one for each interface and family. They end when the interface's addresses are answered."""

    def __init__(self) -> None:
        self._open: dict[str, dict[tuple[str, Version], Attempt]] = {}

    def begin(self, pod_uid: str, interface: str, version: Version) -> Attempt:
        """The open attempt of this family, or a new one. The oldest pod is forgotten when there are too many."""
        if pod_uid not in self._open:
            if len(self._open) >= REMEMBERED:
                del self._open[next(iter(self._open))]
            self._open[pod_uid] = {}
        return self._open[pod_uid].setdefault((interface, version), Attempt(interface, version))

    def open(self, pod_uid: str) -> list[Attempt]:
        """Those that may stand in the ledger without ever having been answered."""
        return [attempt for attempt in self._open.get(pod_uid, {}).values() if attempt.address is not None]

    def over(self, pod_uid: str, interfaces: Collection[str]) -> None:
        """What the pod asked for on these interfaces is answered. What another one was after may still be written."""
        attempts = self._open.pop(pod_uid, {})
        if left := {key: each for key, each in attempts.items() if each.interface not in interfaces and each.address}:
            self._open[pod_uid] = left
