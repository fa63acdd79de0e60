"""The tables of boundaries are complete: nothing is written that they do not have."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from allocator.kube import resources
from tests.crash import actors, agent_scenes, boundaries, controller_scenes, test_plugin_dies, test_webhook_dies
from tests.crash.actors import ROOT
from tests.crash.conftest import small_stage
from tests.crash.stage import NAMESPACE, Stage, on_stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.crash.planes import Plane

NODE = "n1"
CALL = re.compile(r"client\.(create|replace|patch|delete)\(\s*([A-Z_]+)")


@pytest.fixture(scope="module")
def stage(crash_plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with small_stage(crash_plane, tmp_path_factory.mktemp("stage"), [NODE]) as running:
        yield running


async def test_a_life_without_deaths_passes_nothing_else(stage: Stage) -> None:
    """All that the scenes have, side by side, with a webhook of each sort."""
    scenes = {scene for each in agent_scenes.SCENES.values() for scene in each}
    scenes |= {scene for each in controller_scenes.SCENES.values() for scene in each}
    scenes |= {test_plugin_dies.add, test_plugin_dies.end}
    # These wait for a death, or deal one.
    scenes -= {agent_scenes.long_refusal, agent_scenes.release_while_the_agent_is_away}
    async with on_stage(stage) as cluster:
        webhooks = [
            stage.add(actors.webhook(stage.plane.kubeconfig, stage.folder, *kept, name=name))
            for name, kept in (
                ("in-secret", ("--namespace", NAMESPACE)),
                ("in-folder", ("--cert-dir", str(stage.folder / "certs"))),
            )
        ]
        async with stage.supervised():
            async with asyncio.TaskGroup() as group:
                for scene in scenes - {agent_scenes.restart}:
                    group.create_task(scene(cluster), name=scene.__name__)
            await agent_scenes.restart(cluster)
            # The last, since it refuses some of what happened before.
            await test_webhook_dies.first_start(cluster, webhooks[0])
            webhooks[1].start()
            await webhooks[1].ready()
        stage.stop()
    passed = {point for actor in stage.actors.values() for point in actor.passed()}
    passed |= {*actors.passed(stage.plugin_fuse(NODE)), *stage.plane.actor.passed()}
    assert not boundaries.unknown(passed)
    # And it was a life in full; a real API server tells nothing of what it passes.
    processes = boundaries.WRITES.keys() - ({"plane"} if stage.plane.kind == "envtest" else set())
    assert {point.partition(":")[0] for point in passed} == processes


def test_every_call_in_the_sources_that_writes_is_in_a_table() -> None:
    known = {write.partition("=")[0].partition("/")[0] for writes in boundaries.WRITES.values() for write in writes}
    by_constant = {name: value.kind for name, value in vars(resources).items() if hasattr(value, "kind")}
    found = {
        f"{verb}-{by_constant[constant]}"
        for folder in ("agent", "allocator", "certs", "controller", "webhook")
        for path in (ROOT / folder).rglob("*.py")
        for verb, constant in CALL.findall(path.read_text())
    }
    assert found
    assert not found - known
