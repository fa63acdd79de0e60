"""Virtual time and a seeded scheduler: every simulated process on one event loop, and no two runs of a seed differ.

Each callback carries its context, and the context says whose it is (`PROCESS`). Whenever several processes could go on,
the seed decides which one does; within one process the order is that of arrival, as in a real event loop. When nobody
can go on, time jumps to the next timer. A paused process (SIGSTOP) goes on collecting what it is told and what its
timers have to say; a dead one (SIGKILL) never does anything again, not even clean up.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Process:
    """One operating system process, from its start to its end; a restart is another Process of the same name."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name = name
        self.rng = rng
        self.skew_s = 0.0  # of its wall clock
        self.is_paused = False
        self.is_dead = False
        self.ready: deque[asyncio.Handle] = deque()
        self.context: Context = copy_context()
        self.context.run(PROCESS.set, self)

    def __repr__(self) -> str:
        return self.name


PROCESS: Final[ContextVar[Process]] = ContextVar("process")


TICK_S: Final = 1e-6
# Far more than all processes together have to do in a second.
STEPS_A_SECOND: Final = 50_000


class Standstill(AssertionError):
    """Nobody can go on, and no timer will ever change that; or somebody goes round in circles, and no time passes."""


class NumberedTask(asyncio.Task[T]):
    """Sets of tasks, such as a TaskGroup's, are in an order that the seed knows, and not in that of memory."""

    def __init__(self, number: int, work: Coroutine[Any, Any, T], **options: Any) -> None:
        self._number = number
        super().__init__(work, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """`time` is what all monotonic clocks show. Nothing here reads a socket, a file or the machine's clock."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.set_debug(False)
        self.set_task_factory(self._remembered)  # type: ignore[arg-type]
        self.steps = 0
        # What asyncio would have logged: exceptions that nobody has caught.
        self.complaints: list[str] = []
        self._now = 0.0
        self._steps_end = STEPS_A_SECOND
        self._random = rng.random
        self._runnable: list[Process] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Process]] = []
        self._number = 0
        self._numbers = itertools.count()
        # A task that nobody refers to would be cleaned up in the middle of the run, by whoever runs then.
        self._tasks: list[asyncio.Task[Any]] = []

    _stopping: bool  # asyncio's own: somebody has called `stop`

    def time(self) -> float:
        return self._now

    def spawn(self, process: Process, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run `work` as a part of the process."""
        return self.create_task(work, name=name, context=process.context.copy())

    def start(self, process: Process, work: Coroutine[Any, Any, None], name: str) -> None:
        """As `spawn`, for what nobody waits for."""
        self._tasks.append(self.spawn(process, work, name))

    def kill(self, process: Process) -> None:
        process.is_dead = True
        process.ready.clear()
        if process in self._runnable:
            self._runnable.remove(process)

    def pause(self, process: Process) -> None:
        process.is_paused = True
        if process in self._runnable:
            self._runnable.remove(process)

    def resume(self, process: Process) -> None:
        process.is_paused = False
        if process.ready:
            self._runnable.append(process)

    # -- what asyncio asks of a loop

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        context = copy_context() if context is None else context
        handle = asyncio.Handle(callback, args, self, context)
        self._enqueue(context[PROCESS], handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        context = copy_context() if context is None else context
        # A real clock moves on by itself: who sleeps for a rounding error wakes up after it.
        when = max(when, self._now + TICK_S)
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, handle, context[PROCESS]))
        return handle

    def run_in_executor(self, _executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """At once: there are no threads here, and no disk that anybody would wait for."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - a thread's exceptions are its future's
            future.set_exception(error)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Tasks of a run that is over are destroyed while they wait: nobody needs to know."""
        if not self.is_closed():
            self.complaints.append(str(context.get("exception") or context.get("message")))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def _write_to_self(self) -> None:
        """There is no thread that could wait in a selector."""

    def _run_once(self) -> None:
        """Run until somebody stops the loop."""
        runnable, draw = self._runnable, self._random
        while not self._stopping:
            if not runnable:
                self._advance()
                continue
            index = int(draw() * len(runnable)) if len(runnable) > 1 else 0
            process = runnable[index]
            handle = process.ready.popleft()
            if not process.ready:
                del runnable[index]
            if not handle.cancelled():
                self.steps += 1
                if self.steps > self._steps_end:
                    raise Standstill(f"{process} goes round in circles: {handle}")
                handle._run()  # noqa: SLF001 - a loop is who runs them

    def _advance(self) -> None:
        """Let time pass until a timer is due."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not timers:
            raise Standstill("everybody waits, and nobody for a moment in time")
        now = max(self._now, timers[0][0])
        if int(now) != int(self._now):
            self._steps_end = self.steps + STEPS_A_SECOND
        self._now = now
        while timers and timers[0][0] <= self._now:
            _, _, handle, process = heapq.heappop(timers)
            if not handle.cancelled():
                self._enqueue(process, handle)

    def _enqueue(self, process: Process, handle: asyncio.Handle) -> None:
        if process.is_dead:
            return
        if not process.ready and not process.is_paused:
            self._runnable.append(process)
        process.ready.append(handle)

    def _remembered(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], context: Context | None = None
    ) -> asyncio.Task[T]:
        task = NumberedTask(next(self._numbers), work, loop=loop, context=context)
        self._tasks.append(task)
        return task


class VirtualClock:
    """The Clock of one process: its wall clock may be wrong, and jump."""

    def __init__(self, loop: VirtualLoop, process: Process) -> None:
        self._loop = loop
        self._process = process

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self._loop.time() + self._process.skew_s)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0.0))
