"""Kinds of third parties for the tests of subnets: robots have a scale, rocks have none, and nobody lists ghosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allocator.kube.client import KubeClient
from allocator.kube.resources import Resource
from tests.plane.subnets import make_workload, template
from tests.plane.support import install_crd

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.kube.resources import Object

GROUP = "example.com"
ROBOTS = Resource(GROUP, "v1", "robots", "Robot", namespaced=True)
ROCKS = Resource(GROUP, "v1", "rocks", "Rock", namespaced=True)
GHOSTS = Resource(GROUP, "v1", "ghosts", "Ghost", namespaced=True)
# As the ConfigMap has them.
KINDS = ["robots.v1.example.com", "rocks.v1.example.com"]


def _definition(resource: Resource, subresources: Object) -> Object:
    spec = {
        "type": "object",
        # Not where anybody would look for it: only the scale tells.
        "properties": {"crew": {"type": "integer"}},
        "x-kubernetes-preserve-unknown-fields": True,
    }
    status = {"type": "object", "properties": {"crew": {"type": "integer"}}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema, "subresources": subresources}
    singular = resource.kind.lower()
    names = {"plural": resource.plural, "singular": singular, "kind": resource.kind, "listKind": f"{resource.kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


async def install(kube: KubeClient) -> None:
    scale = {"specReplicasPath": ".spec.crew", "statusReplicasPath": ".status.crew"}
    await install_crd(kube, _definition(ROBOTS, {"status": {}, "scale": scale}))
    for resource in (ROCKS, GHOSTS):
        await install_crd(kube, _definition(resource, {"status": {}}))


async def install_at(kubeconfig: Path) -> None:
    async with KubeClient.connect(kubeconfig=kubeconfig, user_agent="tests") as kube:
        await install(kube)


async def make_one(
    kube: KubeClient, resource: Resource, namespace: str, name: str, annotations: dict[str, str], **spec: Any
) -> Object:
    return await make_workload(kube, resource, namespace, name, {"template": template(name, annotations), **spec})
