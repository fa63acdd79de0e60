"""A control plane for the tests of this folder: PLANE=embedded (default), envtest or kubeconfig."""

import asyncio
import os
import select
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from allocator.kube import resources
from allocator.kube.client import KubeClient
from allocator.kube.errors import NotFound
from allocator.kube.resources import Resource
from devcluster.plane import Kind, Plane, envtest
from tests.plane.controllers import Controller, running_controller
from tests.plane.support import WIDGET_DEFINITION, WIDGETS, Kubectl, eventually, install_crd
from tests.plane.webhooks import Webhook, register, running_webhook

_ROOT = Path(__file__).resolve().parents[2]
_START_S = 60.0
_STOP_S = 20.0
# Webhooks first, for they may refuse what follows; then leaves: an endpoint goes before the pool whose finalizer
# waits for it.
_CLEANED = (
    resources.MUTATING_WEBHOOKS,
    resources.VALIDATING_WEBHOOKS,
    resources.SPIDER_ENDPOINTS,
    resources.SPIDER_IP_ADDRESSES,
    resources.SPIDER_IP_POOLS,
    resources.SPIDER_SUBNETS,
    resources.SPIDER_RESERVED_IPS,
    resources.NODES,
)


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


def _has_controllers(kind: Kind) -> bool:
    """Whether somebody collects garbage and ends namespaces. The embedded plane does that much itself."""
    return kind != "envtest" or (envtest.binaries() / "kube-controller-manager").is_file()


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
        running = Plane(kind, kubeconfig, real=kind != "embedded", controllers=_has_controllers(kind))
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


@pytest.fixture(scope="module")
def controller(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """One for all tests of a file, with short times; a file that wants another has its own."""
    with running_controller(plane.kubeconfig, "default", tmp_path_factory.mktemp("controller")) as running:
        yield running


@pytest.fixture
async def kube(plane: Plane) -> AsyncIterator[KubeClient]:
    """A client with all rights. What the test leaves of our kinds, of webhook configurations and of nodes is removed.

    Only what was not there before: with PLANE=kubeconfig the cluster is somebody's.
    """
    async with KubeClient.connect(kubeconfig=plane.kubeconfig, user_agent="tests") as client:
        before = {resource: await _uids(client, resource) for resource in _CLEANED}
        yield client
        for resource in _CLEANED:
            await _remove_new(client, resource, before[resource])


async def _items(client: KubeClient, resource: Resource) -> list[resources.Object]:
    try:
        return list((await client.list(resource))["items"])
    except NotFound:  # the definition is not installed
        return []


async def _uids(client: KubeClient, resource: Resource) -> frozenset[str]:
    return frozenset(obj["metadata"]["uid"] for obj in await _items(client, resource))


async def _remove_new(client: KubeClient, resource: Resource, before: frozenset[str]) -> None:
    """Takes the finalizers off too: no controller of ours runs here that would."""

    async def none_left() -> bool:
        left = [obj["metadata"] for obj in await _items(client, resource) if obj["metadata"]["uid"] not in before]
        for metadata in left:
            where = {"namespace": metadata["namespace"]} if resource.namespaced else {}
            with suppress(NotFound):
                if metadata.get("finalizers"):
                    patch = {"metadata": {"finalizers": None}}
                    await client.patch(resource, metadata["name"], patch, **where)
                if not metadata.get("deletionTimestamp"):
                    await client.delete(resource, metadata["name"], **where)
        return not left

    await eventually(none_left)


@pytest.fixture
async def namespace(kube: KubeClient) -> AsyncIterator[str]:
    """The name of a fresh namespace, deleted after the test, its pods at once: no kubelet ends them here."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    await kube.create(resources.NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    for pod in (await kube.list(resources.PODS, namespace=name))["items"]:
        with suppress(NotFound):
            await kube.delete(resources.PODS, pod["metadata"]["name"], namespace=name, grace_period_s=0)
    with suppress(NotFound):
        await kube.delete(resources.NAMESPACES, name)


@pytest.fixture
def kubectl(plane: Plane, tmp_path: Path) -> Kubectl:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    return Kubectl(plane.kubeconfig, tmp_path)


@pytest.fixture
async def widgets(kube: KubeClient) -> Resource:
    """A namespaced kind with status, scale, defaults, limits and columns."""
    await install_crd(kube, WIDGET_DEFINITION)
    return WIDGETS


@pytest.fixture
def controllers(plane: Plane) -> None:
    if not plane.controllers:
        pytest.skip("needs kube-controller-manager, which does not lie beside kube-apiserver")


@pytest.fixture(scope="module")
def server(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    """A webhook process that nobody is sent to yet."""
    with running_webhook(plane.kubeconfig, tmp_path_factory.mktemp("webhook"), "--register", "none") as running:
        yield running


@pytest.fixture
async def admission(server: Webhook, kube: KubeClient) -> Webhook:
    """The webhook, registered for one test; `kube` takes the registration away."""
    await register(kube, server)
    return server
