"""What the tests of a plane share: waiting, a kind to play with, kubectl as a user types it."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from allocator.kube import resources
from allocator.kube.access import find_access
from allocator.kube.client import KubeClient
from allocator.kube.errors import ApiError, NotFound
from allocator.kube.resources import Object, Resource
from devcluster.plane import Plane

WIDGETS = Resource("test.example.com", "v1", "widgets", "Widget", namespaced=True)
WIDGET_DEFINITION: Object = yaml.safe_load(r"""
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.test.example.com}
spec:
  group: test.example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList, shortNames: [wd], categories: [things]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}
    selectableFields: [{jsonPath: .spec.color}]
    additionalPrinterColumns:
    - {name: Color, type: string, jsonPath: .spec.color}
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: First, type: string, jsonPath: '.spec.parts[0].name'}
    - {name: App, type: string, priority: 10, jsonPath: ".spec.match['example\\.com/app\\-name']"}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        description: A thing for tests.
        properties:
          spec:
            type: object
            description: What is wanted.
            required: [color]
            properties:
              color: {type: string, enum: [red, green], description: The paint.}
              size: {type: integer, minimum: 0, maximum: 9, default: 1, description: How big.}
              depth: {type: integer, minimum: 0}
              level: {type: integer, enum: [4, 6]}
              code: {type: string, pattern: '^[a-z]+$', maxLength: 5}
              tags: {type: array, maxItems: 2, items: {type: string}}
              match: {type: object, additionalProperties: {type: string}}
              port: {x-kubernetes-int-or-string: true}
              parts:
                type: array
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string}, weight: {type: integer, default: 7}}
          status:
            type: object
            properties: {size: {type: integer}, note: {type: string}}
""")


def widget(name: str, namespace: str, **spec: Any) -> Object:
    return {
        "apiVersion": "test.example.com/v1",
        "kind": "Widget",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"color": "red", **spec},
    }


def config_map(name: str, namespace: str, **metadata: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, **metadata}}


def pod(name: str, namespace: str, **spec: Any) -> Object:
    containers = [{"name": "main", "image": "registry.invalid/app:1"}]
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}


async def eventually(condition: Callable[[], Awaitable[object]], *, within_s: float = 15.0) -> None:
    """Waits until the condition holds; AssertionError when it still does not at the deadline."""
    deadline = time.monotonic() + within_s
    while not await condition():
        assert time.monotonic() < deadline, f"{condition.__qualname__} did not hold within {within_s} s"
        await asyncio.sleep(0.02)


async def is_gone(client: KubeClient, resource: Resource, name: str, namespace: str | None = None) -> bool:
    try:
        await client.get(resource, name, namespace=namespace)
    except NotFound:
        return True
    return False


async def install_crd(client: KubeClient, definition: Object) -> None:
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


async def request(
    plane: Plane,
    method: str,
    path: str,
    *,
    params: Mapping[str, str] | None = None,
    body: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, str, Mapping[str, str]]:
    """Status, text and headers of one request, for what KubeClient hides."""
    access = await find_access(plane.kubeconfig)
    sent = {"Content-Type": "application/json", **(headers or {})}
    if authorization := await access.credentials.authorization():
        sent["Authorization"] = authorization
    async with (
        aiohttp.ClientSession(access.server, headers=sent) as session,
        session.request(method, path, params=params, data=body, ssl=access.tls or True) as response,
    ):
        return response.status, await response.text(errors="replace"), response.headers


@dataclass(frozen=True, slots=True)
class Kubectl:
    kubeconfig: Path
    home: Path

    async def __call__(self, *arguments: str, stdin: str = "", check: bool = True, **environment: str) -> str:
        """Its output, stderr behind stdout. AssertionError when it fails and `check` is set."""
        process = await asyncio.create_subprocess_exec(
            "kubectl",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.home), **environment},
        )
        out, _ = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        text = out.decode()
        assert not check or process.returncode == 0, f"kubectl {' '.join(arguments)}:\n{text}"
        return text
