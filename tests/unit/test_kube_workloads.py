"""Workloads as applications: what is remembered of them, and what is read out of that."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from allocator.kube.workloads import Workload, decode_workload, trimmed
from tests.unit.values import CART

PREFIX = "ipam.spidernet.io/"
OURS = {PREFIX + "subnet": '{"ipv4": ["dc1"]}'}
TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"app": "cart"}, "annotations": {**OURS, "example.com/other": "x"}},
    "spec": {"containers": [{"name": "main", "image": "registry.example.com/cart:1", "env": [{"name": "A"}]}]},
}
RESULTS = {
    "Deployment": ("apps/v1", {"replicas": 2, "template": TEMPLATE}, {}, 2),
    "ReplicaSet": ("apps/v1", {"replicas": 0, "template": TEMPLATE}, {}, 0),
    "StatefulSet": ("apps/v1", {"replicas": 3, "template": TEMPLATE, "serviceName": "cart"}, {}, 3),
    "DaemonSet": ("apps/v1", {"template": TEMPLATE}, {"desiredNumberScheduled": 4}, 4),
    "Job": ("batch/v1", {"completions": 5, "template": TEMPLATE}, {"active": 1}, 5),
    "CronJob": ("batch/v1", {"jobTemplate": {"spec": {"parallelism": 6, "template": TEMPLATE}}}, {}, 6),
}


def raw(kind: str = "Deployment", **changes: Any) -> dict[str, Any]:
    api_version, spec, status, _ = RESULTS[kind]
    metadata = {
        "name": "cart",
        "namespace": "shop",
        "uid": CART.uid,
        "resourceVersion": "7",
        "managedFields": [{"manager": "kubectl"}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "long"},
    }
    made = {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec, "status": status}
    return copy.deepcopy({**made, **changes})


def owned(by: str, **changes: Any) -> dict[str, Any]:
    metadata = raw()["metadata"] | {
        "ownerReferences": [
            {"apiVersion": "example.com/v1", "kind": "Team", "name": "shop", "uid": "u0"},
            {"apiVersion": "apps/v1", "kind": by, "name": "top", "uid": "u1", "controller": True},
        ]
    }
    return raw("ReplicaSet", metadata=metadata, **changes)


def decoded(obj: dict[str, Any]) -> Workload:
    """As the cache has it: trimmed."""
    found = decode_workload(trimmed(obj))
    assert found is not None
    return found


@pytest.mark.parametrize("kind", RESULTS)
def test_of_each_kind_enough_is_kept_to_know_what_it_asks_for(kind: str) -> None:
    found = decoded(raw(kind))
    assert found.annotations == OURS
    assert (found.application.kind, found.replicas) == (kind, RESULTS[kind][3])
    assert not found.is_over
    assert not found.is_on_host


@pytest.mark.parametrize("kind", RESULTS)
def test_trimming_is_done_after_once(kind: str) -> None:
    assert trimmed(trimmed(raw(kind))) == trimmed(raw(kind))


@pytest.mark.parametrize("kind", RESULTS)
def test_what_nobody_looks_at_is_not_kept(kind: str) -> None:
    kept = str(trimmed(raw(kind)))
    assert all(text not in kept for text in ("containers", "managedFields", "last-applied", "example.com/other"))


def test_trimming_leaves_the_object_as_it_was() -> None:
    before = raw()
    given = raw()
    trimmed(given)
    assert given == before


def test_an_application_has_the_name_and_uid_of_its_object() -> None:
    assert decoded(raw()).application == CART


def test_what_an_operator_owns_is_an_application_all_the_same() -> None:
    metadata = raw()["metadata"] | {
        "ownerReferences": [
            {"apiVersion": "example.com/v1", "kind": "Prometheus", "name": "k8s", "uid": "u1", "controller": True}
        ]
    }
    found = decoded(raw("StatefulSet", metadata=metadata))
    assert (found.application.kind, found.replicas, found.annotations) == ("StatefulSet", 3, OURS)


def test_what_a_controller_stands_behind_is_no_application() -> None:
    assert decode_workload(owned("Deployment")) is None
    assert decode_workload(trimmed(owned("Deployment"))) is None


def test_of_what_a_controller_stands_behind_its_controller_is_kept_and_no_template() -> None:
    kept = trimmed(owned("Rollout"))
    assert [owner["kind"] for owner in kept["metadata"]["ownerReferences"]] == ["Rollout"]
    assert "spec" not in kept


def test_an_owner_that_is_no_controller_does_not_count() -> None:
    alone = owned("Deployment")
    del alone["metadata"]["ownerReferences"][1]
    assert decoded(alone).application.kind == "ReplicaSet"


@pytest.mark.parametrize("kind", RESULTS)
def test_pods_on_the_hosts_network_are_seen_in_the_template(kind: str) -> None:
    obj = raw(kind)
    around = obj["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else obj["spec"]
    around["template"]["spec"]["hostNetwork"] = True
    assert decoded(obj).is_on_host


@pytest.mark.parametrize(
    ("conditions", "is_over"),
    [
        pytest.param([], False, id="runs"),
        pytest.param([{"type": "Complete", "status": "True"}], True, id="complete"),
        pytest.param([{"type": "Failed", "status": "True"}], True, id="failed"),
        pytest.param([{"type": "Complete", "status": "False"}], False, id="not complete"),
        pytest.param([{"type": "Suspended", "status": "True"}], False, id="held up"),
        pytest.param([{"type": "SuccessCriteriaMet", "status": "True"}], False, id="its pods still end"),
    ],
)
def test_a_job_is_over_when_its_pods_have_ended_for_good(conditions: list[dict[str, str]], is_over: bool) -> None:  # noqa: FBT001
    assert decoded(raw("Job", status={"conditions": conditions})).is_over is is_over


def test_a_deployment_has_no_end_of_its_own() -> None:
    assert not decoded(raw(status={"conditions": [{"type": "Complete", "status": "True"}]})).is_over


def test_what_is_being_deleted_is_over() -> None:
    assert decoded(raw(metadata=raw()["metadata"] | {"deletionTimestamp": "2026-11-22T12:00:00Z"})).is_over


@pytest.mark.parametrize("replicas", [None, 5])
def test_of_a_third_partys_kind_only_its_scale_tells_the_replicas(replicas: int | None) -> None:
    obj = {**raw(), "apiVersion": "example.com/v1", "kind": "Robot"}
    found = decode_workload(trimmed(obj), replicas=replicas)
    assert found is not None
    assert (found.replicas, found.annotations) == (replicas, OURS)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(None, id="no spec"),
        pytest.param({}, id="an empty one"),
        pytest.param({"template": None}, id="no template"),
        pytest.param({"template": {"metadata": None, "spec": None}}, id="an empty template"),
    ],
)
@pytest.mark.parametrize("kind", ["Deployment", "CronJob"])
def test_what_has_no_template_asks_for_nothing(kind: str, spec: dict[str, Any] | None) -> None:
    given = {"jobTemplate": {"spec": spec}} if kind == "CronJob" else spec
    found = decoded(raw(kind, spec=given))
    assert found.annotations == {}
    assert not found.is_on_host
