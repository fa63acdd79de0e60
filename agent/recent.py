"""Which interface of a sandbox was answered last, for as long as its ADD may still be under way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from allocator.domain.attachments import Sandbox
    from allocator.domain.request import AddRequest
    from allocator.runtime.clock import Clock

# The original's plugin has 100 s for an ADD. Then it has failed, or the interface is in use.
UNDER_WAY_S: Final = 100.0


class Recent:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answered: dict[str, tuple[float, str]] = {}  # by container ID, the oldest first

    def note(self, request: AddRequest) -> None:
        container, now = request.interface.container_id, self._clock.monotonic()
        self._answered.pop(container, None)
        self._answered[container] = now, request.interface.name
        while now - self._answered[oldest := next(iter(self._answered))][0] > UNDER_WAY_S:
            del self._answered[oldest]

    def interface(self, sandbox: Sandbox) -> str:
        """Its name; empty when no ADD of the sandbox can be under way, or this process has not answered it."""
        at, name = self._answered.get(sandbox.container_id, (float("-inf"), ""))
        return name if self._clock.monotonic() - at <= UNDER_WAY_S else ""
