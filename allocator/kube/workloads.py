"""Workloads as the applications that pools are made for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from allocator.domain.applications import Application, replicas_of
from allocator.domain.json_annotation import PREFIX
from allocator.kube.codec import decode_controller
from allocator.kube.resources import (
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    PODS,
    REPLICA_SETS,
    STATEFUL_SETS,
    Object,
    Resource,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

# Kubernetes' own, each of which says by itself how many pods it runs.
NATIVE: Final = (DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, DAEMON_SETS, JOBS, CRON_JOBS)
BY_KIND: Final[Mapping[tuple[str, str], Resource]] = {(each.api_version, each.kind): each for each in (*NATIVE, PODS)}
# Those of which another controller may be the application. An operator that owns a StatefulSet is none.
MIDDLEMEN: Final = frozenset((each.api_version, each.kind) for each in (REPLICA_SETS, JOBS))
# What is remembered of each.
_METADATA: Final = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp")
_SPEC: Final = ("replicas", "completions", "parallelism")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """`annotations` are ours of its pod template. `replicas`: None where only `/scale` tells.

    `is_over`: its pods have ended for good, or it is being deleted.
    """

    application: Application
    annotations: Mapping[str, str]
    replicas: int | None
    is_on_host: bool = False
    is_over: bool = False


def trimmed(raw: Object) -> Object:
    """A workload without what nobody here looks at: most of its size is the pod template. Of a ReplicaSet or Job that a
    controller stands behind little more than its name is left.
    """
    meta = raw["metadata"]
    controllers = [owner for owner in meta.get("ownerReferences") or () if owner.get("controller")]
    metadata = {key: meta[key] for key in _METADATA if key in meta} | {"ownerReferences": controllers}
    identity = {"apiVersion": raw["apiVersion"], "kind": raw["kind"], "metadata": metadata}
    if controllers and (raw["apiVersion"], raw["kind"]) in MIDDLEMEN:
        return identity
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    kept: dict[str, Any] = {key: spec[key] for key in _SPEC if key in spec}
    if raw["kind"] == "CronJob":
        kept["jobTemplate"] = {"spec": _with_template((spec.get("jobTemplate") or {}).get("spec") or {})}
    elif "template" in spec:
        kept = kept | _with_template(spec)
    finished = [each for each in status.get("conditions") or () if each.get("type") in ("Complete", "Failed")]
    said = {"desiredNumberScheduled": status.get("desiredNumberScheduled"), "conditions": finished}
    return {**identity, "spec": kept, "status": said}


def _with_template(spec: Object) -> Object:
    template = spec.get("template") or {}
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    return {
        **{key: spec[key] for key in _SPEC if key in spec},
        "template": {
            "metadata": {"annotations": ours(annotations)},
            "spec": {"hostNetwork": (template.get("spec") or {}).get("hostNetwork")},
        },
    }


def ours(annotations: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in annotations.items() if key.startswith(PREFIX)}


def decode_workload(raw: Object, *, replicas: int | None = None) -> Workload | None:
    """A native workload, trimmed or not; None for a ReplicaSet or Job that a controller stands behind. Of another kind
    that has a pod template where Deployments have it, `replicas` is what its scale says.
    """
    if (raw["apiVersion"], raw["kind"]) in MIDDLEMEN and decode_controller(raw) is not None:
        return None
    meta, spec, kind = raw["metadata"], raw.get("spec") or {}, raw["kind"]
    around = (spec.get("jobTemplate") or {}).get("spec") or {} if kind == "CronJob" else spec
    template = around.get("template") or {}
    conditions = (raw.get("status") or {}).get("conditions") or ()
    is_finished = any(
        each.get("type") in ("Complete", "Failed") and each.get("status") == "True" for each in conditions
    )
    is_native = (raw["apiVersion"], kind) in BY_KIND
    return Workload(
        application=application_named(raw),
        annotations=(template.get("metadata") or {}).get("annotations") or {},
        replicas=replicas_of(kind, raw) if is_native else replicas,
        is_on_host=bool((template.get("spec") or {}).get("hostNetwork")),
        is_over=bool(meta.get("deletionTimestamp")) or (kind == "Job" and is_finished),
    )


def application_named(raw: Object) -> Application:
    meta = raw["metadata"]
    return Application(raw["apiVersion"], raw["kind"], meta["namespace"], meta["name"], meta["uid"])
