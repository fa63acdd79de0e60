"""The controllers as functions: what is seen in, what is to be done out."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from devcluster.workloads import deployments, garbage, jobs, replicasets, scheduling, statefulsets, templates
from devcluster.workloads.world import Action, Bind, Collect, Create, Delete, Update, World

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "pause"}]}}
NEW_TEMPLATE = {**TEMPLATE, "metadata": {"labels": {"app": "web"}, "annotations": {"edition": "2"}}}


def owner(kind: str, name: str = "web", **spec: Any) -> dict[str, Any]:
    group = "batch/v1" if kind == "Job" else "apps/v1"
    meta = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "generation": 1, "resourceVersion": "1"}
    return {
        "apiVersion": group,
        "kind": kind,
        "metadata": meta,
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": TEMPLATE, **spec},
    }


def pod(of: dict[str, Any], name: str, **status: Any) -> dict[str, Any]:
    """Ready on node-1 unless said otherwise."""
    made = templates.pod_of(of, name=name)
    made["metadata"] |= {"uid": f"uid-{name}", "resourceVersion": "1", "creationTimestamp": "2026-11-22T11:00:00Z"}
    made["spec"]["nodeName"] = "node-1"
    made["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], **status}
    return made


def unready(of: dict[str, Any], name: str) -> dict[str, Any]:
    return pod(of, name, phase="Pending", conditions=[])


def leaving(obj: dict[str, Any]) -> dict[str, Any]:
    gone = copy.deepcopy(obj)
    gone["metadata"]["deletionTimestamp"] = "2026-11-22T11:59:00Z"
    return gone


def told(actions: list[Action]) -> list[str]:
    """Without status updates, which have tests of their own."""
    words = []
    for action in actions:
        match action:
            case Create():
                words.append(f"create {action.obj['kind']}")
            case Delete():
                words.append(f"delete {action.obj['metadata']['name']}")
            case Update(subresource=None):
                words.append(f"scale {action.obj['metadata']['name']} to {action.body['spec']['replicas']}")
            case Bind():
                words.append(f"bind {action.pod['metadata']['name']} to {action.node}")
            case Collect():
                words.append(f"collect {action.obj['metadata']['name']}")
            case Update():
                pass
    return words


def status_of(actions: list[Action]) -> dict[str, Any]:
    (update,) = [action for action in actions if isinstance(action, Update) and action.subresource == "status"]
    status: dict[str, Any] = update.body["status"]
    return status


# ReplicaSet


def test_a_replicaset_makes_the_pods_that_are_missing() -> None:
    web = owner("ReplicaSet", replicas=3)
    world = World(NOW, replica_sets=[web], pods=[pod(web, "web-a")])
    assert told(list(replicasets.plan(world))) == ["create Pod", "create Pod"]


def test_pods_on_their_way_out_and_finished_pods_do_not_count() -> None:
    web = owner("ReplicaSet", replicas=2)
    pods = [leaving(pod(web, "web-a")), pod(web, "web-b", phase="Failed")]
    assert told(list(replicasets.plan(World(NOW, replica_sets=[web], pods=pods)))) == ["create Pod", "create Pod"]


def test_scaling_down_takes_the_pod_that_is_not_ready() -> None:
    web = owner("ReplicaSet", replicas=1)
    world = World(NOW, replica_sets=[web], pods=[pod(web, "web-a"), unready(web, "web-b")])
    assert told(list(replicasets.plan(world))) == ["delete web-b"]


def test_a_status_that_is_so_already_is_not_written() -> None:
    web = owner("ReplicaSet", replicas=0)
    web["status"] = {"replicas": 0, "observedGeneration": 1}
    assert list(replicasets.plan(World(NOW, replica_sets=[web]))) == []


# Deployment


def revision(deployment: dict[str, Any], name: str, template: dict[str, Any], replicas: int) -> dict[str, Any]:
    made = owner("ReplicaSet", name, replicas=replicas)
    made["metadata"] |= {
        "labels": {deployments.HASH_LABEL: templates.revision_of(template)},
        "ownerReferences": [templates.owner_reference(deployment)],
        "annotations": {deployments.REVISION: "1"},
    }
    return made


def test_a_deployment_makes_a_replicaset_for_its_template() -> None:
    deployment = owner("Deployment", replicas=6)
    (create,) = [
        action for action in deployments.plan(World(NOW, deployments=[deployment])) if isinstance(action, Create)
    ]

    assert create.obj["spec"]["replicas"] == 6
    hashed = create.obj["metadata"]["labels"][deployments.HASH_LABEL]
    assert create.obj["metadata"]["name"] == f"web-{hashed}"
    assert create.obj["spec"]["selector"]["matchLabels"] == {"app": "web", deployments.HASH_LABEL: hashed}
    assert create.obj["spec"]["template"]["metadata"]["labels"] == {"app": "web", deployments.HASH_LABEL: hashed}


def test_scaling_a_deployment_scales_its_replicaset() -> None:
    deployment = owner("Deployment", replicas=2)
    current = revision(deployment, "web-1", TEMPLATE, 6)
    pods = [pod(current, f"web-1-{number}") for number in range(6)]
    world = World(NOW, deployments=[deployment], replica_sets=[current], pods=pods)
    assert told(list(deployments.plan(world))) == ["scale web-1 to 2"]


@pytest.mark.parametrize(
    ("new_ready", "new_size", "old_size", "expected"),
    [
        # 4 replicas, 25 % surge (1 more), 25 % unavailable (3 at least)
        pytest.param(0, 0, 4, ["scale new to 1", "scale old to 3"], id="it begins within surge and unavailable"),
        pytest.param(0, 2, 3, [], id="it waits for the new pods"),
        pytest.param(1, 2, 3, ["scale old to 2"], id="a new pod that is ready replaces an old one"),
        pytest.param(2, 2, 2, ["scale new to 3", "scale old to 1"], id="it goes on"),
        pytest.param(4, 4, 1, ["scale old to 0"], id="it ends"),
    ],
)
def test_a_rolling_update_keeps_to_its_bounds(
    new_ready: int, new_size: int, old_size: int, expected: list[str]
) -> None:
    deployment = owner("Deployment", replicas=4)
    deployment["spec"]["template"] = NEW_TEMPLATE
    new, old = revision(deployment, "new", NEW_TEMPLATE, new_size), revision(deployment, "old", TEMPLATE, old_size)
    pods = [pod(new, f"new-{number}") for number in range(new_ready)]
    pods += [unready(new, f"new-{number}") for number in range(new_ready, new_size)]
    pods += [pod(old, f"old-{number}") for number in range(old_size)]
    world = World(NOW, deployments=[deployment], replica_sets=[new, old], pods=pods)
    assert told(list(deployments.plan(world))) == expected


@pytest.mark.parametrize(
    ("rolling", "expected"),
    [
        ({}, (2, 1)),
        ({"maxSurge": "0%", "maxUnavailable": "0%"}, (0, 1)),
        ({"maxSurge": 3, "maxUnavailable": 0}, (3, 0)),
        ({"maxSurge": "50%", "maxUnavailable": "50%"}, (3, 3)),
    ],
)
def test_surge_rounds_up_and_unavailable_rounds_down(rolling: dict[str, Any], expected: tuple[int, int]) -> None:
    deployment = owner("Deployment", replicas=6, strategy={"rollingUpdate": rolling})
    assert deployments.bounds(deployment) == expected


def test_recreate_waits_until_the_old_pods_are_gone() -> None:
    deployment = owner("Deployment", replicas=2, strategy={"type": "Recreate"})
    deployment["spec"]["template"] = NEW_TEMPLATE
    new, old = revision(deployment, "new", NEW_TEMPLATE, 0), revision(deployment, "old", TEMPLATE, 0)
    last = leaving(pod(old, "old-a"))
    waiting = World(NOW, deployments=[deployment], replica_sets=[new, old], pods=[last])
    free = World(NOW, deployments=[deployment], replica_sets=[new, old])
    assert told(list(deployments.plan(waiting))) == []
    assert told(list(deployments.plan(free))) == ["scale new to 2"]


def test_a_complete_deployment_says_so_in_its_conditions() -> None:
    deployment = owner("Deployment", replicas=1)
    current = revision(deployment, "web-1", TEMPLATE, 1)
    world = World(NOW, deployments=[deployment], replica_sets=[current], pods=[pod(current, "web-1-a")])
    status = status_of(list(deployments.plan(world)))
    assert {(item["type"], item["status"], item["reason"]) for item in status["conditions"]} == {
        ("Available", "True", "MinimumReplicasAvailable"),
        ("Progressing", "True", "NewReplicaSetAvailable"),
    }
    assert status["updatedReplicas"] == status["availableReplicas"] == 1


# StatefulSet


def ordinal(of: dict[str, Any], number: int, template: dict[str, Any] = TEMPLATE) -> dict[str, Any]:
    made = pod(of, f"{of['metadata']['name']}-{number}")
    made["metadata"]["labels"][statefulsets.REVISION_LABEL] = f"db-{templates.revision_of(template)}"
    return made


def test_ordinals_start_one_after_the_other() -> None:
    db = owner("StatefulSet", "db", replicas=3)
    first = unready(db, "db-0")
    assert told(list(statefulsets.plan(World(NOW, stateful_sets=[db])))) == ["create Pod"]
    assert told(list(statefulsets.plan(World(NOW, stateful_sets=[db], pods=[first])))) == []
    (create, *_) = statefulsets.plan(World(NOW, stateful_sets=[db], pods=[ordinal(db, 0)]))
    assert isinstance(create, Create)
    assert create.obj["metadata"]["name"] == "db-1"
    assert create.obj["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"
    assert create.obj["spec"]["hostname"] == "db-1"


def test_parallel_ordinals_start_together_from_the_given_number() -> None:
    db = owner("StatefulSet", "db", replicas=2, podManagementPolicy="Parallel", ordinals={"start": 5})
    created = [action for action in statefulsets.plan(World(NOW, stateful_sets=[db])) if isinstance(action, Create)]
    assert [action.obj["metadata"]["name"] for action in created] == ["db-5", "db-6"]


def test_scaling_down_takes_the_highest_ordinal_first() -> None:
    db = owner("StatefulSet", "db", replicas=1)
    pods = [ordinal(db, number) for number in range(3)]
    assert told(list(statefulsets.plan(World(NOW, stateful_sets=[db], pods=pods)))) == ["delete db-2"]


def test_a_deleted_ordinal_is_not_replaced_before_it_is_gone() -> None:
    db = owner("StatefulSet", "db", replicas=1)
    world = World(NOW, stateful_sets=[db], pods=[leaving(ordinal(db, 0))])
    assert told(list(statefulsets.plan(world))) == []


def test_an_update_goes_from_the_highest_ordinal_down() -> None:
    db = owner("StatefulSet", "db", replicas=3, template=NEW_TEMPLATE)
    mixed = [ordinal(db, 0), ordinal(db, 1), ordinal(db, 2, NEW_TEMPLATE)]
    assert told(list(statefulsets.plan(World(NOW, stateful_sets=[db], pods=mixed)))) == ["delete db-1"]


# Job


def test_a_job_runs_no_more_pods_than_it_needs() -> None:
    job = owner("Job", "sum", completions=3, parallelism=2)
    done = [pod(job, f"sum-{name}", phase="Succeeded") for name in "ab"]
    assert told(list(jobs.plan(World(NOW, jobs=[job])))) == ["create Pod", "create Pod"]
    assert told(list(jobs.plan(World(NOW, jobs=[job], pods=done)))) == ["create Pod"]


def test_a_job_is_complete_after_its_completions() -> None:
    job = owner("Job", "sum", completions=1)
    status = status_of(list(jobs.plan(World(NOW, jobs=[job], pods=[pod(job, "sum-a", phase="Succeeded")]))))
    assert [item["type"] for item in status["conditions"]] == ["SuccessCriteriaMet", "Complete"]
    assert status["succeeded"] == 1


def test_a_job_fails_after_more_failures_than_its_limit() -> None:
    job = owner("Job", "sum", completions=1, backoffLimit=0)
    status = status_of(list(jobs.plan(World(NOW, jobs=[job], pods=[pod(job, "sum-a", phase="Failed")]))))
    assert [item["type"] for item in status["conditions"]] == ["FailureTarget", "Failed"]


# Binding and collecting


def node(name: str, **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "uid": f"uid-{name}", "labels": {"kubernetes.io/hostname": name}}
    return {"metadata": meta, "spec": spec, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}


def unbound(of: dict[str, Any], name: str, **spec: Any) -> dict[str, Any]:
    made = unready(of, name)
    del made["spec"]["nodeName"]
    made["spec"] |= spec
    return made


def test_pods_of_one_workload_go_to_different_nodes() -> None:
    web = owner("ReplicaSet")
    world = World(NOW, pods=[unbound(web, f"web-{name}") for name in "abc"], nodes=[node("n1"), node("n2"), node("n3")])
    assert {action.node for action in scheduling.plan(world) if isinstance(action, Bind)} == {"n1", "n2", "n3"}


def test_a_pod_goes_only_where_its_selector_fits_and_pods_are_welcome() -> None:
    web = owner("ReplicaSet")
    waiting = unbound(web, "web-a", nodeSelector={"kubernetes.io/hostname": "n2"})
    closed = World(NOW, pods=[waiting], nodes=[node("n1"), node("n2", unschedulable=True)])
    opened = World(NOW, pods=[waiting], nodes=[node("n1"), node("n2")])
    assert told(list(scheduling.plan(closed))) == []
    assert told(list(scheduling.plan(opened))) == ["bind web-a to n2"]


def requirement(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, **({"values": [*values]} if values else {})}


def by_label(*requirements: dict[str, Any]) -> dict[str, Any]:
    return {"matchExpressions": [*requirements]}


def by_name(operator: str, name: str) -> dict[str, Any]:
    return {"matchFields": [requirement("metadata.name", operator, name)]}


@pytest.mark.parametrize(
    ("terms", "allowed"),
    [
        pytest.param([by_label(requirement("rack", "In", "6", "7"))], ["n6", "n7"], id="In"),
        pytest.param([by_label(requirement("rack", "NotIn", "6"))], ["n0", "n7"], id="NotIn, which no label satisfies"),
        pytest.param([by_label(requirement("rack", "Exists"))], ["n6", "n7"], id="Exists"),
        pytest.param([by_label(requirement("rack", "DoesNotExist"))], ["n0"], id="DoesNotExist"),
        pytest.param([by_label(requirement("rack", "Gt", "6"))], ["n7"], id="Gt"),
        pytest.param([by_label(requirement("rack", "Lt", "7"))], ["n6"], id="Lt"),
        pytest.param([by_label(requirement("kubernetes.io/hostname", "Gt", "6"))], [], id="no number"),
        pytest.param([by_name("In", "n6")], ["n6"], id="a name"),
        pytest.param([by_name("NotIn", "n6")], ["n0", "n7"], id="all but a name"),
        pytest.param([by_label(requirement("rack", "Exists")) | by_name("NotIn", "n6")], ["n7"], id="all of a term"),
        pytest.param(
            [by_name("In", "n0"), by_label(requirement("rack", "In", "7"))], ["n0", "n7"], id="one of the terms"
        ),
        pytest.param([{}], [], id="an empty term allows nothing"),
        pytest.param([{}, by_name("In", "n0")], ["n0"], id="an empty term beside another"),
    ],
)
def test_a_pod_goes_only_where_its_required_node_affinity_allows(terms: list[Any], allowed: list[str]) -> None:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    waiting = unbound(owner("ReplicaSet"), "web-a", affinity={"nodeAffinity": required})
    nodes = [node("n0"), node("n6"), node("n7")]
    for each, rack in zip(nodes[1:], "67", strict=True):
        each["metadata"]["labels"]["rack"] = rack
    worlds = {each["metadata"]["name"]: World(NOW, pods=[waiting], nodes=[each]) for each in nodes}
    assert [name for name, world in worlds.items() if told(list(scheduling.plan(world)))] == allowed


def test_a_pod_that_was_just_bound_is_not_bound_again() -> None:
    web = owner("ReplicaSet")
    waiting = unbound(web, "web-a")
    world = World(NOW, pods=[waiting], nodes=[node("n1")], assumed={"uid-web-a": "n1"})
    assert told(list(scheduling.plan(world))) == []


def test_a_pod_whose_owner_is_not_to_be_seen_is_a_case_for_a_live_read() -> None:
    web = owner("ReplicaSet")
    assert told(list(garbage.plan(World(NOW, pods=[pod(web, "web-a")])))) == ["collect web-a"]
    assert told(list(garbage.plan(World(NOW, pods=[pod(web, "web-a")], replica_sets=[web])))) == []
