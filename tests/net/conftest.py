from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from devcluster.nodes import network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session", autouse=True)
def an_underlay_is_possible(tmp_path_factory: pytest.TempPathFactory) -> None:
    if why := asyncio.run(network.obstacle(tmp_path_factory.mktemp("probe"))):
        pytest.skip(f"needs root and a kernel with bridge, veth and macvlan: {why}")


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[network.Underlay]:
    with network.underlay(tmp_path / "netns") as made:
        yield made
