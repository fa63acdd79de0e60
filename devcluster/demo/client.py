"""The few kubectl verbs that the demo uses, through the `kubernetes` client, where kubectl is not installed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from allocator.kube import errors, resources
from allocator.kube.resources import Object, Resource
from devcluster.demo.kubectl import Output
from devcluster.waiting import WaitError, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from allocator.kube.client import KubeClient

# Where names without a group are looked for, in this order.
GROUPS = ("v1", "apps/v1", "batch/v1", f"{resources.SPIDERPOOL_GROUP}/{resources.SPIDERPOOL_VERSION}")
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
NAMESPACE = "default"
# A CRD that was just created is served a moment later.
KNOWN_WITHIN_S = 10.0
# A pool waits until its last address has cooled down: 30 s and a little.
GONE_WITHIN_S = 60.0
READY_WITHIN_S = 30.0


class UsageError(Exception):
    """kubectl can do this, this module cannot."""


@dataclass(frozen=True, slots=True)
class _Source:
    path: str
    obj: Object


class ThroughClient:
    """`folder` is what paths are relative to."""

    def __init__(self, client: KubeClient, *, folder: Path) -> None:
        self._client = client
        self._folder = folder

    async def __call__(self, *arguments: str) -> Output:
        words = [word for word in arguments if not word.startswith("-")]
        flags = [word for word in arguments if word.startswith("-")]
        try:
            return await self._do(words, flags)
        except (errors.ApiError, errors.Unreachable, WaitError) as error:
            return Output(1, _told(error))

    async def _do(self, words: list[str], flags: list[str]) -> Output:
        match words:
            case ["apply", path]:
                done = await self._each(path, self._apply)
            case ["delete", path] if flags[:1] in (["-f"], ["-k"]):
                wait, lenient = "--wait=false" not in flags, "--ignore-not-found" in flags
                done = await self._each(path, lambda source: self._delete_source(source, wait=wait, lenient=lenient))
            case ["delete", kind, name]:
                done = await self._delete(kind, name, force="--force" in flags)
            case ["get", kinds]:
                done = Output(0, "\n\n".join([await self._table(kind) for kind in kinds.split(",")]))
            case ["scale", target]:
                done = await self._scale(target, int(_value(flags, "--replicas")))
            case ["rollout", "status", target]:
                done = await self._rollout(target)
            case _:
                raise UsageError(f"kubectl {' '.join(words)} needs kubectl")
        return done

    async def _each(self, path: str, work: Callable[[_Source], Awaitable[str]]) -> Output:
        lines, status = [], 0
        for source in sources(self._folder / path, path):
            try:
                lines.append(await work(source))
            except errors.ApiError as error:
                lines.append(_told(error, f'error in "{source.path}": '))
                status = 1
        return Output(status, "\n".join(filter(None, lines)))

    async def _apply(self, source: _Source) -> str:
        resource = await self._resource_of(source.obj)
        meta = source.obj["metadata"]
        namespace = meta.get("namespace", NAMESPACE) if resource.namespaced else None
        try:
            before = await self._client.get(resource, meta["name"], namespace=namespace)
        except errors.NotFound:
            await self._client.create(resource, source.obj, namespace=namespace)
            return f"{_display(resource)}/{meta['name']} created"
        after = await self._client.patch(resource, meta["name"], source.obj, namespace=namespace)
        same = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
        return f"{_display(resource)}/{meta['name']} {'unchanged' if same else 'configured'}"

    async def _delete_source(self, source: _Source, *, wait: bool, lenient: bool) -> str:
        resource = await self._resource_of(source.obj)
        name, namespace = source.obj["metadata"]["name"], source.obj["metadata"].get("namespace", NAMESPACE)
        try:
            uid = await self._remove(resource, name, namespace, grace=None)
        except errors.NotFound:
            if lenient:
                return ""
            raise
        if wait:
            await self._wait_gone(resource, name, namespace, uid)
        return f'{_display(resource)} "{name}" deleted'

    async def _delete(self, kind: str, name: str, *, force: bool) -> Output:
        resource = await self._resource_named(kind)
        uid = await self._remove(resource, name, NAMESPACE, grace=0 if force else None)
        await self._wait_gone(resource, name, NAMESPACE, uid)
        return Output(0, f'{_display(resource)} "{name}" {"force deleted" if force else "deleted"}')

    async def _remove(self, resource: Resource, name: str, namespace: str, *, grace: int | None) -> str:
        where = namespace if resource.namespaced else None
        uid = (await self._client.get(resource, name, namespace=where))["metadata"]["uid"]
        await self._client.delete(resource, name, namespace=where, grace_period_s=grace, propagation="Background")
        return str(uid)

    async def _wait_gone(self, resource: Resource, name: str, namespace: str, uid: str) -> None:
        where = namespace if resource.namespaced else None

        async def gone() -> bool:
            try:
                found = await self._client.get(resource, name, namespace=where)
            except errors.NotFound:
                return True
            return bool(found["metadata"]["uid"] != uid)

        await until(gone, within_s=GONE_WITHIN_S, what=f"{_display(resource)}/{name} to be gone")

    async def _table(self, kind: str) -> str:
        resource = await self._resource_named(kind)
        path = resource.path(NAMESPACE if resource.namespaced else None)
        return _aligned(await self._client.raw("GET", path, accept=TABLE))

    async def _scale(self, target: str, replicas: int) -> Output:
        resource, name = await self._target(target)
        await self._client.patch(resource, name, {"spec": {"replicas": replicas}}, namespace=NAMESPACE)
        return Output(0, f"{_display(resource)}/{name} scaled")

    async def _rollout(self, target: str) -> Output:
        resource, name = await self._target(target)

        async def ready() -> bool:
            obj = await self._client.get(resource, name, namespace=NAMESPACE)
            status = obj.get("status") or {}
            counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "readyReplicas")]
            current = status.get("observedGeneration", 0) >= obj["metadata"]["generation"]
            return current and counts == [obj["spec"]["replicas"]] * 3

        await until(ready, within_s=READY_WITHIN_S, what=f"the rollout of {target}")
        return Output(0, f'{resource.kind.lower()} "{name}" successfully rolled out')

    async def _target(self, target: str) -> tuple[Resource, str]:
        kind, _, name = target.partition("/")
        return await self._resource_named(kind), name

    async def _resource_of(self, obj: Object) -> Resource:
        async def find() -> Resource | None:
            try:
                return next(found for found in await self._resources(obj["apiVersion"]) if found.kind == obj["kind"])
            except (errors.NotFound, StopIteration):
                return None

        return await until(find, within_s=KNOWN_WITHIN_S, what=f"the kind {obj['kind']} to be served")

    async def _resource_named(self, name: str) -> Resource:
        for group in GROUPS:
            for resource in await self._resources(group):
                if name in {resource.plural, resource.kind.lower()}:
                    return resource
        raise UsageError(f"the server does not have a resource type {name}")

    async def _resources(self, group_version: str) -> list[Resource]:
        group, _, version = group_version.rpartition("/")
        answer = await self._client.raw("GET", f"/apis/{group_version}" if group else f"/api/{version}")
        return [
            Resource(group, version, item["name"], item["kind"], namespaced=item["namespaced"])
            for item in answer["resources"]
            if "/" not in item["name"]
        ]


def sources(path: Path, told: str) -> Iterator[_Source]:
    """Objects of a YAML file, or of a folder with a kustomization.yaml (resources and labels are understood)."""
    if path.is_file():
        for obj in yaml.safe_load_all(path.read_text()):
            if obj:
                yield _Source(told, obj)
        return
    kustomization = yaml.safe_load((path / "kustomization.yaml").read_text())
    if unknown := kustomization.keys() - {"apiVersion", "kind", "resources", "labels"}:
        raise UsageError(f"{told} uses {', '.join(sorted(unknown))}, which needs kubectl")
    labels = {key: value for entry in kustomization.get("labels") or () for key, value in entry["pairs"].items()}
    for name in kustomization["resources"]:
        for source in sources(path / name, f"{told}/{name}"):
            meta = source.obj["metadata"]
            meta = {**meta, "labels": {**(meta.get("labels") or {}), **labels}} if labels else meta
            yield _Source(told, {**source.obj, "metadata": meta})


def _aligned(table: Object) -> str:
    shown = [index for index, column in enumerate(table["columnDefinitions"]) if not column.get("priority")]
    rows = [[str(table["columnDefinitions"][index]["name"]).upper() for index in shown]]
    rows += [[_cell(row["cells"][index]) for index in shown] for row in table["rows"] or ()]
    widths = [max(len(row[index]) for row in rows) for index in range(len(shown))]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) if len(rows) > 1 else "No resources found"


def _cell(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str("" if value is None else value)


def _display(resource: Resource) -> str:
    kind = resource.kind.lower()
    return f"{kind}.{resource.group}" if resource.group else kind


def _told(error: Exception, what: str = "") -> str:
    if isinstance(error, errors.ApiError):
        return f"Error from server ({error.reason}): {what}{error.message}"
    return f"error: {error}"


def _value(flags: list[str], name: str) -> str:
    for flag in flags:
        key, _, value = flag.partition("=")
        if key == name and value:
            return value
    raise UsageError(f"{name}= is missing")
