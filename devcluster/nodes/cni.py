"""Run CNI plugins as a container runtime does: executables, parameters in the environment, JSON on stdin and stdout.

CNI specification 1.0.0, sections 2 to 4: a network is a list of plugins; ADD goes through it in order, each plugin
sees its predecessor's result as prevResult, DEL goes backwards with the final result.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devcluster.nodes import namespaces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devcluster.nodes.namespaces import Namespace

# Debian's containernetworking-plugins, and where everyone else puts them.
SYSTEM_FOLDERS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))

# Our plugin gives up an ADD after 60 s by itself; one that does not is stopped here.
PLUGIN_TIMEOUT_S = 75.0


class CniError(Exception):
    """A plugin refused. code is that of its error JSON, or None when it printed none."""

    def __init__(self, plugin: str, code: int | None, message: str) -> None:
        super().__init__(f"{plugin}: {message}" + ("" if code is None else f" (CNI code {code})"))
        self.plugin, self.code, self.message = plugin, code, message


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """What one ADD is about, and its DEL later. args is CNI_ARGS."""

    container_id: str
    netns: Path
    interface: str
    args: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NetworkList:
    """A network configuration list (.conflist); plugins are their configurations without name and cniVersion."""

    name: str
    cni_version: str
    plugins: tuple[dict[str, Any], ...]


def find(plugin: str, folders: tuple[Path, ...]) -> Path | None:
    for folder in folders:
        if os.access(folder / plugin, os.X_OK):
            return folder / plugin
    return None


class Runtime:
    """One network on one node. `namespace` is the node's own, None to run plugins where this process is."""

    def __init__(self, network: NetworkList, folders: tuple[Path, ...], namespace: Namespace | None) -> None:
        self._network = network
        self._folders = folders
        self._namespace = namespace

    async def add(self, attachment: Attachment) -> dict[str, Any]:
        """The last plugin's result. CniError when one fails; the caller then calls delete()."""
        result: dict[str, Any] | None = None
        for plugin in self._network.plugins:
            result = await self._call("ADD", plugin, attachment, result)
        return result or {}

    async def check(self, attachment: Attachment, result: dict[str, Any]) -> None:
        for plugin in self._network.plugins:
            await self._call("CHECK", plugin, attachment, result)

    async def delete(self, attachment: Attachment, result: dict[str, Any] | None) -> None:
        """`result` is what add() gave, None when it failed. CniError when a plugin fails."""
        for plugin in reversed(self._network.plugins):
            await self._call("DEL", plugin, attachment, result)

    async def _call(
        self, command: str, plugin: dict[str, Any], attachment: Attachment, previous: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        name = str(plugin["type"])
        executable = find(name, self._folders)
        if executable is None:
            places = ", ".join(map(str, self._folders))
            raise CniError(name, None, f"there is no such CNI plugin in {places}")
        config = {"cniVersion": self._network.cni_version, "name": self._network.name, **plugin}
        if previous is not None:
            config["prevResult"] = previous
        environment = {
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": attachment.container_id,
            "CNI_NETNS": str(attachment.netns),
            "CNI_IFNAME": attachment.interface,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in attachment.args.items()),
            "CNI_PATH": ":".join(map(str, self._folders)),
        }
        finished = await self._execute(executable, environment, json.dumps(config).encode())
        return _answer(name, finished)

    async def _execute(
        self, executable: Path, environment: dict[str, str], config: bytes
    ) -> subprocess.CompletedProcess[bytes]:
        run = _Execution(executable, environment, config)
        # A child is born in the network namespace of the thread that starts it.
        try:
            if self._namespace is None:
                return await namespaces.in_thread(run)
            return await namespaces.inside(self._namespace, run)
        except asyncio.CancelledError:
            run.kill()
            raise


class _Execution:
    """One run of a plugin, in a thread; kill() may come from another thread at any time."""

    def __init__(self, executable: Path, environment: dict[str, str], config: bytes) -> None:
        self._executable, self._environment, self._config = executable, environment, config
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def __call__(self) -> subprocess.CompletedProcess[bytes]:
        with self._lock:
            if self._killed:
                return subprocess.CompletedProcess([self._executable], -signal.SIGKILL, b"", b"")
            self._process = process = subprocess.Popen(
                [self._executable],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Ctrl-C in the terminal is for us: we decide what becomes of a plugin, and of those it calls itself.
                start_new_session=True,
            )
        try:
            out, err = process.communicate(self._config, timeout=PLUGIN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def kill(self) -> None:
        with self._lock:
            self._killed = True
            if self._process is not None and self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)


def _answer(plugin: str, finished: subprocess.CompletedProcess[bytes]) -> dict[str, Any] | None:
    text = finished.stdout.decode(errors="replace").strip()
    try:
        answer = json.loads(text) if text else None
    except ValueError:
        answer = None
    if finished.returncode == 0 and (answer is not None or not text):
        return answer if isinstance(answer, dict) else None
    if isinstance(answer, dict) and "msg" in answer:
        details = answer.get("details") or ""
        raise CniError(plugin, answer.get("code"), f"{answer['msg']}{': ' if details else ''}{details}")
    last = finished.stderr.decode(errors="replace").strip().splitlines()[-1:] or [text or "no output"]
    raise CniError(plugin, None, f"exit status {finished.returncode}: {last[0]}")
