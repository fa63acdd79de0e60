"""An API server whose definition of SpiderIPAddress is older than agent and controller (FAULTS.md, F31)."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

from allocator.kube.resources import SPIDER_IP_ADDRESSES
from allocator.kube.schema import EVERY_FIELD
from devcluster.waiting import until
from tests.plane.agents import make_node, running_agent
from tests.plane.between import between
from tests.plane.controllers import NOBODY, make_record, running_controller, state_of, until_state
from tests.plane.test_agent_api import asked_on_tcp, free_port

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web

    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane
    from tests.plane.between import Call


async def forgets_peers_and_networks(call: Call) -> web.StreamResponse:
    """What pruning does with fields that a definition does not have."""
    if call.of == "spideripaddresses" and call.method in ("POST", "PATCH"):
        pruned = copy.deepcopy(call.body)
        pruned["spec"].pop("peer", None)
        pruned["spec"].get("holder", {}).pop("network", None)
        return await call.passes(body=pruned)
    return await call.passes()


async def passes(call: Call) -> web.StreamResponse:
    return await call.passes()


async def test_an_agent_serves_nobody_while_the_definition_drops_fields_and_says_which(
    plane: Plane, kube: KubeClient, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    port = free_port()
    wanted = (
        "the definition of SpiderIPAddress drops spec.holder.network, spec.peer: apply manifests/crds of this version"
    )

    async def says_why() -> bool:
        try:
            return await asked_on_tcp(port, "/v1/runtime/readiness") == (500, wanted)
        except OSError:
            return False

    async with between(plane.kubeconfig, tmp_path) as api:
        api.meddle = forgets_peers_and_networks

        async def mend_once_it_says_why() -> None:
            await until(says_why, within_s=20, what="the agent to say why it is not ready")
            assert not (tmp_path / "n1.sock").exists()
            api.meddle = passes

        async with asyncio.TaskGroup() as group:
            group.create_task(mend_once_it_says_why())
            async with running_agent(api.kubeconfig, "n1", tmp_path, health=f"127.0.0.1:{port}") as agent:
                assert (await agent.call("GET", "/v1/ipam/healthy")).status == 200
    assert (await kube.list_all(SPIDER_IP_ADDRESSES))[0] == []


async def test_a_leader_frees_nothing_while_the_definition_drops_fields(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    await make_record(kube, "10.30.0.1", "none", namespace, "ghost", NOBODY)
    async with between(plane.kubeconfig, tmp_path) as api:
        api.meddle = forgets_peers_and_networks
        with running_controller(api.kubeconfig, namespace, tmp_path) as controller:
            why = (await controller.logged("schema_check_failed"))["why"]
            assert why.startswith("the definition of SpiderIPAddress drops spec.holder.network, spec.peer")
            assert not controller.lines("leading")
            assert await state_of(kube, "10.30.0.1") == "Held"
            api.meddle = passes
            await until_state(kube, "10.30.0.1", "Cooling", "")


def test_the_record_that_is_tried_says_something_in_every_field_that_a_record_has() -> None:
    given_by_the_server = {"uid", "resource_version"}
    for part in (EVERY_FIELD, EVERY_FIELD.holder, EVERY_FIELD.peer, EVERY_FIELD.slot):
        assert is_dataclass(part)
        for field in fields(part):
            if field.name not in given_by_the_server:
                assert getattr(part, field.name) not in (None, ""), field.name
