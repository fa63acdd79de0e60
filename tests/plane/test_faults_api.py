"""An API server that refuses, forgets to answer or goes away, and what an agent makes of it (FAULTS.md, F23 to F33)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from allocator.kube.resources import EVENTS, SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES
from devcluster.waiting import until
from tests.plane.agents import Agent, make_node, make_pod, make_pool, running_agent
from tests.plane.between import Between, between, controller_behind
from tests.plane.test_agent import ONE, state_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiohttp import web

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.plane.between import Call


@pytest.fixture
async def api(plane: Plane, tmp_path: Path) -> AsyncIterator[Between]:
    async with between(plane.kubeconfig, tmp_path) as made:
        yield made


@pytest.fixture
async def agent(api: Between, kube: KubeClient, tmp_path: Path) -> AsyncIterator[Agent]:
    await make_node(kube, "n1")
    async with running_agent(api.kubeconfig, "n1", tmp_path) as running:
        yield running


async def make_pods(kube: KubeClient, namespace: str, count: int) -> list[Object]:
    return [await make_pod(kube, namespace, f"p{index}", "n1", ONE) for index in range(count)]


async def add_all(agent: Agent, pods: list[Object]) -> list[list[str]]:
    async with asyncio.TaskGroup() as group:
        adds = [group.create_task(agent.add(pod)) for pod in pods]
    return [add.result().addresses for add in adds]


async def holders(kube: KubeClient) -> dict[str, str]:
    """Who holds each address, by UID."""
    records, _ = await kube.list_all(SPIDER_IP_ADDRESSES)
    held = [each["spec"] for each in records if each["spec"]["state"] == "Held"]
    return {f"{each['address']}/16": each["holder"]["podUID"] for each in held}


def as_answered(pods: list[Object], given: list[list[str]]) -> dict[str, str]:
    return {address: pod["metadata"]["uid"] for pod, (address,) in zip(pods, given, strict=True)}


async def test_an_add_succeeds_though_its_first_twenty_writes_are_answered_with_409(
    agent: Agent, api: Between, kube: KubeClient, namespace: str
) -> None:
    """Names that are taken, and conflicts of other kinds, which a create may meet too."""
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    (pod,) = await make_pods(kube, namespace, 1)
    refused = 0

    async def conflicts(call: Call) -> web.StreamResponse:
        nonlocal refused
        if call.is_write and refused < 20:
            refused += 1
            return await call.refused(409, "AlreadyExists" if refused % 2 else "Conflict")
        return await call.passes()

    api.meddle = conflicts
    given = await add_all(agent, [pod])
    assert refused == 20
    assert await holders(kube) == as_answered([pod], given)


async def test_writes_whose_answers_are_lost_are_found_and_not_repeated_elsewhere(
    agent: Agent, api: Between, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    pods = await make_pods(kube, namespace, 4)
    lost: Counter[tuple[str, str]] = Counter()

    async def loses(call: Call) -> web.StreamResponse:
        if call.is_write and lost[call.method, call.of] < 3:
            lost[call.method, call.of] += 1
            await call.passes()
            return call.cut()
        return await call.passes()

    api.meddle = loses
    given = await add_all(agent, pods)
    assert lost["POST", "spideripaddresses"] == 3
    assert await holders(kube) == as_answered(pods, given)


async def test_a_third_of_all_answers_being_errors_costs_retries_and_nothing_else(
    agent: Agent, api: Between, kube: KubeClient, namespace: str
) -> None:
    """As many tries as errors make necessary, and no more: that is what keeps a herd from thundering."""
    await make_pool(kube, "a", "10.20.0.10-10.20.0.39")
    pods = await make_pods(kube, namespace, 30)
    chance = random.Random(26)  # noqa: S311 - the same errors in each run
    failed = passed = 0

    async def fails(call: Call) -> web.StreamResponse:
        nonlocal failed, passed
        if call.is_watch or chance.random() > 0.3:
            passed += not call.is_watch
            return await call.passes()
        failed += 1
        status = chance.choice([429, 500, 503, 504])
        if status == 504 and call.is_write:  # a timeout of the server's: it may have been done
            await call.passes()
        return await call.refused(status, "", retry_after=0 if status == 429 else None)

    api.meddle = fails
    given = await add_all(agent, pods)
    assert await holders(kube) == as_answered(pods, given)
    assert failed < passed


async def test_an_outage_of_the_api_server_frees_nothing_and_is_over_with_its_end(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    """What a rolling restart looks like from a node: connections break, and new ones are refused for a while."""
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    async with (
        between(plane.kubeconfig, tmp_path) as api,
        running_agent(api.kubeconfig, "n1", tmp_path) as agent,
        controller_behind(api, namespace, tmp_path) as controller,
    ):
        await controller.logged("leading")
        before = await make_pods(kube, namespace, 2)
        given = await add_all(agent, before)
        gone = asyncio.Event()

        async def is_away(call: Call) -> web.StreamResponse:
            gone.set()
            return call.cut()

        api.meddle = is_away
        for call in api.calls:
            call.cut()
        waiting = await make_pod(kube, namespace, "waiting", "n1", ONE)
        async with asyncio.TaskGroup() as group:
            add = group.create_task(agent.add(waiting))
            await gone.wait()
            await controller.logged("leader_overdue")
            api.meddle = passes
        given.append(add.result().addresses)
        # It leads again, and has swept since.
        await until(lambda: _led_twice(controller.lines("leading")), within_s=30, what="a new term")
        after = await make_pod(kube, namespace, "after", "n1", ONE)
        given += await add_all(agent, [after])
        assert not controller.lines("address_released")
    assert await holders(kube) == as_answered([*before, waiting, after], given)


async def passes(call: Call) -> web.StreamResponse:
    return await call.passes()


async def _led_twice(lines: list[dict[str, Any]]) -> bool:
    return len(lines) >= 2


async def test_a_right_that_is_taken_away_is_told_as_an_event_and_not_asked_for_in_a_loop(
    agent: Agent, api: Between, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    (pod,) = await make_pods(kube, namespace, 1)

    async def may_not_create(call: Call) -> web.StreamResponse:
        if call.method == "POST" and call.of == "spideripaddresses":
            return await call.refused(403, "Forbidden")
        return await call.passes()

    api.meddle = may_not_create
    answer = await agent.add(pod)
    assert (answer.headers["X-Spiderpool-Reason"], answer.headers["X-Spiderpool-CNI-Code"]) == ("Unavailable", "11")
    assert "403 Forbidden" in answer.json
    assert len(api.writes("spideripaddresses")) == 1

    async def event() -> list[str]:
        events = (await kube.list(EVENTS, namespace=namespace))["items"]
        return [each["note"] for each in events if each["reason"] == "Unavailable"]

    assert "403 Forbidden" in (await until(event, within_s=20, what="the event"))[0]
    api.meddle = passes
    assert await add_all(agent, [pod])


async def test_500_tries_at_an_empty_pool_cost_the_api_server_a_few_reads(
    agent: Agent, api: Between, kube: KubeClient, namespace: str
) -> None:
    """A pod whose ADD fails is tried again for ever; what that costs must not depend on how many wait."""
    await make_pool(kube, "a", "10.20.0.10")
    first, *others = await make_pods(kube, namespace, 51)
    await add_all(agent, [first])
    for pod in others:  # the informer has seen them all
        assert (await agent.add(pod)).headers["X-Spiderpool-Reason"] == "PoolExhausted"
    api.calls.clear()
    began = asyncio.get_running_loop().time()
    for _ in range(10):
        async with asyncio.TaskGroup() as group:
            tries = [group.create_task(agent.add(pod)) for pod in others]
        assert {each.result().headers["X-Spiderpool-Reason"] for each in tries} == {"PoolExhausted"}
    seconds = asyncio.get_running_loop().time() - began
    asked = Counter((call.method, call.of) for call in api.calls if call.of != "events" and not call.is_watch)
    # Each second one list, and one look whether the pool's text is still the same.
    assert asked.total() <= 3 * (seconds + 1), asked


async def test_a_token_that_is_replaced_is_used_without_a_restart(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    token = tmp_path / "token"
    token.write_text("first")
    good = "first"

    async def checks(call: Call) -> web.StreamResponse:
        if call.request.headers.get("Authorization") != f"Bearer {good}":
            return await call.refused(401, "Unauthorized")
        return await call.passes()

    async with between(plane.kubeconfig, tmp_path, user={"tokenFile": str(token)}) as api:
        api.meddle = checks
        async with running_agent(api.kubeconfig, "n1", tmp_path) as agent:
            pods = await make_pods(kube, namespace, 2)
            await add_all(agent, pods[:1])
            good = "second"
            # As kubelets do it: a new file under the old name.
            fresh = tmp_path / "token.new"
            fresh.write_text("second")
            fresh.rename(token)
            (given,) = await add_all(agent, pods[1:])
    assert await state_of(kube, given[0].removesuffix("/16")) == "Held"
    assert await kube.get(SPIDER_ENDPOINTS, "p1", namespace=namespace)
