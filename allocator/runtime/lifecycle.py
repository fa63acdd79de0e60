"""Run a process: signals cancel the main coroutine, the outcome is the exit code."""

import asyncio
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator

from allocator.runtime import logs, watchdog
from allocator.runtime.config import ConfigError

log = logs.get_logger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
UNUSABLE_SETTING = 2  # the exit code
# Objects made and not freed until cycles are looked for. Requests leave few cycles, and Python's 700 means that one CPU
# second in ten goes into looking through modules and caches again and again.
COLLECT_AFTER = 20_000
# A quiet process makes so few that they would pile up for hours: each connection of asyncio is a cycle of 1 KiB.
COLLECT_EVERY_S = 30.0


def run(main: Callable[[], Awaitable[None]]) -> int:
    """Run `main` on an event loop of its own and return the exit code of the process.

    SIGTERM and SIGINT cancel `main`, which has as long as it needs to clean up; a second signal ends the process
    at once. 0 when `main` returned or was stopped by a signal, 1 when it raised (one log line `process_failed`), 2 when
    that was a ConfigError: its message says what to do, a traceback would not. A loop that is stuck is told of.
    """
    gc.set_threshold(COLLECT_AFTER)
    return asyncio.run(_supervise(main))


async def _supervise(main: Callable[[], Awaitable[None]]) -> int:
    task = asyncio.current_task()
    if task is None:  # cannot be: asyncio.run made one
        raise RuntimeError("no current task: call lifecycle.run, not _supervise")
    task.set_name("main")
    loop = asyncio.get_running_loop()
    stop = _Stop(task)
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.on_signal, number)
    collecting = loop.create_task(_collect(), name="collect")
    try:
        with watchdog.watching():
            await main()
    except asyncio.CancelledError:
        if stop.signal is None:
            raise
    except Exception as error:  # the border of the process: whatever comes out here ends it
        leaves = list(_leaves(error))
        causes = "; ".join(f"{type(leaf).__name__}: {leaf}" for leaf in leaves)
        is_setting = all(isinstance(leaf, ConfigError) for leaf in leaves)
        log.exception("process_failed", error=causes, exc_info=not is_setting)
        return UNUSABLE_SETTING if is_setting else 1
    finally:
        collecting.cancel()
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
    log.info("process_stopped", signal=stop.signal.name if stop.signal else None)
    return 0


async def _collect() -> None:
    """What is young costs a few milliseconds; what has become old waits until Python looks through everything.

    glibc keeps the free pages between blocks in use, half a MiB more each minute of churn, until it is asked for them
    (malloc_trim(3)); musl has nothing like it, and gives them back by itself.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while True:
        await asyncio.sleep(COLLECT_EVERY_S)
        gc.collect(1)
        if trim is not None:
            trim(0)


class _Stop:
    def __init__(self, task: asyncio.Task[int]) -> None:
        self.signal: signal.Signals | None = None
        self._task = task

    def on_signal(self, number: signal.Signals) -> None:
        if self.signal is not None:
            log.warning("process_killed", signal=number.name)
            sys.stderr.flush()
            os._exit(128 + number)  # at once: no cleanup, it is cleanup that hangs
        self.signal = number
        log.info("process_stopping", signal=number.name)
        self._task.cancel()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
