"""A plugin that is killed at any of its boundaries: the runtime comes again, and the books balance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from devcluster.waiting import until
from tests.crash import actors, boundaries
from tests.crash.agent_scenes import asks_for, plugin_of
from tests.crash.books import balanced
from tests.crash.conftest import small_stage
from tests.crash.stage import Stage, on_stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.crash.agent_scenes import Scene
    from tests.crash.planes import Plane
    from tests.crash.stage import Cluster

NODE = "n1"


async def add(cluster: Cluster) -> None:
    """In a pool without an address to spare: an ADD that was cut off may not cost a second one."""
    await cluster.runtime.start(await cluster.pod(asks_for(await cluster.pool(1))), line=plugin_of(cluster, NODE))


async def end(cluster: Cluster) -> None:
    annotation = asks_for(await cluster.pool(1))
    pod = await cluster.pod(annotation)
    await cluster.runtime.start(pod)
    await cluster.end(pod, line=plugin_of(cluster, NODE))
    await cluster.runtime.start(await cluster.pod(annotation))


async def end_while_the_agent_hangs(cluster: Cluster) -> None:
    pod = await cluster.pod(asks_for(await cluster.pool(1)))
    await cluster.runtime.start(pod)
    agent = cluster.stage.actors[f"agent-{NODE}"]
    agent.pause()
    await cluster.end(pod, line=plugin_of(cluster, NODE))
    intents = list((cluster.stage.folder / NODE / "intents").glob("*.json"))
    assert len(intents) == 1
    agent.kill()

    async def made_up_for() -> bool:
        return not intents[0].exists()

    await until(made_up_for, within_s=60, what="the agent to carry the DEL out")


SCENES: Final[dict[str, Scene]] = {
    "ask-ADD": add,
    "ask-DEL": end,
    "print-result": add,
    "name-intent": end_while_the_agent_hangs,
}
POINTS = [point for write in SCENES for point in boundaries.failpoints("plugin", [write])]


@pytest.fixture(scope="module")
def stage(crash_plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with small_stage(crash_plane, tmp_path_factory.mktemp("stage"), [NODE]) as running:
        yield running


def test_every_boundary_of_the_plugin_has_a_scene() -> None:
    assert SCENES.keys() == set(boundaries.WRITES["plugin"])


@pytest.mark.parametrize("point", POINTS)
async def test_the_books_balance_after_a_plugin_died(stage: Stage, point: str) -> None:
    async with on_stage(stage) as cluster, stage.supervised():
        fuse = stage.plugin_fuse(NODE)
        actors.arm(fuse, point)
        await SCENES[point.split(":")[1]](cluster)
        assert actors.died_at(fuse) == point
        await balanced(cluster.api, cluster.runtime.told)
