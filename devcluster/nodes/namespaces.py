"""Network namespaces held by file descriptors of this process.

A namespace lives as long as someone refers to it, and here only a descriptor does: no bind mount, nothing in
/var/run/netns. So whatever ends this process, kill -9 included, ends its namespaces and every link in them. The names
are symbolic links `DIR/netns/NAME -> /proc/PID/fd/N`, which `nsenter --net=` and CNI plugins open like any other path.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Params = ParamSpec("Params")
Value = TypeVar("Value")

CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str
    descriptor: int
    path: Path

    def close(self) -> None:
        """Drop the name and the descriptor; the kernel removes the links in it soon after."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


def create(name: str, folder: Path) -> Namespace:
    """OSError (EPERM) without the right to make namespaces."""
    descriptor = _in_fresh_thread(_unshare)
    path = folder / name
    path.unlink(missing_ok=True)
    path.symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
    return Namespace(name=name, descriptor=descriptor, path=path)


def run_inside(
    namespace: Namespace, work: Callable[Params, Value], *args: Params.args, **kwargs: Params.kwargs
) -> Value:
    """Run blocking work in the namespace. Sockets opened and processes started there stay there."""

    def enter() -> Value:
        if _libc.setns(namespace.descriptor, CLONE_NEWNET) != 0:
            raise _last_error(f"enter network namespace {namespace.name}")
        return work(*args, **kwargs)

    return _in_fresh_thread(enter)


async def inside(
    namespace: Namespace, work: Callable[Params, Value], *args: Params.args, **kwargs: Params.kwargs
) -> Value:
    return await in_thread(lambda: run_inside(namespace, work, *args, **kwargs))


async def in_thread(work: Callable[Params, Value], *args: Params.args, **kwargs: Params.kwargs) -> Value:
    """asyncio.to_thread() without its limit of a few threads, which a few plugins that wait would use up.

    Cancelling leaves the work running; it must end by itself.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Value] = loop.create_future()

    def settle(outcome: Value | None, failure: BaseException | None) -> None:
        if done.cancelled():
            return
        if failure is not None:
            done.set_exception(failure)
        else:
            done.set_result(cast("Value", outcome))

    def run() -> None:
        outcome: Value | None = None
        failure: BaseException | None = None
        try:
            outcome = work(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - carried to the caller
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
            loop.call_soon_threadsafe(settle, outcome, failure)

    threading.Thread(target=run, name="blocking-work", daemon=True).start()
    return await done


def _unshare() -> int:
    if _libc.unshare(CLONE_NEWNET) != 0:
        raise _last_error("make a network namespace")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _last_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"cannot {what}: {os.strerror(number)}")


def _in_fresh_thread(work: Callable[[], Value]) -> Value:
    # A namespace belongs to a thread. One that changed it is never used for anything else: it ends here.
    outcome: list[Value] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread below
            failure.append(error)

    thread = threading.Thread(target=run, name="in-namespace")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
