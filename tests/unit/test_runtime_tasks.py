"""Work with an end in time."""

import asyncio

import pytest

from allocator.runtime.tasks import is_done_within
from tests.unit.fake_clock import FakeClock


async def fails() -> None:
    raise ValueError("no")


async def test_work_that_is_done_in_time_leaves_no_sleeper() -> None:
    clock = FakeClock()
    assert await is_done_within(1.0, asyncio.sleep(0), clock)
    assert clock.sleepers == 0


async def test_work_that_takes_longer_is_cancelled() -> None:
    never = asyncio.Event()

    async def wait() -> None:
        await never.wait()

    assert not await is_done_within(1.0, wait(), FakeClock(auto=True))


async def test_the_failure_of_the_work_is_raised_as_itself() -> None:
    with pytest.raises(ValueError, match="no"):
        await is_done_within(1.0, fails(), FakeClock())
