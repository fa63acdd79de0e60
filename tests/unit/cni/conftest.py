from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni import install
from tests.unit.cni.harness import FakeAgent, Plugin, pod_network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install.install(tmp_path_factory.mktemp("bin"))


@pytest.fixture
def plugin(executable: Path, tmp_path: Path) -> Plugin:
    return Plugin(executable, tmp_path)


@pytest.fixture
def agent(plugin: Plugin) -> Iterator[FakeAgent]:
    with FakeAgent(plugin.socket_path) as agent:
        yield agent


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Path]:
    with pod_network(tmp_path) as path:
        yield path
