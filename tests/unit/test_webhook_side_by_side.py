"""Which SpiderSubnet a pool belongs to, where two of one network slipped through."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from allocator.kube.resources import SPIDER_IP_POOLS, SPIDER_SUBNETS
from allocator.runtime.clock import SystemClock
from tests.plane.webhooks import pool, review, subnet
from tests.unit.scripted_server import connected
from webhook.neighbours import Neighbours
from webhook.review import decode
from webhook.side_by_side import SideBySide

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.scripted_server import Answer


def stored(name: str, made: str, *ips: str) -> dict[str, Any]:
    raw = subnet(name, subnet="10.20.0.0/16", ips=list(ips))
    raw["metadata"] |= {"uid": name, "resourceVersion": "1", "creationTimestamp": made}
    return raw


OLD = stored("z-old", "2026-01-01T00:00:00Z", "10.20.0.1-10.20.0.99")
NEW = stored("a-new", "2026-01-01T00:00:01Z", "10.20.0.200")


def cluster(*subnets: dict[str, Any], stopping: asyncio.Event, are_listed: bool = True) -> Answer:
    """An API server with these subnets and no pools, whose watches have nothing to tell."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if "watch" in request.query:
            await stopping.wait()
            return web.Response(status=503)
        found = [each for each in subnets if request.path.endswith(f"/{each['metadata']['name']}")]
        if found:
            return web.json_response(found[0])
        items = list(subnets) if are_listed and request.path.endswith("spidersubnets") else []
        return web.json_response({"items": items, "metadata": {"resourceVersion": "1"}})

    return answer


async def test_of_two_subnets_of_one_network_the_one_made_first_has_the_pool(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, client), asyncio.TaskGroup() as group:
        server.otherwise = cluster(NEW, OLD, stopping=server.stopping)
        pools, subnets = (Neighbours(client, each, SystemClock()) for each in (SPIDER_IP_POOLS, SPIDER_SUBNETS))
        tasks = [group.create_task(each.cache.run()) for each in (pools, subnets)]
        for each in (pools, subnets):
            await each.cache.wait_synced()
        beside = SideBySide(pools, subnets)
        inside, outside = (pool("p", subnet="10.20.0.0/16", ips=[ip]) for ip in ("10.20.0.5", "10.20.0.200"))
        owner = await beside.owner_of(inside)
        assert owner is not None
        assert owner["metadata"]["name"] == "z-old"
        problems = []
        for raw in (inside, outside):
            request = decode(str(review(raw)).replace("'", '"').encode())
            problems.append(await beside.problems(request, raw))
        assert problems[0] == []
        assert [problem.field for problem in problems[1]] == ["spec.ips"]
        for task in tasks:
            task.cancel()


async def test_a_subnet_of_the_same_file_has_the_pool_before_the_cache_knows_it(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, client), asyncio.TaskGroup() as group:
        server.otherwise = cluster(OLD, stopping=server.stopping, are_listed=False)
        pools, subnets = (Neighbours(client, each, SystemClock()) for each in (SPIDER_IP_POOLS, SPIDER_SUBNETS))
        tasks = [group.create_task(each.cache.run()) for each in (pools, subnets)]
        for each in (pools, subnets):
            await each.cache.wait_synced()
        subnets.admitted(OLD)
        owner = await SideBySide(pools, subnets).owner_of(pool("p", subnet="10.20.0.0/16"))
        assert owner is not None
        assert owner["metadata"]["name"] == "z-old"
        for task in tasks:
            task.cancel()
