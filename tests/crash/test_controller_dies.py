"""A leader that is killed at any of its boundaries: its successor finishes what it began, and the books balance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash import boundaries
from tests.crash.books import balanced
from tests.crash.conftest import small_stage
from tests.crash.controller_scenes import SCENES
from tests.crash.stage import Stage, on_stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.crash.agent_scenes import Scene
    from tests.crash.planes import Plane

CONTROLLER = "controller-one"
ROWS = [
    pytest.param(point, scene, id=f"{point}-{scene.__name__}")
    for write, scenes in SCENES.items()
    for point in boundaries.failpoints("controller", [write])
    for scene in scenes
]


@pytest.fixture(scope="module")
def stage(crash_plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with small_stage(crash_plane, tmp_path_factory.mktemp("stage"), ["n1"]) as running:
        yield running


def test_every_boundary_of_the_controller_has_a_scene() -> None:
    assert SCENES.keys() == set(boundaries.WRITES["controller"])


@pytest.mark.parametrize(("point", "scene"), ROWS)
async def test_the_books_balance_after_the_leader_died(stage: Stage, point: str, scene: Scene) -> None:
    async with on_stage(stage) as cluster, stage.supervised():
        stage.actors[CONTROLLER].arm(point)
        await scene(cluster)
        await stage.death_of(CONTROLLER, point)
        await balanced(cluster.api, cluster.runtime.told)
