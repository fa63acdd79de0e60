"""Planes and processes that these tests kill. PLANE=embedded (default) or envtest."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import pytest

from allocator.kube.client import KubeClient
from tests.crash import actors
from tests.crash.planes import Plane, make_ready, running_plane
from tests.crash.stage import NAMESPACE, Stage, furnish
from tests.plane import machines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from devcluster.plane import Kind


def plane_kind() -> Kind:
    kind = os.environ.get("PLANE", "embedded")
    if kind == "kubeconfig":
        pytest.skip("nobody's API server is killed but our own")
    return cast("Kind", kind)


@pytest.fixture(scope="module")
def crash_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """With our kinds and KubeVirt's."""
    with running_plane(plane_kind(), tmp_path_factory.mktemp("plane")) as plane:
        asyncio.run(make_ready(plane))
        asyncio.run(_install_machines(plane))
        yield plane


@contextmanager
def running_stage(plane: Plane, folder: Path, nodes: Sequence[str]) -> Iterator[Stage]:
    """The stage with its nodes and nobody on it yet; the processes that a test adds end with the block."""
    asyncio.run(furnish(plane, nodes))
    stage = Stage(plane, folder)
    try:
        yield stage
    finally:
        stage.stop()


@contextmanager
def small_stage(plane: Plane, folder: Path, nodes: Sequence[str]) -> Iterator[Stage]:
    """An agent on each node and one controller, all serving."""
    with running_stage(plane, folder, nodes) as stage:
        for node in nodes:
            stage.add(actors.agent(plane.kubeconfig, node, folder, "--log-level", "debug"))
        stage.add(actors.controller(plane.kubeconfig, NAMESPACE, folder, "one", *actors.QUICK_RECLAIM))
        asyncio.run(stage.start())
        yield stage


async def _install_machines(plane: Plane) -> None:
    async with KubeClient.connect(kubeconfig=plane.kubeconfig, user_agent="tests") as kube:
        await machines.install(kube)
