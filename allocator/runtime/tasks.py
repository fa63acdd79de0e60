"""Several things at once, without losing an error or a task."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from allocator.runtime.clock import Clock

A = TypeVar("A")
B = TypeVar("B")
E = TypeVar("E", bound=Exception)


async def both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Run both and give both results. The first failure cancels the other and is raised as itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            one, two = group.create_task(first), group.create_task(second)
    except BaseExceptionGroup as failures:
        raise _leaf(failures) from None
    return one.result(), two.result()


async def settled(jobs: Sequence[Coroutine[Any, Any, A]], *expected: type[E]) -> list[A | E]:
    """Run all to their ends; the errors of the expected classes are among the results. Any other cancels the rest."""

    async def settle(job: Coroutine[Any, Any, A]) -> A | E:
        try:
            return await job
        except expected as error:
            return error

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(settle(job)) for job in jobs]
    except BaseExceptionGroup as failures:
        raise _leaf(failures) from None
    return [task.result() for task in tasks]


async def is_done_within(seconds: float, work: Coroutine[Any, Any, None], clock: Clock) -> bool:
    """Run the work for so long at most; False when it was cancelled then. Its failure is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = group.create_task(work), group.create_task(clock.sleep(seconds))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as failures:
        raise _leaf(failures) from None
    return not tasks[0].cancelled()


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
