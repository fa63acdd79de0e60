"""What happened, in order: kept only when somebody wants to read it, since most seeds have nothing to tell."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import structlog

from tests.simulation.loop import PROCESS

if TYPE_CHECKING:
    from collections.abc import Callable


class Story:
    def __init__(self, now: Callable[[], float], *, is_kept: bool) -> None:
        self.is_kept = is_kept
        self.lines: list[str] = []
        self._now = now

    def tell(self, words: str, *parts: object) -> None:
        if self.is_kept:
            process = PROCESS.get().name
            self.lines.append(f"{self._now():9.3f} {process:12} {words % parts if parts else words}")

    @property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()[:16]


class Ear:
    """Hears the log lines of the product: a structlog processor that lets none go on to a terminal."""

    def __init__(self, heard: Callable[[str, dict[str, Any]], None]) -> None:
        self._heard = heard

    def __call__(self, _logger: object, _level: str, line: Any) -> Any:
        self._heard(line.pop("event", ""), line)
        raise structlog.DropEvent
