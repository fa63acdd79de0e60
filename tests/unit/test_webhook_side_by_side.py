"""Which SpiderSubnet a pool belongs to, where two of one network slipped through."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web

from allocator.domain.overlap import extent_of
from allocator.kube.resources import SPIDER_IP_POOLS, SPIDER_SUBNETS
from allocator.runtime.clock import SystemClock
from tests.plane.webhooks import pool, review, subnet
from tests.unit.fake_clock import FakeClock
from tests.unit.scripted_server import connected
from webhook.neighbours import SETTLED_S, Neighbours
from webhook.review import decode
from webhook.side_by_side import NAMED, SideBySide

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from tests.unit.scripted_server import Answer


def stored(name: str, made: str, *ips: str) -> dict[str, Any]:
    raw = subnet(name, subnet="10.20.0.0/16", ips=list(ips))
    raw["metadata"] |= {"uid": name, "resourceVersion": "1", "creationTimestamp": made}
    return raw


OLD = stored("z-old", "2026-01-01T00:00:00Z", "10.20.0.1-10.20.0.99")
NEW = stored("a-new", "2026-01-01T00:00:01Z", "10.20.0.200")


def cluster(
    *objects: dict[str, Any], stopping: asyncio.Event, are_listed: bool = True, kind: str = "spidersubnets"
) -> Answer:
    """An API server with these objects of that kind and no others, whose watches have nothing to tell."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if "watch" in request.query:
            await stopping.wait()
            return web.Response(status=503)
        found = [each for each in objects if request.path.endswith(f"/{each['metadata']['name']}")]
        if found:
            return web.json_response(found[0])
        items = list(objects) if are_listed and request.path.endswith(kind) else []
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
            request = decode(json.dumps(review(raw)).encode())
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


async def test_a_network_that_is_too_large_is_refused_without_reading_all_that_is_in_it(tmp_path: Path) -> None:
    inside = [pool(f"p{number:03}", subnet=f"10.20.{number}.0/24") for number in range(200)]
    for raw in inside:
        raw["metadata"] |= {"uid": raw["metadata"]["name"], "resourceVersion": "1"}
    async with connected(tmp_path) as (server, client), asyncio.TaskGroup() as group:
        server.otherwise = cluster(*inside, stopping=server.stopping, kind="spiderippools")
        pools = Neighbours(client, SPIDER_IP_POOLS, SystemClock())
        task = group.create_task(pools.cache.run())
        await pools.cache.wait_synced()
        del server.asked[:]
        raw = pool("too-large", subnet="10.0.0.0/8")
        problems = await SideBySide(pools, None).problems(decode(json.dumps(review(raw)).encode()), raw)
        named = [problem.message.split('"')[1] for problem in problems]
        assert named == [f"p{number:03}" for number in range(NAMED)]
        assert len([asked for asked in server.asked if "watch" not in asked.query]) == NAMED
        task.cancel()


def test_what_was_admitted_is_asked_for_once_it_must_have_been_stored() -> None:
    """Somebody after us may have refused it."""
    clock = FakeClock()
    pools = Neighbours(cast("KubeClient", None), SPIDER_IP_POOLS, clock)
    raw = pool("p", subnet="10.20.0.0/16")
    extent = extent_of(raw)
    assert extent is not None
    assert not pools.is_unsettled(extent)
    pools.admitted(raw)
    assert pools.is_unsettled(extent)
    clock.advance(SETTLED_S)
    assert not pools.is_unsettled(extent)


def test_a_late_event_of_a_deleted_pool_says_nothing_of_the_one_that_was_just_admitted_under_its_name() -> None:
    pools = Neighbours(cast("KubeClient", None), SPIDER_IP_POOLS, FakeClock())
    gone = stored_pool("old", "1")
    pools.cache.note(gone)
    # On the mutating side the new one has no uid yet.
    admitted = pool("p", subnet="10.21.0.0/16")
    pools.admitted(admitted)
    extent = extent_of(admitted)
    assert extent is not None
    pools.cache.note({**gone, "metadata": {**gone["metadata"], "resourceVersion": "2"}})
    pools.cache.note_deleted("p", "old")
    assert pools.is_unsettled(extent)
    pools.cache.note(stored_pool("new", "3"))
    assert not pools.is_unsettled(extent)


def stored_pool(uid: str, version: str) -> dict[str, Any]:
    raw = pool("p", subnet="10.21.0.0/16")
    raw["metadata"] |= {"uid": uid, "resourceVersion": version}
    return raw
