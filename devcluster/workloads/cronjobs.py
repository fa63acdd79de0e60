"""CronJob: a Job in every minute that its schedule names, in UTC. Minutes that nobody saw are not made up for;
the heartbeats of the nodes have the manager look several times in each.

Of schedules the five fields are read, with `*`, `n`, `n-m`, `/step` and lists of them; one with names is never due.
Time zones, deadlines and concurrency policies are left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from allocator.kube import resources
from devcluster.workloads import jobs, templates
from devcluster.workloads.world import Action, Create, Delete, World, count, is_leaving, status_update

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from allocator.kube.resources import Object, Objects

SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"

_PART = re.compile(r"(?:\*|(\d+)(?:-(\d+))?)(?:/([1-9]\d*))?")


def plan(world: World) -> Iterator[Action]:
    for cron_job in world.cron_jobs:
        if not is_leaving(cron_job):
            yield from _plan(cron_job, world.owned_by(cron_job), world.now)


def _plan(cron_job: Object, owned: Objects, now: datetime) -> Iterator[Action]:
    minute = now.replace(second=0, microsecond=0)
    status: Object = cron_job.get("status") or {}
    made = [(job["metadata"].get("annotations") or {}).get(SCHEDULED_AT) for job in owned]
    last = max((at for at in (status.get("lastScheduleTime"), *made) if at), default="")
    # Times of one form: the later one is the greater text.
    is_new = max(last, cron_job["metadata"]["creationTimestamp"]) < _text(minute)
    if is_new and not cron_job["spec"].get("suspend") and is_due(cron_job["spec"]["schedule"], minute):
        yield Create(resources.JOBS, _job(cron_job, minute), cron_job)
    for outcome, limit in (
        ("Complete", count(cron_job, "successfulJobsHistoryLimit", 3)),
        ("Failed", count(cron_job, "failedJobsHistoryLimit", 1)),
    ):
        finished = [job for job in owned if jobs.outcome_of(job) == outcome and not is_leaving(job)]
        yield from (Delete(resources.JOBS, job) for job in finished[: max(len(finished) - limit, 0)])
    running = [job for job in owned if not jobs.outcome_of(job)]
    active = [{"apiVersion": "batch/v1", "kind": "Job", **_names(job)} for job in running]
    ended = [job["status"].get("completionTime") for job in owned if jobs.outcome_of(job) == "Complete"]
    succeeded = max((at for at in (status.get("lastSuccessfulTime"), *ended) if at), default=None)
    told = {"active": active, "lastScheduleTime": last or None, "lastSuccessfulTime": succeeded}
    yield from status_update(resources.CRON_JOBS, cron_job, told)


def _job(cron_job: Object, minute: datetime) -> Object:
    """Of one name however often it is asked for in this minute."""
    template = cron_job["spec"]["jobTemplate"]
    meta = template.get("metadata") or {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{cron_job['metadata']['name']}-{int(minute.timestamp()) // 60}",
            "namespace": cron_job["metadata"]["namespace"],
            "labels": dict(meta.get("labels") or {}),
            "annotations": {**(meta.get("annotations") or {}), SCHEDULED_AT: _text(minute)},
            "ownerReferences": [templates.owner_reference(cron_job)],
        },
        "spec": template["spec"],
    }


def _names(job: Object) -> Object:
    return {name: job["metadata"][name] for name in ("namespace", "name", "uid")}


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def is_due(schedule: str, minute: datetime) -> bool:
    fields = schedule.split()
    if len(fields) != 5:
        return False
    day, weekday = fields[2], fields[4]
    of_minute, of_hour, of_day, of_month = (
        _holds(field, value, lowest)
        for field, value, lowest in zip(
            fields, (minute.minute, minute.hour, minute.day, minute.month), (0, 0, 1, 1), strict=False
        )
    )
    of_week = _holds(weekday, minute.isoweekday() % 7, 0)
    # crontab(5): of two days that are both named one is enough.
    is_day = of_day and of_week if "*" in (day, weekday) else of_day or of_week
    return of_minute and of_hour and of_month and is_day


def _holds(field: str, value: int, lowest: int) -> bool:
    parts = [_PART.fullmatch(part) for part in field.split(",")]
    return all(parts) and any(_is_in(part, value, lowest) for part in parts if part)


def _is_in(part: re.Match[str], value: int, lowest: int) -> bool:
    first, last, step = part.groups()
    start = lowest if first is None else int(first)
    # `n/step` goes on to the end, as `*/step` does; `n` alone is one value.
    end = int(last) if last else start if first and not step else value
    return start <= value <= end and (value - start) % int(step or 1) == 0
