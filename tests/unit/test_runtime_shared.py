"""One read for many: whoever asks is given a read that was begun after it asked."""

import asyncio

import pytest

from allocator.runtime.shared import SharedRead
from allocator.runtime.tasks import both


class Source:
    """Each read waits for `go`; what it gives is its number."""

    def __init__(self) -> None:
        self.begun = 0
        self.failing: set[int] = set()
        self.go = asyncio.Semaphore(0)

    async def read(self) -> int:
        self.begun += 1
        number = self.begun
        await self.go.acquire()
        if number in self.failing:
            raise OSError(number)
        return number


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_asks_during_a_read_is_given_the_next_one_and_all_of_them_share_it() -> None:
    source = Source()
    shared = SharedRead(source.read)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(shared.after_now())
        await settle()
        late = [group.create_task(shared.after_now()) for _ in range(5)]
        await settle()
        source.go.release()
        source.go.release()
    assert first.result() == 1
    assert [task.result() for task in late] == [2] * 5
    assert source.begun == 2


async def test_a_result_is_not_kept_for_those_who_ask_later() -> None:
    source = Source()
    shared = SharedRead(source.read)
    for expected in (1, 2):
        source.go.release()
        assert await shared.after_now() == expected


async def test_a_cancelled_reader_leaves_the_read_to_the_next_in_line() -> None:
    source = Source()
    shared = SharedRead(source.read)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(shared.after_now())
        second = group.create_task(shared.after_now())
        await settle()
        first.cancel()
        await settle()
        source.go.release()
    assert first.cancelled()
    assert second.result() == 2


async def test_a_failing_read_fails_only_who_ran_it() -> None:
    source = Source()
    source.failing = {1}
    shared = SharedRead(source.read)
    source.go.release()
    source.go.release()
    async with asyncio.TaskGroup() as group:
        second = group.create_task(asyncio.wait_for(_second(shared), 1))
        with pytest.raises(OSError, match="1"):
            await shared.after_now()
    assert second.result() == 2


async def _second(shared: SharedRead[int]) -> int:
    return await shared.after_now()


async def test_both_gives_both_results() -> None:
    assert await both(asyncio.sleep(0, "a"), asyncio.sleep(0, "b")) == ("a", "b")


async def test_the_first_failure_of_both_ends_the_other_and_comes_out_as_itself() -> None:
    ended = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fails() -> None:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        await both(forever(), fails())
    assert ended.is_set()
