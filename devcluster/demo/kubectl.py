"""kubectl where it is installed; where it is not, client.py sends the same requests."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Output:
    """Exit status, and stdout with stderr behind it."""

    status: int
    text: str


class Kubectl(Protocol):
    async def __call__(self, *arguments: str) -> Output: ...


class Installed:
    def __init__(self, kubeconfig: Path, *, cache: Path, folder: Path) -> None:
        """`cache` is where kubectl may write, instead of ~/.kube; `folder` is what paths are relative to."""
        self._folder = folder
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(cache)}

    async def __call__(self, *arguments: str) -> Output:
        process = await asyncio.create_subprocess_exec(
            "kubectl",
            *arguments,
            cwd=self._folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            out, _ = await process.communicate()
        except asyncio.CancelledError:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        return Output(process.returncode or 0, out.decode(errors="replace").rstrip())


def is_installed() -> bool:
    return shutil.which("kubectl") is not None
