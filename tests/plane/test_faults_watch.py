"""Watches that break, repeat themselves or tell nothing, and what hangs on them (FAULTS.md, F27 and F28)."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from allocator.kube.resources import SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS
from devcluster.waiting import until, until_true
from tests.plane.agents import make_node, make_pod, make_pool, running_agent
from tests.plane.between import Between, between, controller_behind
from tests.plane.controllers import NOBODY, make_record, state_of, until_state
from tests.plane.test_agent import ONE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from aiohttp import web

    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane
    from tests.plane.between import Call

EXPIRED = {
    "type": "ERROR",
    "object": {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": 410,
        "reason": "Expired",
        "message": "too old resource version",
    },
}


@pytest.fixture
async def api(plane: Plane, kube: KubeClient, tmp_path: Path) -> AsyncIterator[Between]:
    await make_node(kube, "n1")
    async with between(plane.kubeconfig, tmp_path) as made:
        yield made


async def test_watches_that_repeat_events_expire_and_are_refused_lose_nothing(
    api: Between, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    """Each resource's watches: the first repeats what it tells and ends in an error, the next is refused twice."""
    await make_pool(kube, "a", "10.20.0.10-10.20.0.29")
    opened: Counter[str] = Counter()

    async def breaks(call: Call) -> web.StreamResponse:
        if not call.is_watch:
            return await call.passes()
        opened[call.of] += 1
        if opened[call.of] in (2, 3):
            return await call.refused(429, "TooManyRequests", retry_after=0)
        left = 3

        async def twice_and_then_expired(line: bytes) -> Sequence[bytes]:
            nonlocal left
            left -= 1
            return [line, line] if left else [line, json.dumps(EXPIRED).encode() + b"\n"]

        return await call.passes(lines=twice_and_then_expired if opened[call.of] == 1 else None)

    api.meddle = breaks
    async with running_agent(api.kubeconfig, "n1", tmp_path) as agent:
        given = {}
        for index in range(12):
            pod = await make_pod(kube, namespace, f"p{index}", "n1", ONE)
            given[f"p{index}"] = (await agent.add(pod)).addresses

        async def shown() -> bool:
            """By the informers alone: of the pod, and of its record."""
            for name, addresses in given.items():
                found = await agent.call("GET", f"/v1/workloadendpoint?podNamespace={namespace}&podName={name}")
                if found.status != 200 or [found.json["interfaces"][0]["ipv4"]] != addresses:
                    return False
            return True

        await until(shown, within_s=30, what="the informers to show all pods and records")
        both = ("pods", "spideripaddresses")
        await until_true(lambda: all(opened[of] > 3 for of in both), within_s=30, what="watches that go on")
        await until(shown, within_s=30, what="the same to be shown still")
    assert len({address for (address,) in given.values()}) == 12


async def tells_nothing(call: Call) -> web.StreamResponse:
    async def silent(_: bytes) -> Sequence[bytes]:
        return []

    return await call.passes(lines=silent)


async def test_an_agent_whose_watches_tell_nothing_claims_by_the_texts_and_records_of_now(
    api: Between, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.12")
    api.meddle = tells_nothing
    async with running_agent(api.kubeconfig, "n1", tmp_path) as deaf:
        pods = [await make_pod(kube, namespace, name, "n1", ONE) for name in ("early", "cart", "late")]
        (early,) = (await deaf.add(pods[0])).addresses
        taken, excluded = sorted({"10.20.0.10", "10.20.0.11", "10.20.0.12"} - {early.removesuffix("/16")})
        # Neither the other agent's record nor the new text is shown to this one.
        await make_record(kube, taken, "a", namespace, "elsewhere", NOBODY)
        spec = {"ips": ["10.20.0.10-10.20.0.13"], "excludeIPs": [excluded]}
        await kube.patch(SPIDER_IP_POOLS, "a", {"spec": spec})
        assert (await deaf.add(pods[1])).addresses == ["10.20.0.13/16"]
        assert (await deaf.add(pods[2])).headers["X-Spiderpool-Reason"] == "PoolExhausted"
    records, _ = await kube.list_all(SPIDER_IP_ADDRESSES)
    assert {each["spec"]["address"]: each["spec"]["holder"]["pod"] for each in records} == {
        early.removesuffix("/16"): "early",
        taken: "elsewhere",
        "10.20.0.13": "cart",
    }


async def test_a_controller_whose_watch_of_pods_is_behind_frees_nothing_of_pods_that_it_does_not_see(
    api: Between, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.29")

    async def pods_are_late(call: Call) -> web.StreamResponse:
        return await (tells_nothing(call) if call.of == "pods" else call.passes())

    api.meddle = pods_are_late
    async with controller_behind(api, namespace, tmp_path) as controller:
        await controller.logged("leading")
        pod = await make_pod(kube, namespace, "cart", "n1")
        await make_record(kube, "10.20.0.10", "a", namespace, "cart", pod["metadata"]["uid"])
        await controller.logged("holder_suspected", address="10.20.0.10")
        # Suspected later, and freed meanwhile:
        await make_record(kube, "10.20.0.11", "a", namespace, "ghost", NOBODY)
        await until_state(kube, "10.20.0.11", "Cooling", "")
        assert await state_of(kube, "10.20.0.10") == "Held"
