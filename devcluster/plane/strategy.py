"""Rules for the metadata of every object, and what an update may and may not change. Values in, values out."""

import json
import re
import secrets
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from devcluster.plane import problems
from devcluster.plane.problems import FieldProblem, Object, invalid_value
from devcluster.plane.registry import ResourceType

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_QUALIFIED = re.compile(r"(([a-z0-9]([-a-z0-9.]*[a-z0-9])?)/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes' own: no vowels, no words
_GENERATED_LIMIT = 63 - 5

SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_QUALIFIED_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_MAPS = ("labels", "annotations")  # of metadata
_STANDARD_FINALIZERS = {"kubernetes", "orphan", "foregroundDeletion", "customresourcecleanup.apiextensions.k8s.io"}
_UNCONDITIONAL_FORBIDDEN = {
    "leases", "customresourcedefinitions", "mutatingwebhookconfigurations", "validatingwebhookconfigurations",
    "priorityclasses",
}  # fmt: skip


def timestamp(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def generated_name(prefix: str) -> str:
    return prefix[:_GENERATED_LIMIT] + "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(5))


def check_type(rt: ResourceType, raw: Object) -> None:
    """Problem when the body is of another kind, or its metadata of another form, than the path says."""
    api_version, kind = raw.get("apiVersion"), raw.get("kind")
    if rt.custom and not (api_version and kind):
        missing = "apiVersion" if kind else "Kind"
        raise problems.bad_request(
            f"the object provided is unrecognized (must be of type {rt.kind}): Object '{missing}' is missing"
        )
    if api_version and api_version != rt.api_version:
        given, wanted = api_version, rt.api_version
        raise problems.bad_request(
            f"the API version in the data ({given}) does not match the expected API version ({wanted})"
        )
    if kind and kind != rt.kind:
        if not rt.custom:
            why = f"converting ({rt.version}.{kind}) to ({rt.version}.{rt.kind}): unknown conversion"
            raise problems.undecodable(rt, rt.version, kind, why)
        name = (raw.get("metadata") or {}).get("name") or ""
        cause = invalid_value("kind", f'"{kind}"', f"must be {rt.kind}")
        raise problems.invalid(replace(rt, kind=kind), name, [cause])
    metadata = raw.get("metadata")
    fields = {"metadata": metadata, **{f: metadata.get(f) for f in _MAPS}} if isinstance(metadata, dict) else {}
    for field, value in (fields or {"metadata": metadata}).items():
        strings = value.values() if field in _MAPS and isinstance(value, dict) else ()
        if not isinstance(value, dict | None) or not all(isinstance(each, str) for each in strings):
            raise problems.undecodable(rt, rt.version, rt.kind, f"json: cannot unmarshal {field}: wrong type")


def check_metadata(rt: ResourceType, obj: Object) -> list[FieldProblem]:
    metadata = obj["metadata"]
    name = metadata.get("name")
    found: list[FieldProblem] = []
    if not name:
        found.append(problems.required("metadata.name", "name or generateName is required"))
    elif why := _name_problem(rt, name):
        found.append(invalid_value("metadata.name", f'"{name}"', why))
    for field in ("labels", "annotations"):
        for key, value in (metadata.get(field) or {}).items():
            if not _QUALIFIED.fullmatch(key if field == "labels" else key.lower()):
                found.append(invalid_value(f"metadata.{field}", f'"{key}"', _QUALIFIED_RULE))
            if field == "labels" and not (isinstance(value, str) and _LABEL_VALUE.fullmatch(value)):
                found.append(invalid_value("metadata.labels", f'"{value}"', _LABEL_VALUE_RULE))
    return found + _check_references(rt, metadata)


def _check_references(rt: ResourceType, metadata: Object) -> list[FieldProblem]:
    found = [
        invalid_value(f"metadata.ownerReferences.{field}", '""', f"{what}must not be empty")
        for owner in metadata.get("ownerReferences") or []
        for field, what in (("apiVersion", "version "), ("kind", ""), ("name", ""), ("uid", ""))
        if not owner.get(field)
    ]
    for at, finalizer in enumerate(metadata.get("finalizers") or []):
        if not _QUALIFIED.fullmatch(finalizer):
            found.append(invalid_value("metadata.finalizers", f'"{finalizer}"', _QUALIFIED_RULE))
        elif not rt.custom and "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            why = "name is neither a standard finalizer name nor is it fully qualified"
            found.append(invalid_value(f"metadata.finalizers[{at}]", f'"{finalizer}"', why))
    return found


def _name_problem(rt: ResourceType, name: str) -> str:
    if rt.group == "rbac.authorization.k8s.io":
        return "" if name not in {".", ".."} and "/" not in name and "%" not in name else "may not contain '/' or '%'"
    if rt.plural in {"namespaces", "services"} and not rt.group:
        return "" if re.fullmatch(_LABEL, name) and len(name) <= 63 else LABEL_RULE
    if len(name) > 253:
        return "must be no more than 253 characters"
    return "" if _SUBDOMAIN.fullmatch(name) else SUBDOMAIN_RULE


def finalizer_warnings(rt: ResourceType, old: Object | None, new: Object) -> list[str]:
    """kube-apiserver's advice for finalizers of custom resources that name no path."""
    before = ((old or {}).get("metadata") or {}).get("finalizers") or []
    return [
        f'metadata.finalizers: "{name}": prefer a domain-qualified finalizer name including a path (/) '
        "to avoid accidental conflicts with other finalizer writers"
        for name in new["metadata"].get("finalizers") or []
        if rt.custom and "/" not in name and name not in _STANDARD_FINALIZERS and name not in before
    ]


def check_unconditional(rt: ResourceType, obj: Object) -> list[FieldProblem]:
    """Kinds whose PUT must name the version that it replaces."""
    if obj["metadata"].get("resourceVersion"):
        return []
    if rt.custom or rt.plural in _UNCONDITIONAL_FORBIDDEN:
        return [invalid_value("metadata.resourceVersion", "0", "must be specified for an update")]
    return []


def fill_create(rt: ResourceType, obj: Object, *, uid: str, now: datetime) -> None:
    metadata = obj["metadata"]
    for system in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"):
        metadata.pop(system, None)
    metadata["uid"] = uid
    metadata["creationTimestamp"] = timestamp(now)
    if rt.custom or (rt.status and rt.group) or rt.group == "admissionregistration.k8s.io":
        metadata["generation"] = 1
    if rt.status and (rt.custom or rt.group in {"apps", "batch"}):
        obj.pop("status", None)


def fill_update(rt: ResourceType, old: Object, new: Object, subresource: str) -> Object:
    """The object that replaces `old` when a client sends `new` to the main endpoint or to a subresource."""
    new = dict(new)
    if subresource == "status":
        kept = {key: value for key, value in old.items() if key not in {"status", "metadata"}}
        new = kept | ({"status": new["status"]} if "status" in new else {}) | {"metadata": new["metadata"]}
        _keep_metadata(old["metadata"], new, only_version=True)
    elif rt.status and subresource != "binding":
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]
    if rt.kind == "Namespace" and subresource != "finalize":
        new["spec"] = (new.get("spec") or {}) | {"finalizers": (old.get("spec") or {}).get("finalizers") or []}
    metadata = dict(new["metadata"])
    for system in (
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
    ):
        metadata.pop(system, None)
        if system in old["metadata"]:
            metadata[system] = old["metadata"][system]
    metadata.pop("managedFields", None)
    metadata["name"] = old["metadata"]["name"]
    if "generation" in metadata and _content(rt, old) != _content(rt, new):
        metadata["generation"] += 1
    new["metadata"] = metadata
    return new


def _keep_metadata(old: Object, new: Object, *, only_version: bool) -> None:
    """A status write changes no labels, annotations, finalizers or owners."""
    kept = dict(old)
    if only_version and "resourceVersion" in new["metadata"]:
        kept["resourceVersion"] = new["metadata"]["resourceVersion"]
    new["metadata"] = kept


def _content(rt: ResourceType, obj: Object) -> Object:
    outside = {"metadata", "apiVersion", "kind"} | ({"status"} if rt.status or not rt.custom else set())
    return {key: value for key, value in obj.items() if key not in outside}


def check_update(old: Object, sent: Object, new: Object) -> list[FieldProblem]:
    """`sent` is the metadata of the client's object, `new` the object that would be stored."""
    before, after = old["metadata"], new["metadata"]
    found = [
        invalid_value(f"metadata.{field}", json.dumps(sent[field]), "field is immutable")
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds")
        if sent.get(field) not in (None, before.get(field))
    ]
    if before.get("deletionTimestamp"):
        added = sorted(set(after.get("finalizers") or []) - set(before.get("finalizers") or []))
        if added:
            listed = ", ".join(f'"{name}"' for name in added)
            rule = "no new finalizers can be added if the object is being deleted"
            why = f"{rule}, found new finalizers []string{{{listed}}}"
            found.append(problems.forbidden_field("metadata.finalizers", why))
    return found


def is_finished(obj: Object) -> bool:
    """Whether an object that is being deleted may go: no finalizer left and its grace period given up."""
    metadata = obj["metadata"]
    spec: Any = obj.get("spec")
    return bool(
        metadata.get("deletionTimestamp")
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
        and not (obj.get("kind") == "Namespace" and (spec or {}).get("finalizers"))
    )
