"""Where pods of a node live: a namespace each, or nowhere for a user who cannot make namespaces."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from devcluster.nodes.attach import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

    from devcluster.nodes.network import Underlay


class Sandboxes(Protocol):
    async def open(self, name: str) -> Sandbox: ...

    def close(self, sandbox: Sandbox) -> None: ...


class Namespaces:
    def __init__(self, underlay: Underlay) -> None:
        self._underlay = underlay

    async def open(self, name: str) -> Sandbox:
        namespace = await self._underlay.add_sandbox(name)
        return Sandbox(netns=namespace.path, namespace=namespace)

    def close(self, sandbox: Sandbox) -> None:
        if sandbox.namespace is not None:
            self._underlay.remove(sandbox.namespace)


class NoNamespaces:
    """Plugins want a CNI_NETNS that opens: it is this process's own, under a name for each pod."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    async def open(self, name: str) -> Sandbox:
        path = self._folder / name
        path.unlink(missing_ok=True)
        path.symlink_to(f"/proc/{os.getpid()}/ns/net")
        return Sandbox(netns=path, namespace=None)

    def close(self, sandbox: Sandbox) -> None:
        sandbox.netns.unlink(missing_ok=True)
