"""CustomResourceDefinitions: their own rules, and the resource types that they bring."""

from typing import Any

from devcluster.plane import paths
from devcluster.plane.problems import FieldProblem, Object, invalid_value, required
from devcluster.plane.registry import Column, ResourceType, ScalePaths

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


def fill(obj: Object, now: str) -> None:
    """Defaults of the spec, the finalizer, and the status that the naming controller would write a moment later."""
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if kind := names.get("kind"):
        names.setdefault("singular", kind.lower())
        names.setdefault("listKind", f"{kind}List")
    spec.setdefault("conversion", {"strategy": "None"})
    metadata = obj["metadata"]
    if not metadata.get("deletionTimestamp"):
        metadata["finalizers"] = list(dict.fromkeys([*(metadata.get("finalizers") or []), CLEANUP]))
    status = dict(obj.get("status") or {})
    stored = [v["name"] for v in spec.get("versions") or [] if v.get("storage")]
    status["acceptedNames"] = names
    status["storedVersions"] = list(dict.fromkeys([*(status.get("storedVersions") or []), *stored]))
    if not status.get("conditions"):
        accepted = ("NamesAccepted", "NoConflicts", "no conflicts found")
        established = ("Established", "InitialNamesAccepted", "the initial names have been accepted")
        status["conditions"] = [
            {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}
            for kind, reason, message in (accepted, established)
        ]
    obj["status"] = status


def check(obj: Object) -> list[FieldProblem]:
    spec = obj.get("spec") or {}
    names = spec.get("names") or {}
    found = [required(f"spec.{field}") for field in ("group", "scope") if not spec.get(field)]
    found += [required(f"spec.names.{field}") for field in ("plural", "kind") if not names.get(field)]
    wanted = f"{names.get('plural')}.{spec.get('group')}"
    if not found and obj["metadata"].get("name") != wanted:
        why = 'must be spec.names.plural+"."+spec.group'
        found.append(invalid_value("metadata.name", f'"{obj["metadata"].get("name")}"', why))
    versions = spec.get("versions") or []
    if sum(bool(version.get("storage")) for version in versions) != 1:
        found.append(
            FieldProblem(
                "FieldValueInvalid",
                "spec.versions",
                "Invalid value: must have exactly one version marked as storage version",
            )
        )
    for at, version in enumerate(versions):
        path = f"spec.versions[{at}]"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            found.append(required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
        else:
            found += _check_structure(schema, f"{path}.schema.openAPIV3Schema")
        found += _check_paths(version, path)
        if (scale := (version.get("subresources") or {}).get("scale")) is not None:
            # What all versions share is told without their index.
            found += _check_scale(scale, f"{'spec' if len(versions) == 1 else path}.subresources.scale")
    return found


def _check_scale(scale: Object, path: str) -> list[FieldProblem]:
    found: list[FieldProblem] = []
    for name, under, is_needed in (
        ("specReplicasPath", ("spec",), True),
        ("statusReplicasPath", ("status",), True),
        ("labelSelectorPath", ("spec", "status"), False),
    ):
        field, given = f"{path}.{name}", scale.get(name) or ""
        if not given:
            found += [required(field)] if is_needed else []
        elif not given.startswith("."):
            found.append(invalid_value(field, f'"{given}"', "must be a simple json path starting with ."))
        elif given.split(".")[1] not in under or given.count(".") == 1:
            either = "either " if len(under) > 1 else ""
            where = f"should be a json path under {either}{' or '.join(f'.{each}' for each in under)}"
            found.append(invalid_value(field, f'"{given}"', where))
    return found


def _check_structure(schema: Any, path: str) -> list[FieldProblem]:
    """A structural schema gives a type to every node."""
    if not isinstance(schema, dict):
        return [required(path)]
    found: list[FieldProblem] = []
    typeless = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not schema.get("type") and not typeless:
        found.append(required(f"{path}.type", "must not be empty for specified object fields"))
    if schema.get("type") == "array" and "items" not in schema:
        found.append(required(f"{path}.items", "must be specified"))
    for name, inner in (schema.get("properties") or {}).items():
        found += _check_structure(inner, f"{path}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(inner := schema.get(name), dict):
            found += _check_structure(inner, f"{path}.{name}")
    return found


def _check_paths(version: Object, path: str) -> list[FieldProblem]:
    found: list[FieldProblem] = []
    for field in ("additionalPrinterColumns", "selectableFields"):
        for at, entry in enumerate(version.get(field) or []):
            where = f"{path}.{field}[{at}].jsonPath"
            try:
                paths.parse(entry.get("jsonPath") or "")
            except ValueError as error:
                found.append(invalid_value(where, f'"{entry.get("jsonPath")}"', str(error)))
    return found


def resource_types(definition: Object) -> list[ResourceType]:
    """One per served version; they share one collection of the store, and conversion changes apiVersion only."""
    spec = definition["spec"]
    names = spec["names"]
    types = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        subresources = version.get("subresources") or {}
        columns = version.get("additionalPrinterColumns")
        scale = subresources.get("scale")
        types.append(
            ResourceType(
                group=spec["group"],
                version=version["name"],
                plural=names["plural"],
                kind=names["kind"],
                namespaced=spec["scope"] == "Namespaced",
                singular=names["singular"],
                list_kind=names["listKind"],
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                status="status" in subresources,
                scale=_scale(scale) if scale else None,
                columns=tuple(_column(column) for column in columns) if columns else None,
                fields=tuple(f["jsonPath"].removeprefix(".") for f in version.get("selectableFields") or ()),
                schema=version["schema"]["openAPIV3Schema"],
                custom=True,
            )
        )
    return types


def _scale(scale: Object) -> ScalePaths:
    return ScalePaths(scale["specReplicasPath"], scale["statusReplicasPath"], scale.get("labelSelectorPath", ""))


def _column(column: Object) -> Column:
    return Column(
        name=column["name"],
        type=column["type"],
        path=column["jsonPath"],
        priority=column.get("priority", 0),
        description=column.get("description", ""),
        format=column.get("format", ""),
    )
