"""What kubelet and container runtime do with pods: sandboxes, ADD until it succeeds, DEL until it does.

`told` is the truth of the data plane: what was printed or answered for a pod that lives is configured on its interface.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp

from devcluster.waiting import WaitError
from tests.plane.agents import args

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from allocator.kube.resources import Object

# Kubelet's own limit for a sandbox is four minutes.
POD_START_S: Final = 60.0
# Kubelet waits longer; these clusters are small, and in a hurry.
RETRY_S: Final = 0.1


class NoAddress(Exception):
    """The ADD failed, for good or because somebody died: the runtime gives the sandbox up."""


class NotReleased(Exception):
    """The DEL failed: the runtime comes again."""


class Line(Protocol):
    """How a runtime of a node calls CNI."""

    async def add(self, pod: Object, interface: str, container: str) -> tuple[str, ...]:
        """The interface's addresses without their prefix. NoAddress."""

    async def delete(self, pod: Object, interface: str, container: str) -> None:
        """NotReleased."""


@dataclass(frozen=True, slots=True)
class Direct:
    """Speaks to the agent's socket itself, as the plugin would: no process for each call."""

    session: aiohttp.ClientSession

    async def add(self, pod: Object, interface: str, container: str) -> tuple[str, ...]:
        try:
            async with self.session.post("http://agent/v1/ipam/ip", json=args(pod, interface, container)) as response:
                answer = await response.json()
                if response.status != 200:
                    raise NoAddress(str(answer))
        except (aiohttp.ClientError, OSError) as error:
            raise NoAddress(str(error)) from error
        return tuple(ip["address"].partition("/")[0] for ip in answer["ips"] if ip["nic"] == interface)

    async def delete(self, pod: Object, interface: str, container: str) -> None:
        try:
            async with self.session.delete("http://agent/v1/ipam/ip", json=args(pod, interface, container)) as response:
                if response.status != 200:
                    raise NotReleased(await response.text())
        except (aiohttp.ClientError, OSError) as error:
            raise NotReleased(str(error)) from error


@dataclass(frozen=True, slots=True)
class Plugin:
    """A process for each call. `program` is the plugin, or armed.py before it."""

    program: Sequence[str]
    socket: Path
    state_dir: Path

    async def add(self, pod: Object, interface: str, container: str) -> tuple[str, ...]:
        status, printed = await self._run("ADD", pod, interface, container)
        if status != 0:
            raise NoAddress(printed or f"the plugin ended with {status}")
        return tuple(ip["address"].partition("/")[0] for ip in json.loads(printed)["ips"])

    async def delete(self, pod: Object, interface: str, container: str) -> None:
        status, printed = await self._run("DEL", pod, interface, container)
        if status != 0:
            raise NotReleased(printed or f"the plugin ended with {status}")

    async def _run(self, command: str, pod: Object, interface: str, container: str) -> tuple[int, str]:
        meta = pod["metadata"]
        names = {"NAMESPACE": meta["namespace"], "NAME": meta["name"], "UID": meta["uid"]}
        environ = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": "/var/run/netns/none",
            "CNI_IFNAME": interface,
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": ";".join(["IgnoreUnknown=1", *(f"K8S_POD_{key}={value}" for key, value in names.items())]),
        }
        ipam = {
            "type": "spiderpool",
            "ipam_unix_socket_path": str(self.socket),
            "state_dir": str(self.state_dir),
            "log_file_path": str(self.state_dir / "plugin.log"),
        }
        config = {"cniVersion": "1.0.0", "name": "underlay", "type": "macvlan", "ipam": ipam}
        process = await asyncio.create_subprocess_exec(
            *self.program,
            env=environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            printed, _ = await process.communicate(json.dumps(config).encode())
        except (BrokenPipeError, ConnectionResetError):  # killed before it had read its configuration
            printed = b""
        finally:
            if process.returncode is None:
                process.kill()
        return await process.wait(), printed.decode()


def armed_plugin(fuse: Path) -> list[str]:
    return [sys.executable, "-m", "tests.crash.armed", str(fuse), "--", "plugin"]


@dataclass(slots=True)
class Told:
    """A living pod, its sandbox, and what it was told by interface."""

    pod: Object
    container: str
    addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class Runtime:
    """`lines` by node. `adds` counts the calls that were made."""

    lines: Mapping[str, Line]
    told: dict[str, Told] = field(default_factory=dict)
    retry_s: float = RETRY_S
    adds: int = 0
    failed_adds: int = 0
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def start(
        self, pod: Object, *interfaces: str, line: Line | None = None, within_s: float = POD_START_S
    ) -> tuple[str, ...]:
        """ADD for each interface (eth0), in new sandboxes until all succeed. WaitError when none does in time."""
        last = "no answer"
        try:
            async with asyncio.timeout(within_s):
                while True:
                    told = Told(pod, self.new_container(pod))
                    try:
                        for interface in interfaces or ("eth0",):
                            told.addresses[interface] = await self._add(pod, interface, told.container, line)
                    except NoAddress as error:
                        last = str(error)
                        await self._undo(told, line)
                        await asyncio.sleep(self.retry_s)
                    else:
                        self.told[pod["metadata"]["uid"]] = told
                        return told.addresses[(interfaces or ("eth0",))[-1]]
        except TimeoutError:
            name = pod["metadata"]["name"]
            raise WaitError(f"pod {name} got no address within {within_s:g} s: {last}") from None

    async def try_once(self, pod: Object, interface: str = "eth0", line: Line | None = None) -> None:
        """One ADD, whatever becomes of it, as of a runtime that dies with it: no DEL follows."""
        try:
            await self._add(pod, interface, self.new_container(pod), line)
        except NoAddress:
            return

    def forget(self, pod: Object) -> Told | None:
        """The pod is about to be deleted, or has ended: nothing is configured any more."""
        return self.told.pop(pod["metadata"]["uid"], None)

    async def release(self, told: Told, *, line: Line | None = None, within_s: float = POD_START_S) -> None:
        """DEL of a sandbox until it succeeds."""
        for interface in told.addresses or {"eth0": ()}:
            async with asyncio.timeout(within_s):
                while True:
                    try:
                        await self._line(told.pod, line).delete(told.pod, interface, told.container)
                        break
                    except NotReleased:
                        await asyncio.sleep(self.retry_s)

    def new_container(self, pod: Object) -> str:
        return f"c{next(self._numbers)}-{pod['metadata']['uid']}"

    async def _add(self, pod: Object, interface: str, container: str, line: Line | None) -> tuple[str, ...]:
        self.adds += 1
        try:
            return await self._line(pod, line).add(pod, interface, container)
        except NoAddress:
            self.failed_adds += 1
            raise

    async def _undo(self, told: Told, line: Line | None) -> None:
        """What containerd does with a sandbox that did not come to be: once, and then it is on its way."""
        for interface in told.addresses or {"eth0": ()}:
            try:
                await self._line(told.pod, line).delete(told.pod, interface, told.container)
            except NotReleased:
                continue

    def _line(self, pod: Object, line: Line | None) -> Line:
        return line or self.lines[pod["spec"]["nodeName"]]
