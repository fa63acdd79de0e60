"""What was seen once and must be seen again before anything happens; and the brake on too many of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import datetime

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Suspect(Generic[T]):
    """`edition` is what the subject was when first seen: a changed one starts again.

    `first_at` is for people, `first_s` (monotonic seconds) for measuring.
    """

    key: str
    edition: str
    subject: T
    first_at: datetime
    first_s: float


class Suspects(Generic[T]):
    def __init__(self) -> None:
        self._suspects: dict[str, Suspect[T]] = {}

    def __iter__(self) -> Iterator[Suspect[T]]:
        return iter(tuple(self._suspects.values()))

    def __len__(self) -> int:
        return len(self._suspects)

    def see(self, key: str, edition: str, subject: T, *, now: datetime, monotonic: float) -> bool:
        """A sighting: True for the first of this edition, which starts the clock; later ones renew what was seen."""
        known = self._suspects.get(key)
        is_first = known is None or known.edition != edition
        if known is not None and not is_first:
            now, monotonic = known.first_at, known.first_s
        self._suspects[key] = Suspect(key, edition, subject, now, monotonic)
        return is_first

    def clear(self, key: str) -> None:
        """Seen alive, dealt with, or in doubt: a later sighting is a first one again."""
        self._suspects.pop(key, None)

    def keep_only(self, keys: Collection[str]) -> None:
        self._suspects = {key: suspect for key, suspect in self._suspects.items() if key in keys}

    def due(self, monotonic: float, grace_s: float) -> list[Suspect[T]]:
        """Those first seen at least `grace_s` ago, the oldest first."""
        ripe = [suspect for suspect in self._suspects.values() if monotonic - suspect.first_s >= grace_s]
        return sorted(ripe, key=lambda suspect: suspect.first_s)


# A tenth of everything at once, and more than a busy rollout leaves behind, is more likely a fault than the truth.
BRAKE_SHARE: Final = 0.1
BRAKE_FLOOR: Final = 50
BRAKE_CONFIRM_S: Final = 30.0


class Brake:
    """Holds a sweep that would free too much until a complete sweep, `confirm_s` after each was first seen, still says
    the same.
    """

    def __init__(self, *, confirm_s: float = BRAKE_CONFIRM_S) -> None:
        self._confirm_s = confirm_s
        self._held: Mapping[str, float] = {}
        self._confirmed: frozenset[str] = frozenset()

    @property
    def is_on(self) -> bool:
        """Whether the last sweep was held, in whole or in part."""
        return bool(self._held.keys() - self._confirmed)

    def sweep(self, would_free: Mapping[str, float], total: int, monotonic: float) -> None:
        """Tell what a complete sweep would free, of `total` records in use, and since when that has been seen."""
        self._held = dict(would_free) if _too_many(len(would_free), total) else {}
        self._confirmed = frozenset(self._ripe(monotonic))

    def wants_sweep(self, monotonic: float) -> bool:
        """Whether a sweep now would let go of something."""
        return any(key not in self._confirmed for key in self._ripe(monotonic))

    def _ripe(self, monotonic: float) -> Iterator[str]:
        return (key for key, since in self._held.items() if monotonic - since >= self._confirm_s)

    def holds(self, key: str) -> bool:
        """Whether the last sweep held this one, and no other has confirmed it yet."""
        return key in self._held and key not in self._confirmed

    def lets(self, key: str, would_free: int, total: int) -> bool:
        """Whether this one may be freed now, while `would_free` of `total` records are waiting for it."""
        return key in self._confirmed or not _too_many(would_free, total)


def _too_many(would_free: int, total: int) -> bool:
    return would_free > BRAKE_FLOOR and would_free > total * BRAKE_SHARE
