from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devcluster.nodes import namespaces, network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session", autouse=True)
def namespaces_are_possible() -> None:
    if not namespaces.are_possible():
        pytest.skip("needs root: network namespaces cannot be made here (CAP_SYS_ADMIN)")


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[network.Underlay]:
    with network.underlay(tmp_path / "netns") as made:
        yield made
