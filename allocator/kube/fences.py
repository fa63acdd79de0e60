"""What is asked right before a write leaves, each time that it is tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from allocator.domain import errors

if TYPE_CHECKING:
    from collections.abc import Callable

# Raises where this process must not write any more.
Fence: TypeAlias = "Callable[[], None]"


def no_fence() -> None:
    """For a process that writes what only it may write: an agent, of its own node."""


def leaders(may_act: Callable[[], bool]) -> Fence:
    """errors.Unavailable once this replica is not sure to lead: the one that leads will see to it."""

    def fence() -> None:
        if not may_act():
            raise errors.Unavailable("this replica does not lead any more")

    return fence
