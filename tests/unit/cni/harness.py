"""The plugin as a runtime sees it: a process with CNI variables, a configuration on stdin, an agent on a socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import pytest
from pyroute2 import IPRoute

from devcluster.nodes import namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# On a busy machine too, when the plugin kept a deadline of its own; its alarm would come after 65 s.
SOON_S = 20.0
POD_ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-7d9;K8S_POD_UID=9e0c6a52"
ADDED: dict[str, Any] = {
    "ips": [
        {"address": "10.20.0.10/16", "gateway": "10.20.0.1", "ipPool": "rack7-v4", "nic": "eth0", "version": 4},
    ],
    "routes": [{"ifName": "eth0", "dst": "0.0.0.0/0", "gw": "10.20.0.1"}],
}


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def http(status: int, body: bytes | str | dict[str, Any] | None = None, **headers: str) -> bytes:
    """An answer; keyword `x_spiderpool_reason` becomes the header X-Spiderpool-Reason."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode() + b"\n"
    lines = [f"HTTP/1.0 {status} Whatever", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-').title()}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


class FakeAgent:
    """Answers each connection with what `answer` says: bytes, or a function of the request; None hangs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer: bytes | Callable[[Request], bytes] | None = http(200, ADDED)
        self.requests: list[Request] = []
        self.got_request = threading.Event()
        self._stop = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._serve, name="fake-agent")

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        self._listener.settimeout(0.02)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        with_client: list[socket.socket] = []
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            client.settimeout(5)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the plugin may hang up on purpose
                self._answer(client)
            if self.answer is None:
                with_client.append(client)  # keep it open: this agent hangs
            else:
                client.close()
        for client in with_client:
            client.close()

    def _answer(self, client: socket.socket) -> None:
        request = read_request(client)
        self.requests.append(request)
        self.got_request.set()
        if self.answer is not None:
            client.sendall(self.answer if isinstance(self.answer, bytes) else self.answer(request))


def read_request(client: socket.socket) -> Request:
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers["Content-Length"]):
        body += client.recv(65536)
    return Request(method, target, headers, body)


@dataclass(frozen=True, slots=True)
class Outcome:
    status: int
    stdout: bytes
    stderr: str
    seconds: float

    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.stdout)

    @property
    def code(self) -> int:
        """The CNI error code, after a look at the form of the error."""
        error = self.json()
        assert self.status == 1
        assert set(error) <= {"cniVersion", "code", "msg", "details"}
        assert error["msg"]
        assert self.stdout.count(b"\n") == 1
        assert "Traceback" not in self.stderr
        code = error["code"]
        assert isinstance(code, int)
        return code


@dataclass(frozen=True, slots=True)
class Plugin:
    executable: Path
    home: Path
    base_environment: dict[str, str] = field(default_factory=lambda: {"PATH": "/nonexistent"})

    @property
    def socket_path(self) -> Path:
        return self.home / "agent.sock"

    @property
    def log_path(self) -> Path:
        return self.home / "log" / "spiderpool.log"

    def ipam(self, **members: Any) -> dict[str, Any]:
        return {
            "type": "spiderpool",
            "ipam_unix_socket_path": str(self.socket_path),
            "state_dir": str(self.home / "state"),
            "log_file_path": str(self.log_path),
        } | members

    def config(self, version: str = "1.0.0", /, **ipam: Any) -> dict[str, Any]:
        return {"cniVersion": version, "name": "underlay", "type": "macvlan", "ipam": self.ipam(**ipam)}

    def environment(self, command: str | None, **changes: str | None) -> dict[str, str]:
        """The variables of a runtime; a change to None leaves one out."""
        variables: dict[str, str | None] = {
            **self.base_environment,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "4f0c",
            "CNI_NETNS": "/var/run/netns/cni-1",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": POD_ARGS,
        }
        variables |= changes
        return {name: value for name, value in variables.items() if value is not None}

    def run(self, command: str | None, config: Any = None, **variables: str | None) -> Outcome:
        """`config` as bytes goes to stdin as it is; None means the usual one."""
        stdin = config if isinstance(config, bytes) else json.dumps(config or self.config()).encode()
        started = time.monotonic()
        done = subprocess.run(
            [self.executable],
            input=stdin,
            capture_output=True,
            env=self.environment(command, **variables),
            timeout=90,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr.decode(), time.monotonic() - started)

    def start(self, command: str, config: Any = None, **variables: str | None) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [self.executable],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(command, **variables),
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(config or self.config()).encode())
        process.stdin.close()
        process.stdin = None
        return process

    def altered(self, code: str) -> Plugin:
        """One whose modules are changed by `code` before it runs."""
        executable = self.home / "altered"
        first, *rest = self.executable.read_text().splitlines()
        executable.write_text("\n".join([first, code, *rest]))
        executable.chmod(0o755)
        return replace(self, executable=executable)

    def intents(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_bytes()) for path in (self.home / "state" / "intents").glob("*")]

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]


@contextlib.contextmanager
def pod_network(folder: Path) -> Iterator[Path]:
    """A network namespace whose eth0 has 10.20.0.10/16, fd00::a/64 and, across from a peer, 10.30.0.1/32; other0 has
    192.0.2.9/24.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root to make and enter a network namespace")
    try:
        namespace = namespaces.create("pod", folder)
    except PermissionError:
        pytest.skip("may not make network namespaces here")

    def fill() -> None:
        with IPRoute() as route:
            route.link("add", ifname="eth0", kind="veth", peer={"ifname": "other0"})
            for name, address in (("eth0", "10.20.0.10/16"), ("eth0", "fd00::a/64"), ("other0", "192.0.2.9/24")):
                route.addr("add", index=route.link_lookup(ifname=name)[0], address=address)
            eth0 = route.link_lookup(ifname="eth0")[0]
            route.addr("add", index=eth0, local="10.30.0.1", address="10.30.0.2", prefixlen=32)

    namespaces.run_inside(namespace, fill)
    try:
        yield namespace.path
    finally:
        namespace.close()
