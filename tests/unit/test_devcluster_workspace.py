from __future__ import annotations

import asyncio
import fcntl
from typing import TYPE_CHECKING

import pytest

from devcluster.workspace import LOCK, WorkspaceError, open_workspace

if TYPE_CHECKING:
    from pathlib import Path


def test_the_folder_is_gone_after_a_run_that_went_well(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "dc") as space:
        assert space.logs.is_dir()
    assert not (tmp_path / "dc").exists()


def test_the_folder_is_gone_after_a_cancelled_run(tmp_path: Path) -> None:
    def run() -> None:
        with open_workspace(tmp_path / "dc"):
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run()
    assert not (tmp_path / "dc").exists()


def test_the_logs_of_a_failed_run_stay_until_the_next_one(tmp_path: Path) -> None:
    def run() -> None:
        with open_workspace(tmp_path / "dc") as space:
            (space.logs / "webhook.log").write_text("why")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run()
    assert (tmp_path / "dc" / "logs" / "webhook.log").read_text() == "why"
    with open_workspace(tmp_path / "dc") as space:
        assert list(space.logs.iterdir()) == []


def test_a_folder_with_other_peoples_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(WorkspaceError, match="holds files that no devcluster made"), open_workspace(tmp_path):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_second_devcluster_in_the_folder_is_told_who_has_it(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "dc") as space, (space.directory / LOCK).open() as lock:
        owner = lock.read()
        with pytest.raises(WorkspaceError, match=f"process {owner}"), open_workspace(tmp_path / "dc"):
            pass


def test_what_a_killed_devcluster_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / "dc"
    (left / "netns").mkdir(parents=True)
    (left / "netns" / "node-1").symlink_to("/proc/1/fd/999")
    (left / LOCK).write_text("4711")
    with open_workspace(left) as space:
        assert list(space.netns.iterdir()) == []


def test_a_path_that_is_too_long_for_a_socket_says_so(tmp_path: Path) -> None:
    with open_workspace(tmp_path / ("x" * 100)) as space, pytest.raises(WorkspaceError, match="give a shorter --dir"):
        space.socket("node-1")


def test_the_lock_of_a_folder_removed_meanwhile_does_not_count(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "dc"):
        pass
    with (
        open_workspace(tmp_path / "dc") as space,
        (space.directory / LOCK).open() as lock,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
