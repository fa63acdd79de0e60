"""KubeVirt's kinds for the tests, as little of them as matters: no controller of KubeVirt runs here."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from allocator.kube.client import KubeClient
from allocator.kube.errors import ApiError, NotFound
from allocator.kube.resources import CRDS, MACHINE_INSTANCES, MACHINES, PODS
from tests.plane.support import eventually, install_crd

if TYPE_CHECKING:
    from allocator.kube.resources import Object, Resource
    from devcluster.plane import Plane

API = "kubevirt.io/v1"
MIGRATION = {"kubevirt.io/migrationJobName": "3f1c"}
# Holds an object that is being deleted until the test lets it go.
HELD_UP = "test.example.com/held-up"


def definition(resource: Resource) -> Object:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": resource.version, "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
    names = {"plural": resource.plural, "kind": resource.kind, "singular": resource.kind.lower()}
    return {
        "apiVersion": CRDS.api_version,
        "kind": CRDS.kind,
        "metadata": {"name": f"{resource.plural}.{resource.group}"},
        "spec": {"group": resource.group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


async def install(kube: KubeClient) -> None:
    for resource in (MACHINES, MACHINE_INSTANCES):
        await install_crd(kube, definition(resource))


async def uninstall(kube: KubeClient) -> None:
    """The definitions with all objects, as deleting them does."""
    for resource in (MACHINES, MACHINE_INSTANCES):
        with suppress(ApiError):
            for obj in (await kube.list(resource))["items"]:
                await let_go(kube, resource, obj)
        with suppress(NotFound):
            await kube.delete(CRDS, f"{resource.plural}.{resource.group}")

    async def gone() -> bool:
        # The definitions too: one that is still going would be taken for installed.
        for resource in (MACHINES, MACHINE_INSTANCES):
            for path in (resource.path(), CRDS.path(None, f"{resource.plural}.{resource.group}")):
                try:
                    await kube.raw("GET", path)
                except ApiError as error:
                    if error.status == 404:
                        continue
                return False
        return True

    await eventually(gone, within_s=30)


def run(plane: Plane, act: Any) -> None:
    """For fixtures that serve a whole file."""

    async def connected() -> None:
        async with KubeClient.connect(kubeconfig=plane.kubeconfig, user_agent="tests") as kube:
            await act(kube)

    asyncio.run(connected())


async def make_machine(kube: KubeClient, namespace: str, name: str = "ledger") -> Object:
    meta = {"name": name, "namespace": namespace}
    return await kube.create(MACHINES, {"apiVersion": API, "kind": MACHINES.kind, "metadata": meta})


async def start(kube: KubeClient, namespace: str, name: str = "ledger", machine: Object | None = None) -> Object:
    """The machine's instance; one that nobody owns without a machine."""
    meta: Object = {"name": name, "namespace": namespace}
    if machine is not None:
        meta["ownerReferences"] = [reference(machine)]
    return await kube.create(MACHINE_INSTANCES, {"apiVersion": API, "kind": MACHINE_INSTANCES.kind, "metadata": meta})


async def make_launcher(
    kube: KubeClient, instance: Object, suffix: str, node: str, annotations: dict[str, str]
) -> Object:
    meta = instance["metadata"]
    metadata = {
        "name": f"virt-launcher-{meta['name']}-{suffix}",
        "namespace": meta["namespace"],
        "annotations": annotations,
        "ownerReferences": [reference(instance)],
    }
    spec = {"nodeName": node, "containers": [{"name": "compute", "image": "none"}]}
    return await kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def reference(owner: Object) -> Object:
    meta = owner["metadata"]
    named = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}
    return {**named, "controller": True}


def slot_of(instance: Object) -> dict[str, Any]:
    meta = instance["metadata"]
    owner = {"apiVersion": API, "kind": MACHINE_INSTANCES.kind, "namespace": meta["namespace"], "name": meta["name"]}
    return {**owner, "ordinal": 0}


async def remove(kube: KubeClient, resource: Resource, obj: Object) -> None:
    meta = obj["metadata"]
    with suppress(NotFound):
        await kube.delete(resource, meta["name"], namespace=meta["namespace"])

    async def gone() -> bool:
        try:
            await kube.get(resource, meta["name"], namespace=meta["namespace"])
        except NotFound:
            return True
        return False

    await eventually(gone)


async def begin_to_delete(kube: KubeClient, resource: Resource, obj: Object) -> None:
    """It stays, with a deletionTimestamp."""
    meta = obj["metadata"]
    patch = {"metadata": {"finalizers": [HELD_UP]}}
    await kube.patch(resource, meta["name"], patch, namespace=meta["namespace"])
    await kube.delete(resource, meta["name"], namespace=meta["namespace"])


async def let_go(kube: KubeClient, resource: Resource, obj: Object) -> None:
    meta = obj["metadata"]
    with suppress(NotFound):
        patch = {"metadata": {"finalizers": None}}
        await kube.patch(resource, meta["name"], patch, namespace=meta["namespace"])
