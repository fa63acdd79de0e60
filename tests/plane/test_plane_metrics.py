"""GET /metrics: the plane counts what it answers, by kube-apiserver's names. The bench counts API calls with it."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from allocator.kube.errors import NotFound
from allocator.kube.resources import CONFIG_MAPS
from tests.plane.support import config_map

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient


async def _sum(kube: KubeClient, metric: str, **labels: str) -> float:
    found = 0.0
    for line in (await kube.raw("GET", "/metrics")).splitlines():
        if line.startswith(metric) and all(f'{name}="{value}"' in line for name, value in labels.items()):
            found += float(re.split(r"\} ", line)[1])
    return found


async def test_every_answered_request_is_counted_by_verb_resource_and_code(kube: KubeClient, namespace: str) -> None:
    async def counted() -> list[float]:
        wanted = (("POST", "201"), ("GET", "200"), ("GET", "404"), ("LIST", "200"))
        of = {"metric": "apiserver_request_total", "resource": "configmaps"}
        return [await _sum(kube, verb=verb, code=code, **of) for verb, code in wanted]

    before = await counted()
    await kube.create(CONFIG_MAPS, config_map("one", namespace))
    await kube.get(CONFIG_MAPS, "one", namespace=namespace)
    with contextlib.suppress(NotFound):
        await kube.get(CONFIG_MAPS, "two", namespace=namespace)
    await kube.list(CONFIG_MAPS, namespace=namespace)
    after = await counted()

    # A real API server asks itself for config maps too.
    assert all(now >= then + 1 for then, now in zip(before, after, strict=True)), (before, after)


async def test_the_sizes_of_request_bodies_are_summed(kube: KubeClient, namespace: str) -> None:
    metric = "apiserver_request_body_size_bytes_sum"
    before = await _sum(kube, metric, resource="configmaps")

    await kube.create(CONFIG_MAPS, {**config_map("large", namespace), "data": {"text": "x" * 5000}})

    assert await _sum(kube, metric, resource="configmaps") >= before + 5000
