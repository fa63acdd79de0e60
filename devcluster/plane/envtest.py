"""A real control plane for one run: etcd and kube-apiserver from binaries, as controller-runtime's envtest does it.

kube-controller-manager and kube-scheduler run too when they lie beside them. Everything listens on loopback only and
dies with the block; etcd's data is thrown away, so it does not wait for the disk.
"""

import asyncio
import base64
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from devcluster import launch
from devcluster.plane import tls

DEFAULT_BINARIES = Path("/usr/local/kubebuilder/bin")
NEEDED = ("etcd", "kube-apiserver")
_READY_S = 90.0
_POLL_S = 0.1
_STOP_S = 3.0
_TAIL = 3000  # characters of a log that an error shows


@dataclass(frozen=True, slots=True)
class Running:
    kubeconfig: Path
    controllers: bool
    scheduler: bool


@dataclass(slots=True)
class _Process:
    name: str
    process: asyncio.subprocess.Process
    log: Path
    spawn: Callable[[], Awaitable[asyncio.subprocess.Process]]

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-_TAIL:]

    async def keep(self) -> None:
        """Start it again whenever it has ended, until cancelled."""
        while True:
            await self.process.wait()
            await asyncio.sleep(_POLL_S)  # kube-apiserver ends by itself while etcd is away
            self.process = await self.spawn()


def binaries() -> Path:
    """The folder of the binaries; FileNotFoundError names what is missing there."""
    folder = Path(os.environ.get("KUBEBUILDER_ASSETS") or DEFAULT_BINARIES)
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"plane envtest: {' and '.join(missing)} not found in {folder}: put them there (setup-envtest does), "
            "name their folder in KUBEBUILDER_ASSETS, or use the plane embedded"
        )
    return folder


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@asynccontextmanager
async def _started(folder: Path, work: Path, name: str, arguments: Sequence[str]) -> AsyncIterator[_Process]:
    log = work / f"{name}.log"

    async def spawn() -> asyncio.subprocess.Process:
        with log.open("ab") as output:
            # A process group of its own: Ctrl-C goes to us, and the cluster stays while we tidy up in it.
            command = launch.command(str(folder / name), *arguments)
            return await asyncio.create_subprocess_exec(
                *command, cwd=work, stdout=output, stderr=output, process_group=0
            )

    started = _Process(name, await spawn(), log, spawn)
    try:
        yield started
    finally:
        with suppress(ProcessLookupError):
            started.process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await started.process.wait()
        except TimeoutError:
            started.process.kill()
            await started.process.wait()


class _Files:
    """The certificates and keys of one control plane, below `work`."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self.authority = tls.Authority("envtest-ca")
        self.ca = self._write("ca.crt", self.authority.pem)
        server, key = self.authority.issue(
            "kube-apiserver", hosts=("127.0.0.1", "localhost", "kubernetes", "kubernetes.default.svc", "10.96.0.1")
        )
        self.server, self.server_key = self._write("server.crt", server), self._write("server.key", key)
        accounts = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self.accounts_key = self._write("accounts.key", accounts.private_bytes(*form))
        public = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.accounts_public = self._write("accounts.pub", accounts.public_key().public_bytes(*public))

    def _write(self, name: str, data: bytes) -> str:
        tls.write_private(self._work / name, data)
        return str(self._work / name)

    def kubeconfig(self, path: Path, port: int, common_name: str) -> Path:
        certificate, key = self.authority.issue(common_name, organization="system:masters")
        user = {
            "client-certificate-data": base64.b64encode(certificate).decode(),
            "client-key-data": base64.b64encode(key).decode(),
        }
        tls.write_private(path, tls.kubeconfig(f"https://127.0.0.1:{port}", self.authority.pem, user))
        return path


def _etcd_arguments(work: Path, client: int, peer: int) -> list[str]:
    return [
        "--data-dir", str(work / "etcd"),
        "--listen-client-urls", f"http://127.0.0.1:{client}",
        "--advertise-client-urls", f"http://127.0.0.1:{client}",
        "--listen-peer-urls", f"http://127.0.0.1:{peer}",
        "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
        "--initial-cluster", f"default=http://127.0.0.1:{peer}",
        "--unsafe-no-fsync",
        "--log-level", "warn",
    ]  # fmt: skip


def _apiserver_arguments(files: _Files, etcd: int, port: int) -> list[str]:
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",  # nobody routes to the service `kubernetes` here
        f"--secure-port={port}",
        f"--tls-cert-file={files.server}",
        f"--tls-private-key-file={files.server_key}",
        f"--client-ca-file={files.ca}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={files.accounts_public}",
        f"--service-account-signing-key-file={files.accounts_key}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--disable-admission-plugins=ServiceAccount",  # pods need no account of their own
        "--allow-privileged",
        "--shutdown-delay-duration=0s",
    ]


def _controller_arguments(files: _Files, kubeconfig: Path) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
        # Nodes of the devcluster have no kubelet that would renew a lease.
        "--controllers=*,-node-lifecycle-controller",
        f"--service-account-private-key-file={files.accounts_key}",
        f"--root-ca-file={files.ca}",
    ]


async def _wait_ready(etcd: _Process, apiserver: _Process, port: int, files: _Files) -> None:
    """RuntimeError with the end of its log when one of them ends, or kube-apiserver is not ready in time."""
    context = ssl.create_default_context(cadata=files.authority.pem.decode())
    last = "no answer"
    try:
        async with asyncio.timeout(_READY_S), aiohttp.ClientSession() as session:
            while not (ended := [each for each in (etcd, apiserver) if each.process.returncode is not None]):
                try:
                    async with session.get(f"https://127.0.0.1:{port}/readyz", ssl=context) as response:
                        if response.status == 200:
                            return
                        last = (await response.text())[-500:]
                except aiohttp.ClientError as error:
                    last = str(error)
                await asyncio.sleep(_POLL_S)
        culprit, state = ended[0], f"ended with {ended[0].process.returncode}"
    except TimeoutError:
        culprit, state = apiserver, f"was not ready after {_READY_S:.0f} s ({last})"
    raise RuntimeError(f"plane envtest: {culprit.name} {state}; the end of its log:\n{culprit.tail()}")


@asynccontextmanager
async def _kept(processes: Sequence[_Process]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        keepers = [group.create_task(each.keep(), name=f"keep {each.name}") for each in processes]
        try:
            yield
        finally:
            for keeper in keepers:
                keeper.cancel()


@asynccontextmanager
async def serve(directory: Path, *, apiserver: Sequence[str] = (), respawn: bool = False) -> AsyncIterator[Running]:
    """A running control plane with RBAC and an admin's kubeconfig in `directory`; removed at the end of the block.

    `apiserver` are further arguments for kube-apiserver. With `respawn` a process that ends (somebody killed it) is
    started again.
    """
    folder = binaries()
    work = directory / "envtest"
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    work.mkdir(mode=0o700)
    etcd, peer, port = _free_ports(3)
    files = _Files(work)
    kubeconfig = files.kubeconfig(directory / "kubeconfig", port, "kubernetes-admin")
    try:
        async with AsyncExitStack() as stack:
            running: list[_Process] = []

            async def start(name: str, arguments: Sequence[str]) -> _Process:
                running.append(await stack.enter_async_context(_started(folder, work, name, arguments)))
                return running[-1]

            store = await start("etcd", _etcd_arguments(work, etcd, peer))
            server = await start("kube-apiserver", [*_apiserver_arguments(files, etcd, port), *apiserver])
            await _wait_ready(store, server, port, files)
            present = {name: (folder / f"kube-{name}").is_file() for name in ("controller-manager", "scheduler")}
            if present["controller-manager"]:
                config = files.kubeconfig(work / "controller-manager.conf", port, "system:kube-controller-manager")
                await start("kube-controller-manager", _controller_arguments(files, config))
            if present["scheduler"]:
                config = files.kubeconfig(work / "scheduler.conf", port, "system:kube-scheduler")
                arguments = [f"--kubeconfig={config}", "--leader-elect=false", "--secure-port=0"]
                await start("kube-scheduler", arguments)
            async with _kept(running if respawn else ()):
                yield Running(kubeconfig, present["controller-manager"], present["scheduler"])
    finally:
        kubeconfig.unlink(missing_ok=True)
        shutil.rmtree(work, ignore_errors=True)
