"""DaemonSet as a function: which nodes get a pod, and which pods give way."""

from __future__ import annotations

from typing import Any

import pytest

from devcluster.workloads import daemonsets, scheduling, templates
from devcluster.workloads.world import Action, Create, World
from tests.unit.test_devcluster_workloads import (
    NEW_TEMPLATE,
    NOW,
    TEMPLATE,
    leaving,
    node,
    owner,
    pod,
    status_of,
    told,
    unready,
)

N1, N2, N3 = node("n1"), node("n2"), node("n3")


def agent(**spec: Any) -> dict[str, Any]:
    return owner("DaemonSet", "agent", **spec)


def on(name: str, made: dict[str, Any], template: dict[str, Any] = TEMPLATE) -> dict[str, Any]:
    made["spec"]["nodeName"] = name
    made["metadata"]["labels"][daemonsets.REVISION_LABEL] = templates.revision_of(template)
    return made


def all_ready(of: dict[str, Any]) -> list[dict[str, Any]]:
    return [on(name, pod(of, f"agent-{name}")) for name in ("n1", "n2", "n3")]


def targets(actions: list[Action]) -> list[str]:
    return [daemonsets.node_of(action.obj) for action in actions if isinstance(action, Create)]


def plan(daemon_set: dict[str, Any], pods: list[dict[str, Any]], *nodes: dict[str, Any]) -> list[Action]:
    return list(daemonsets.plan(World(NOW, daemon_sets=[daemon_set], pods=pods, nodes=[*nodes])))


def test_each_node_without_a_pod_gets_one() -> None:
    web = agent()
    assert targets(plan(web, [on("n2", pod(web, "agent-a"))], N1, N2, N3)) == ["n1", "n3"]


def test_a_new_pod_belongs_to_its_daemon_set_and_is_bound_to_its_node_only() -> None:
    (create,) = [action for action in plan(agent(), [], N2) if isinstance(action, Create)]
    assert create.obj["metadata"]["ownerReferences"] == [templates.owner_reference(agent())]
    assert create.obj["metadata"]["labels"][daemonsets.REVISION_LABEL] == templates.revision_of(TEMPLATE)
    assert "nodeName" not in create.obj["spec"]
    assert [each["metadata"]["name"] for each in (N1, N2, N3) if scheduling.allows(create.obj["spec"], each)] == ["n2"]


def test_a_node_that_is_closed_gets_its_pod_all_the_same() -> None:
    closed = node("n2", unschedulable=True)
    (create,) = [action for action in plan(agent(), [], closed) if isinstance(action, Create)]
    create.obj["metadata"]["uid"] = "uid-agent"
    bound = list(scheduling.plan(World(NOW, pods=[create.obj], nodes=[closed])))
    assert [word.split()[-1] for word in told(bound)] == ["n2"]


HOSTNAME = "kubernetes.io/hostname"
IN_N2 = {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": ["n2"]}]}


def picky(**spec: Any) -> dict[str, Any]:
    template: dict[str, Any] = {**TEMPLATE, "spec": {"containers": [{"name": "c", "image": "pause"}], **spec}}
    return agent(template=template)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"nodeSelector": {HOSTNAME: "n2"}}, id="selector"),
        pytest.param(
            {"affinity": {"nodeAffinity": {scheduling.REQUIRED: {"nodeSelectorTerms": [IN_N2]}}}}, id="affinity"
        ),
    ],
)
def test_only_nodes_that_the_template_allows_get_a_pod(spec: dict[str, Any]) -> None:
    actions = plan(picky(**spec), [], N1, N2, N3)
    assert targets(actions) == ["n2"]
    assert status_of(actions)["desiredNumberScheduled"] == 1


def test_the_affinity_of_the_template_holds_beside_the_name_of_the_node() -> None:
    web = picky(affinity={"nodeAffinity": {scheduling.REQUIRED: {"nodeSelectorTerms": [IN_N2]}}})
    (create,) = [action for action in plan(web, [], N1, N2) if isinstance(action, Create)]
    other = node("n2")
    other["metadata"]["labels"][HOSTNAME] = "elsewhere"
    assert [scheduling.allows(create.obj["spec"], each) for each in (N2, other)] == [True, False]


def test_a_pod_on_a_node_that_allows_it_no_more_goes() -> None:
    web = picky(nodeSelector={HOSTNAME: "n2"})
    pods = [on(name, pod(web, f"agent-{name}"), web["spec"]["template"]) for name in ("n1", "n2")]
    actions = plan(web, pods, N1, N2)
    assert told(actions) == ["delete agent-n1"]
    assert status_of(actions)["numberMisscheduled"] == 1


def test_a_pod_that_is_over_makes_room_and_is_replaced_when_it_is_gone() -> None:
    web = agent()
    over = on("n1", pod(web, "agent-a", phase="Failed"))
    assert told(plan(web, [over], N1)) == ["delete agent-a"]
    assert told(plan(web, [leaving(over)], N1)) == []


def test_of_two_pods_on_one_node_the_older_stays() -> None:
    web = agent()
    younger = on("n1", pod(web, "agent-a"))
    younger["metadata"]["creationTimestamp"] = "2026-11-22T11:30:00Z"
    assert told(plan(web, [younger, on("n1", pod(web, "agent-b"))], N1)) == ["delete agent-a"]


def test_pods_of_a_daemon_set_on_its_way_out_are_not_made_again() -> None:
    assert plan(leaving(agent()), [], N1) == []


@pytest.mark.parametrize(
    ("strategy", "number"),
    [
        pytest.param({}, 1, id="one at a time unless said otherwise"),
        pytest.param({"rollingUpdate": {"maxUnavailable": 2}}, 2, id="so many at a time"),
        pytest.param({"rollingUpdate": {"maxUnavailable": "34%"}}, 2, id="a part, rounded up"),
        pytest.param({"type": "OnDelete"}, 0, id="none before somebody deletes them"),
    ],
)
def test_an_update_takes_no_more_pods_at_once_than_may_be_missing(strategy: dict[str, Any], number: int) -> None:
    web = agent(template=NEW_TEMPLATE, updateStrategy=strategy)
    assert len(told(plan(web, all_ready(web), N1, N2, N3))) == number


def test_an_update_waits_for_the_pod_that_is_missing() -> None:
    web = agent(template=NEW_TEMPLATE)
    pods = all_ready(web)
    pods[0] = on("n1", unready(web, "agent-n1"), NEW_TEMPLATE)
    assert told(plan(web, pods, N1, N2, N3)) == []


def test_an_update_takes_all_that_are_missed_already_and_no_other() -> None:
    web = agent(template=NEW_TEMPLATE)
    pods = all_ready(web)
    pods[1:] = [on("n2", unready(web, "agent-n2")), on("n3", unready(web, "agent-n3"))]
    assert told(plan(web, pods, N1, N2, N3)) == ["delete agent-n2", "delete agent-n3"]


def test_the_status_counts_nodes() -> None:
    web = agent(template=NEW_TEMPLATE)
    web["metadata"]["generation"] = 2
    pods = [on("n1", pod(web, "agent-a"), NEW_TEMPLATE), on("n2", unready(web, "agent-b"))]
    assert status_of(plan(web, pods, N1, N2, N3)) == {
        "observedGeneration": 2,
        "desiredNumberScheduled": 3,
        "currentNumberScheduled": 2,
        "numberMisscheduled": 0,
        "numberReady": 1,
        "numberAvailable": 1,
        "numberUnavailable": 2,
        "updatedNumberScheduled": 1,
    }
