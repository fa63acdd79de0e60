"""A control plane for the tests of this folder: PLANE=embedded (default), envtest or kubeconfig."""

import asyncio
import os
import select
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from allocator.kube import resources
from allocator.kube.client import KubeClient
from allocator.kube.errors import ApiError, NotFound
from devcluster.plane import Kind, Plane

_ROOT = Path(__file__).resolve().parents[2]
_START_S = 60.0
_STOP_S = 20.0
# Leaves first: an endpoint goes before the pool whose finalizer waits for it.
_OURS = (
    resources.SPIDER_ENDPOINTS,
    resources.SPIDER_IP_ADDRESSES,
    resources.SPIDER_IP_POOLS,
    resources.SPIDER_SUBNETS,
    resources.SPIDER_RESERVED_IPS,
)
_WEBHOOKS = (resources.MUTATING_WEBHOOKS, resources.VALIDATING_WEBHOOKS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("PLANE", "embedded") != "embedded":
        return
    for item in items:
        if item.get_closest_marker("real_plane"):
            item.add_marker(pytest.mark.skip(reason="needs a real kube-apiserver: PLANE=envtest"))


def _first_line(process: subprocess.Popen[bytes], log: Path) -> str:
    """The kubeconfig's path, which the plane prints when it is ready."""
    assert process.stdout is not None
    deadline, text = time.monotonic() + _START_S, b""
    while b"\n" not in text:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        read = os.read(process.stdout.fileno(), 4096) if ready else b""
        if not read:
            pytest.fail(f"the plane ended, or was not ready within {_START_S:.0f} s:\n{log.read_text()[-4000:]}")
        text += read
    return text.decode().splitlines()[0]


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    kind: Kind = os.environ.get("PLANE", "embedded")  # type: ignore[assignment]  # argparse of the plane checks it
    directory = tmp_path_factory.mktemp("plane")
    log = directory / "plane.log"
    command = [sys.executable, "-m", "devcluster.plane", "--kind", kind, "--dir", str(directory)]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=stderr)
    try:
        kubeconfig = Path(_first_line(process, log))
        running = Plane(kind, kubeconfig, real=kind != "embedded")
        asyncio.run(_apply_crds(running))
        yield running
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail(f"the plane did not stop within {_STOP_S:.0f} s:\n{log.read_text()[-4000:]}")
        finally:
            if process.stdout:
                process.stdout.close()


async def _apply_crds(plane: Plane) -> None:
    async with KubeClient.connect(kubeconfig=plane.kubeconfig, user_agent="tests") as client:
        for path in sorted((_ROOT / "manifests" / "crds").glob("*.yaml")):
            for definition in yaml.safe_load_all(path.read_text()):
                if definition and definition.get("kind") == "CustomResourceDefinition":
                    await install_crd(client, definition)


async def install_crd(client: KubeClient, definition: dict[str, Any]) -> None:
    """Creates the definition unless it is there, and waits until its kind is served."""
    name = definition["metadata"]["name"]
    try:
        await client.get(resources.CRDS, name)
    except NotFound:
        await client.create(resources.CRDS, definition)

    async def established() -> bool:
        found = await client.get(resources.CRDS, name)
        conditions = (found.get("status") or {}).get("conditions") or []
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    await eventually(established)
    spec = definition["spec"]
    path = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"

    async def served() -> bool:
        try:
            await client.raw("GET", path)
        except ApiError:
            return False
        return True

    await eventually(served)


async def eventually(condition: Callable[[], Awaitable[object]], *, within_s: float = 15.0) -> None:
    """Waits until the condition holds; AssertionError when it still does not at the deadline."""
    deadline = time.monotonic() + within_s
    while not await condition():
        assert time.monotonic() < deadline, f"{condition.__qualname__} did not hold within {within_s} s"
        await asyncio.sleep(0.02)


@pytest.fixture
async def kube(plane: Plane) -> AsyncIterator[KubeClient]:
    """A client with all rights. What the test leaves of our kinds and of webhook configurations is removed."""
    async with KubeClient.connect(kubeconfig=plane.kubeconfig, user_agent="tests") as client:
        yield client
        for resource in _WEBHOOKS:
            for obj in (await client.list(resource))["items"]:
                await client.delete(resource, obj["metadata"]["name"])
        for resource in _OURS:
            with suppress(NotFound):  # the definition is not installed
                await _remove_all(client, resource)


async def _remove_all(client: KubeClient, resource: resources.Resource) -> None:
    """Takes the finalizers off too: no controller of ours runs here that would."""

    async def none_left() -> bool:
        items = (await client.list(resource))["items"]
        for obj in items:
            metadata = obj["metadata"]
            where = {"namespace": metadata["namespace"]} if resource.namespaced else {}
            with suppress(NotFound):
                if metadata.get("finalizers"):
                    patch = {"metadata": {"finalizers": None}}
                    await client.patch(resource, metadata["name"], patch, **where)
                if not metadata.get("deletionTimestamp"):
                    await client.delete(resource, metadata["name"], **where)
        return not items

    await eventually(none_left)


@pytest.fixture
async def namespace(kube: KubeClient) -> AsyncIterator[str]:
    """The name of a fresh namespace, deleted after the test."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    await kube.create(resources.NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    with suppress(NotFound):
        await kube.delete(resources.NAMESPACES, name)


@dataclass(frozen=True, slots=True)
class Kubectl:
    kubeconfig: Path
    home: Path

    async def __call__(self, *arguments: str, stdin: str = "", check: bool = True) -> str:
        """Its output, stderr behind stdout. AssertionError when it fails and `check` is set."""
        process = await asyncio.create_subprocess_exec(
            "kubectl",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.home)},
        )
        out, _ = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        text = out.decode()
        assert not check or process.returncode == 0, f"kubectl {' '.join(arguments)}:\n{text}"
        return text


@pytest.fixture
def kubectl(plane: Plane, tmp_path: Path) -> Kubectl:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    return Kubectl(plane.kubeconfig, tmp_path)
