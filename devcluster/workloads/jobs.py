"""Job: pods until enough of them ended well. Indexes, pod failure policies and back-off between tries are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.kube import resources
from devcluster.workloads import templates
from devcluster.workloads.world import (
    Action,
    Create,
    Delete,
    World,
    count,
    is_active,
    is_leaving,
    is_ready,
    phase_of,
    status_update,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.kube.resources import Object, Objects


def plan(world: World) -> Iterator[Action]:
    for job in world.jobs:
        if not is_leaving(job) and not outcome_of(job):
            yield from _plan(job, world.owned_by(job), world)


def _plan(job: Object, pods: Objects, world: World) -> Iterator[Action]:
    active = [pod for pod in pods if is_active(pod)]
    succeeded = sum(phase_of(pod) == "Succeeded" for pod in pods)
    failed = sum(phase_of(pod) == "Failed" for pod in pods)
    parallelism = count(job, "parallelism")
    # Without completions any success ends the Job once the rest has ended (a work queue).
    completions = job["spec"].get("completions")
    done = succeeded >= completions if completions is not None else bool(succeeded) and not active
    broken = failed > count(job, "backoffLimit", 6)
    missing = parallelism if completions is None else min(parallelism, completions - succeeded)
    if done or broken or job["spec"].get("suspend"):
        yield from (Delete(resources.PODS, pod) for pod in active)
    elif completions is not None or not succeeded:
        for _ in range(missing - len(active)):
            name = templates.with_suffix(job["metadata"]["name"])
            labels = {"batch.kubernetes.io/job-name": job["metadata"]["name"], "job-name": job["metadata"]["name"]}
            yield Create(resources.PODS, templates.pod_of(job, name=name, labels=labels), job)
    now = world.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    status: Object = {
        "startTime": (job.get("status") or {}).get("startTime") or now,
        "active": 0 if done or broken else len(active),
        "ready": sum(map(is_ready, active)),
        "succeeded": succeeded,
        "failed": failed,
    }
    if done and not active:
        conditions = [world.condition(kind, "True") for kind in ("SuccessCriteriaMet", "Complete")]
        status |= {"completionTime": now, "conditions": conditions}
    elif broken and not active:
        status |= {"conditions": [world.condition(kind, "True") for kind in ("FailureTarget", "Failed")]}
    yield from status_update(resources.JOBS, job, status)


def outcome_of(job: Object) -> str:
    """Complete, Failed, or nothing yet."""
    conditions = (job.get("status") or {}).get("conditions") or []
    held = (item["type"] for item in conditions if item["status"] == "True")
    return next((kind for kind in held if kind in {"Complete", "Failed"}), "")
