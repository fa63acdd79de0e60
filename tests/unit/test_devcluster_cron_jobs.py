"""CronJob as a function: when a Job is due, and which Jobs are kept."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from devcluster.workloads import cronjobs, garbage, templates
from devcluster.workloads.world import Action, Create, World
from tests.unit.test_devcluster_workloads import NOW, TEMPLATE, leaving, status_of, told

SUNDAY_NOON = NOW  # 2026-11-22


def nightly(**spec: Any) -> dict[str, Any]:
    """Of every minute, made an hour ago."""
    meta = {"name": "nightly", "namespace": "shop", "uid": "uid-nightly", "resourceVersion": "1"}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": meta | {"creationTimestamp": "2026-11-22T11:00:00Z"},
        "spec": {
            "schedule": "* * * * *",
            "jobTemplate": {"metadata": {"labels": {"app": "nightly"}}, "spec": {"template": TEMPLATE}},
            **spec,
        },
    }


def job(of: dict[str, Any], minute: str, outcome: str = "") -> dict[str, Any]:
    """Of eleven o'clock and so many minutes; it has run for a second when it has an outcome."""
    at = f"2026-11-22T11:{minute}"
    meta = {
        "name": f"nightly-{minute}",
        "namespace": "shop",
        "uid": f"uid-{minute}",
        "creationTimestamp": f"{at}:00Z",
        "annotations": {cronjobs.SCHEDULED_AT: f"{at}:00Z"},
        "ownerReferences": [templates.owner_reference(of)],
    }
    conditions = [{"type": outcome, "status": "True"}] if outcome else []
    ended = {"completionTime": f"{at}:01Z"} if outcome == "Complete" else {}
    return {"metadata": meta, "spec": {}, "status": {"conditions": conditions} | ended}


def plan(cron_job: dict[str, Any], *jobs: dict[str, Any], now: datetime = SUNDAY_NOON) -> list[Action]:
    return list(cronjobs.plan(World(now, cron_jobs=[cron_job], jobs=[*jobs])))


def test_a_job_that_is_due_belongs_to_its_cron_job_and_has_the_name_of_its_minute() -> None:
    (create,) = [action for action in plan(nightly(), now=NOW + timedelta(seconds=42)) if isinstance(action, Create)]
    assert create.obj == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "nightly-29922480",
            "namespace": "shop",
            "labels": {"app": "nightly"},
            "annotations": {cronjobs.SCHEDULED_AT: "2026-11-22T12:00:00Z"},
            "ownerReferences": [templates.owner_reference(nightly())],
        },
        "spec": {"template": TEMPLATE},
    }


@pytest.mark.parametrize(
    "cron_job",
    [
        pytest.param(nightly(suspend=True), id="suspended"),
        pytest.param(nightly(schedule="30 * * * *"), id="at another minute"),
        pytest.param(leaving(nightly()), id="on its way out"),
        pytest.param(nightly() | {"status": {"lastScheduleTime": "2026-11-22T12:00:00Z"}}, id="made and gone"),
        pytest.param(
            nightly() | {"metadata": nightly()["metadata"] | {"creationTimestamp": "2026-11-22T12:00:00Z"}},
            id="younger than the minute",
        ),
    ],
)
def test_no_job_is_made(cron_job: dict[str, Any]) -> None:
    assert told(plan(cron_job)) == []


def test_a_minute_has_one_job() -> None:
    cron_job = nightly()
    assert told(plan(cron_job, job(cron_job, "59"), now=NOW - timedelta(seconds=1))) == []


def test_what_ended_is_kept_up_to_its_limit_and_the_oldest_goes() -> None:
    cron_job = nightly(suspend=True, successfulJobsHistoryLimit=2, failedJobsHistoryLimit=0)
    made = [job(cron_job, minute, "Complete") for minute in ("03", "01", "02")]
    made += [job(cron_job, "04", "Failed"), job(cron_job, "05")]
    assert told(plan(cron_job, *made)) == ["delete nightly-01", "delete nightly-04"]


def test_what_is_on_its_way_out_makes_no_other_go() -> None:
    cron_job = nightly(suspend=True, successfulJobsHistoryLimit=1)
    assert told(plan(cron_job, leaving(job(cron_job, "01", "Complete")), job(cron_job, "02", "Complete"))) == []


def test_three_successes_and_one_failure_are_kept_unless_said_otherwise() -> None:
    cron_job = nightly(suspend=True)
    made = [job(cron_job, f"0{number}", "Complete") for number in range(4)]
    made += [job(cron_job, f"1{number}", "Failed") for number in range(2)]
    assert told(plan(cron_job, *made)) == ["delete nightly-00", "delete nightly-10"]


def test_the_status_names_what_runs_and_what_was_last() -> None:
    cron_job = nightly(suspend=True)
    status = status_of(plan(cron_job, job(cron_job, "07", "Complete"), job(cron_job, "08")))
    assert status == {
        "active": [
            {"apiVersion": "batch/v1", "kind": "Job", "namespace": "shop", "name": "nightly-08", "uid": "uid-08"}
        ],
        "lastScheduleTime": "2026-11-22T11:08:00Z",
        "lastSuccessfulTime": "2026-11-22T11:07:01Z",
    }


def test_the_last_times_outlive_their_jobs() -> None:
    times = {"lastScheduleTime": "2026-11-22T11:08:00Z", "lastSuccessfulTime": "2026-11-22T11:07:01Z"}
    assert plan(nightly(suspend=True) | {"status": times}) == []


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("* * * * *", True),
        ("0 12 22 11 *", True),
        ("1 * * * *", False),
        ("* 11 * * *", False),
        ("* * 21 * *", False),
        ("* * * 10 *", False),
        ("* * * * 0", True),
        ("* * * * 1", False),
        ("*/15 */4 * * *", True),
        ("0 */5 * * *", False),
        ("0 0/12 * * *", True),
        ("0 6/4 * * *", False),
        ("0 10-14 * * 0-2", True),
        ("0 10-14/3 * * *", False),
        ("0 8,12 * * *", True),
        ("0 0 */3 * *", False),  # at midnight
        ("* * */3 * *", True),  # of the days from 1: 1, 4, ... 22
        ("* * 1 * 0", True),  # one of two days is enough
        ("* * 1 * 1", False),
        ("* * 22 * 1", True),
        ("@hourly", False),
        ("0 12 * * SUN", False),
        ("0 12 * * 0,SAT", False),
        ("0 12 * *", False),
        ("*/0 * * * *", False),
    ],
)
def test_a_schedule_names_noon_of_a_sunday(schedule: str, *, expected: bool) -> None:
    assert cronjobs.is_due(schedule, SUNDAY_NOON) is expected


def test_a_job_whose_cron_job_is_gone_is_collected() -> None:
    cron_job = nightly()
    assert told(list(garbage.plan(World(NOW, jobs=[job(cron_job, "01")])))) == ["collect nightly-01"]
    assert told(list(garbage.plan(World(NOW, jobs=[job(cron_job, "01")], cron_jobs=[cron_job])))) == []
