"""The one folder that a devcluster writes to, and its lock.

Everything that runs for a devcluster ends with its process (processes.py, nodes/namespaces.py), so after a crash only
files are left, and the next start in the same folder removes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = "devcluster.lock"  # also the mark of a folder that is ours to empty

# sizeof(sockaddr_un.sun_path) less the final zero, unix(7).
SOCKET_PATH_LIMIT = 107


class WorkspaceError(Exception):
    """The folder cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Workspace:
    directory: Path

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def netns(self) -> Path:
        return self.directory / "netns"

    @property
    def plugins(self) -> Path:
        return self.directory / "cni" / "bin"

    @property
    def plane(self) -> Path:
        return self.directory / "plane"

    def node(self, name: str) -> Path:
        return self.directory / "nodes" / name

    def socket(self, node: str) -> Path:
        """Where a node's agent listens. WorkspaceError when the path is longer than unix sockets allow."""
        path = self.directory / "run" / f"{node}.sock"
        if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
            excess = len(os.fsencode(path)) - SOCKET_PATH_LIMIT
            raise WorkspaceError(
                f"{self.directory} is {excess} bytes too long for unix sockets in it: give a shorter --dir"
            )
        return path


@contextlib.contextmanager
def open_workspace(directory: Path) -> Iterator[Workspace]:
    """An empty folder that is ours alone, removed at the end unless the body raised an Exception: then its logs are
    wanted. (A cancelled body did not fail.) WorkspaceError when it is in use, or holds what is not ours.
    """
    directory = directory.absolute()
    lock = _lock(directory)
    try:
        workspace = Workspace(directory)
        _empty(directory)
        for folder in (workspace.logs, workspace.netns, workspace.plugins, workspace.plane, directory / "run"):
            folder.mkdir(parents=True)
        keep = False
        try:
            yield workspace
        except Exception:
            keep = True
            raise
        finally:
            if not keep:
                shutil.rmtree(directory)
    finally:
        lock.close()


def _lock(directory: Path) -> TextIO:
    path = directory / LOCK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()) and not path.exists():
            raise WorkspaceError(f"{directory} holds files that no devcluster made: give an empty or a new --dir")
        lock = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise WorkspaceError(f"{directory} cannot be used ({error.strerror}): give another --dir") from error
    if not _is_ours(lock, path):
        lock.seek(0)
        owner = lock.read().strip() or "another process"
        lock.close()
        raise WorkspaceError(f"a devcluster runs in {directory} (process {owner}): stop it, or give another --dir")
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _is_ours(lock: TextIO, path: Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    # Whoever held it until now may have removed the folder meanwhile, and someone else made it again.
    return path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat())


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
