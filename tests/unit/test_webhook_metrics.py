"""What is counted of the webhook's judges."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from allocator.kube.resources import SPIDER_IP_POOLS
from allocator.runtime.metrics import PATH, application
from webhook.metrics import Metrics
from webhook.neighbours import NotReadyError
from webhook.paths import Judge
from webhook.review import Allowed, Denied, Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from webhook.review import Operation, Verdict


def request(operation: Operation | None = "CREATE") -> Request:
    return Request(
        uid="u1",
        operation=operation,
        group="spiderpool.spidernet.io",
        kind="SpiderIPPool",
        plural="spiderippools",
        subresource="",
        name="a-name",
        namespace="",
        is_dry_run=False,
        new={},
        old={},
    )


def judging(answer: Callable[[Request], Awaitable[Verdict]]) -> tuple[Metrics, Judge]:
    metrics = Metrics(lambda: None)
    return metrics, metrics.watching(Judge(SPIDER_IP_POOLS, "validate", answer))


async def counted(metrics: Metrics) -> dict[tuple[str, str, str], float]:
    async with TestClient(TestServer(application(metrics.registry))) as client, client.get(PATH) as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        text = await response.text()
    assert "a-name" not in text
    return {
        (sample.labels["kind"], sample.labels["operation"], sample.labels["verdict"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "spiderpool_webhook_requests_total"
    }


async def test_verdicts_are_counted_and_passed_on() -> None:
    verdicts: list[Verdict] = [Allowed(), Denied(422, "Invalid", "no"), Allowed()]

    async def answer(_request: Request) -> Verdict:
        return verdicts[0]

    metrics, judge = judging(answer)
    for verdict in list(verdicts):
        assert await judge.answer(request()) is verdict
        verdicts.pop(0)
    assert await counted(metrics) == {
        ("SpiderIPPool", "CREATE", "allowed"): 2,
        ("SpiderIPPool", "CREATE", "denied"): 1,
    }


async def test_who_cannot_judge_or_runs_out_of_time_has_failed() -> None:
    async def unable(_request: Request) -> Verdict:
        raise NotReadyError("not yet")

    async def slow(_request: Request) -> Verdict:
        await asyncio.Event().wait()
        return Allowed()

    metrics, judge = judging(unable)
    with pytest.raises(NotReadyError):
        await judge.answer(request("DELETE"))
    assert await counted(metrics) == {("SpiderIPPool", "DELETE", "failed"): 1}

    metrics, judge = judging(slow)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await judge.answer(request("UPDATE"))
    assert await counted(metrics) == {("SpiderIPPool", "UPDATE", "failed"): 1}


async def test_what_is_no_operation_of_ours_makes_no_series_of_its_own() -> None:
    async def answer(_request: Request) -> Verdict:
        return Allowed()

    metrics, judge = judging(answer)
    await judge.answer(request(None))
    assert await counted(metrics) == {("SpiderIPPool", "other", "allowed"): 1}
