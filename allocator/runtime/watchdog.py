"""Says where the event loop is stuck. Nothing else in the process can, while it is: probes, deadlines and signals wait
for the same loop.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from allocator.runtime import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logs.get_logger(__name__)

# Longer than any turn of a loop on a machine that is merely busy, shorter than what probes and plugins wait.
LIMIT_S: float = 5.0
# Looks within the limit. They are counted, and no clock is compared: a process that was stopped as a whole (SIGSTOP, a
# frozen machine) is not stuck when it goes on.
LOOKS: Final = 5


@contextmanager
def watching() -> Iterator[None]:
    """Inside the block a loop that stays in one turn for LIMIT_S is told of, with the stack that holds it up.

    To be entered in the loop's thread.
    """
    loop, pause_s = asyncio.get_running_loop(), LIMIT_S / LOOKS
    ident, turned, ended = threading.get_ident(), threading.Event(), threading.Event()
    timer: asyncio.TimerHandle | None = None

    def turn() -> None:
        nonlocal timer
        turned.set()
        timer = loop.call_later(pause_s / 2, turn)

    def look() -> None:
        missed = 0
        while not ended.wait(pause_s):
            missed = 0 if turned.is_set() else missed + 1
            turned.clear()
            if missed == LOOKS:
                log.error("event_loop_blocked", for_s=LIMIT_S, stack=_stack_of(ident))

    turn()
    thread = threading.Thread(target=look, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        if timer is not None:
            timer.cancel()
        thread.join()


def _stack_of(ident: int) -> str:
    frame = sys._current_frames().get(ident)  # noqa: SLF001 - the only way to see another thread's stack
    return "".join(traceback.format_stack(frame)) if frame is not None else ""
