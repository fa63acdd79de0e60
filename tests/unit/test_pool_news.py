"""Who hears of the pools of an application, and of which changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from allocator.domain.auto_pools import Purpose, labels_of
from allocator.kube.pool_news import PoolNews
from allocator.kube.view import Change
from tests.unit.values import CART

if TYPE_CHECKING:
    from allocator.ports import News

OTHER = Purpose(CART, "eth0", 4, "s4", is_reclaimed=False)
PURPOSE = Purpose(CART, "eth0", 4, "s4", is_reclaimed=True)


def shown(generation: int = 1, purpose: Purpose | None = PURPOSE, **meta: Any) -> dict[str, Any]:
    labels = {} if purpose is None else labels_of(purpose)
    return {"metadata": {"name": "auto4", "uid": "u", "generation": generation, "labels": labels, **meta}}


async def is_told(news: News) -> bool:
    try:
        async with asyncio.timeout(0):
            await news.next()
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(Change("added", None, shown()), id="made"),
        pytest.param(Change("modified", shown(), shown(2)), id="its text"),
        pytest.param(Change("modified", shown(), shown(uid="v")), id="made again"),
        pytest.param(Change("modified", shown(), shown(deletionTimestamp="2026-01-01T00:00:00Z")), id="deleted"),
        pytest.param(Change("modified", shown(purpose=None), shown()), id="given to the application"),
        pytest.param(Change("modified", shown(purpose=OTHER), shown()), id="its labels"),
    ],
)
async def test_a_change_that_a_plan_looks_at_is_told(change: Change) -> None:
    news = PoolNews()
    with news.of(CART) as heard:
        news.tell(change)
        assert await is_told(heard)
        assert not await is_told(heard)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(Change("modified", shown(resourceVersion="1"), shown(resourceVersion="2")), id="its status"),
        pytest.param(Change("deleted", shown(), None), id="its end"),
        pytest.param(Change("modified", shown(), shown(2, None)), id="taken from the application"),
    ],
)
async def test_what_helps_nobody_is_not_told(change: Change) -> None:
    news = PoolNews()
    with news.of(CART) as heard:
        news.tell(change)
        assert not await is_told(heard)


async def test_what_came_while_nobody_awaited_it_is_told_by_the_next_call() -> None:
    news = PoolNews()
    with news.of(CART) as heard:
        news.tell(Change("added", None, shown()))
        news.tell(Change("modified", shown(), shown(2)))
        assert await is_told(heard)


async def test_each_listener_hears_it_and_who_has_left_is_forgotten() -> None:
    news = PoolNews()
    with news.of(CART) as first:
        with news.of(CART) as second:
            news.tell(Change("added", None, shown()))
            assert await is_told(second)
        assert await is_told(first)
        assert not news.is_idle
    assert news.is_idle
