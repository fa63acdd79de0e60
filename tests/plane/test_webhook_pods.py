"""New pods before the webhook, through the API server: what users are told, and what their pods become."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from allocator.kube import errors
from allocator.kube.events import Recorder
from allocator.kube.resources import (
    DEPLOYMENTS,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    NODES,
    PODS,
    SPIDER_IP_POOLS,
)
from allocator.runtime.clock import SystemClock
from devcluster.nodes import registration
from devcluster.workloads import manager
from tests.plane.agents import make_node, make_pool, running_agent
from tests.plane.support import eventually
from tests.plane.support import pod as plain_pod
from tests.plane.test_workloads_run import missing_controllers, workload
from tests.plane.webhooks import Webhook, register, running_webhook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.plane.support import Kubectl

PREFIX = "ipam.spidernet.io/"
IPPOOL = f"{PREFIX}ippool"
PATH = "/mutate--v1-pod"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def pod(namespace: str, name: str = "web", *, annotations: dict[str, str], **spec: Any) -> Object:
    made = plain_pod(name, namespace, **spec)
    made["metadata"]["annotations"] = {f"{PREFIX}{key}": text for key, text in annotations.items()}
    return made


def on(*nodes: str) -> list[Object]:
    return [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]} for node in nodes]


def with_affinity(terms: list[Object]) -> Object:
    return {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": terms}}}


def terms_of(made: Object) -> list[Object] | None:
    required = ((made["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(REQUIRED)
    return None if required is None else required["nodeSelectorTerms"]


def annotation_of(made: Object, key: str = "ippool") -> str:
    return str(made["metadata"]["annotations"][f"{PREFIX}{key}"])


async def tried(kube: KubeClient, obj: Object, is_so: Callable[[Object], object]) -> None:
    """Wait until the webhook has heard of what the test has made: until a dry run of the pod is as it should be."""

    async def is_known() -> object:
        return is_so(await kube.create(PODS, obj, namespace=obj["metadata"]["namespace"], dry_run=True))

    await eventually(is_known)


async def shown(kubectl: Kubectl, obj: Object, *, until: str) -> str:
    """What kubectl shows of creating the pod, once the webhook knows the pools."""
    text = ""

    async def is_shown() -> bool:
        nonlocal text
        text = await kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(obj), check=False)
        return until in text

    await eventually(is_shown)
    return text


# Refusals


async def test_kubectl_shows_all_malformed_annotations_at_once_with_right_ones(
    admission: Webhook, namespace: str, kubectl: Kubectl
) -> None:
    wrong = pod(namespace, annotations={"ippool": '{"ipv4": "rack7"}', "routes": '[{"dst": "10.0.0.0"}]', "ipool": "x"})
    out = await kubectl("create", "-f", "-", stdin=yaml.safe_dump(wrong), check=False)
    assert f"metadata.annotations[{IPPOOL}]" in out
    assert f"annotation {IPPOOL} at ipv4 must be a list of pool names; a right value is " in out
    assert f"annotation {PREFIX}routes at [0].dst must be a CIDR" in out
    assert f"{PREFIX}ipool" in out
    assert f"is {IPPOOL} meant?" in out


async def test_each_malformed_annotation_is_one_cause(admission: Webhook, namespace: str, kube: KubeClient) -> None:
    wrong = pod(namespace, "", annotations={"ippools": "{}", "dns": "[]", "node-affinity": "no", "subnet": "{}"})
    wrong["metadata"] = {**wrong["metadata"], "name": None, "generateName": "web-"}
    with pytest.raises(errors.Invalid) as caught:
        await kube.create(PODS, wrong, namespace=namespace)
    assert caught.value.status == 422
    assert {(cause["reason"], cause["field"]) for cause in caught.value.details["causes"]} == {
        ("FieldValueInvalid", f"metadata.annotations[{PREFIX}{key}]")
        for key in ("ippools", "dns", "node-affinity", "subnet")
    }


async def test_a_deployment_whose_pods_are_refused_says_so_in_its_events(
    admission: Webhook, namespace: str, kube: KubeClient, plane: Plane, kubectl: Kubectl
) -> None:
    async with scheduling(plane, kube):
        await deploy(kube, namespace, {IPPOOL: "{"})

        async def is_told() -> bool:
            return "is not JSON" in await kubectl("-n", namespace, "get", "events", "-o", "yaml")

        await eventually(is_told)
        await kube.delete(DEPLOYMENTS, "web", namespace=namespace, propagation="Background")


# Completion


async def test_the_short_form_is_written_out_and_the_agent_gives_addresses_for_it(
    admission: Webhook, namespace: str, kube: KubeClient, plane: Plane, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    await make_pool(kube, "rack7", "10.20.0.10-10.20.0.19")
    await make_pool(kube, "rack7-v6", "fd00:20::10-fd00:20::19", "fd00:20::/64")
    asking = pod(namespace, annotations={"ippool": "rack7-v6, rack7"}, nodeName="n1")
    written = '{"ipv4":["rack7"],"ipv6":["rack7-v6"]}'
    await tried(kube, asking, lambda made: annotation_of(made) == written)
    made = await kube.create(PODS, asking, namespace=namespace)
    assert made["metadata"]["annotations"] == {IPPOOL: written}
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as agent:
        answer = await agent.add(made)
    assert sorted(address.rpartition("/")[2] for address in answer.addresses) == ["16", "64"]


async def test_what_was_completed_once_stays_as_it_is_when_the_webhook_is_asked_again(
    admission: Webhook, namespace: str, kube: KubeClient
) -> None:
    await make_pool(kube, "rack7", "10.20.0.10-10.20.0.19", nodeName=["n1", "n2"])
    asking = pod(namespace, annotations={"ippool": "rack7"}, affinity=with_affinity([labelled("disk", "ssd")]))
    await tried(kube, asking, terms_of)
    once = await kube.create(PODS, asking, namespace=namespace, dry_run=True)
    configuration = await kube.get(MUTATING_WEBHOOKS, "spiderpool-webhook")
    again = {**configuration, "metadata": {"name": "spiderpool-webhook-again"}}
    again["webhooks"] = [webhook for webhook in configuration["webhooks"] if webhook["name"].startswith("pods.")]
    await kube.create(MUTATING_WEBHOOKS, again)

    async def is_asked_again() -> bool:
        before = len(asked_about(admission, "web"))
        await kube.create(PODS, asking, namespace=namespace, dry_run=True)
        return len(asked_about(admission, "web")) >= before + 2

    await eventually(is_asked_again)
    twice = await kube.create(PODS, asking, namespace=namespace)
    assert twice["spec"]["affinity"] == once["spec"]["affinity"]
    assert terms_of(twice) == [labelled("disk", "ssd") | term for term in on("n1", "n2")]
    assert annotation_of(twice) == annotation_of(once) == '{"ipv4":["rack7"]}'


def labelled(key: str, *values: str) -> Object:
    return {"matchExpressions": [{"key": key, "operator": "In", "values": [*values]}]}


def asked_about(server: Webhook, name: str) -> list[dict[str, Any]]:
    return [line for line in server.lines("review_answered") if line["path"] == PATH and line["name"] == name]


# Warnings


async def test_kubectl_shows_what_may_be_wrong_with_the_pools_and_the_pod_is_let_in(
    admission: Webhook, namespace: str, kube: KubeClient, kubectl: Kubectl
) -> None:
    await make_pool(kube, "off", "10.20.0.10", disable=True)
    await make_pool(kube, "full", "10.20.0.20")
    await kube.patch(SPIDER_IP_POOLS, "full", {"status": {"freeIPCount": 0}}, subresource="status")
    asking = pod(namespace, annotations={"ippool": '{"ipv4": ["off", "full", "unknown"]}', "ippoll": "x"})
    out = await shown(kubectl, asking, until="full: no free address")
    assert f"Warning: no IPv4 pool of the annotation {IPPOOL} serves this pod now: off: the pool is disabled" in out
    assert "unknown: there is no SpiderIPPool of this name" in out
    assert f'Warning: annotation "{PREFIX}ippoll" is unknown: is {IPPOOL} meant?' in out
    assert "pod/web created (server dry run)" in out


async def test_a_pool_of_other_namespaces_is_told_by_their_labels(
    admission: Webhook, namespace: str, kube: KubeClient, kubectl: Kubectl
) -> None:
    await make_pool(kube, "teams", "10.20.0.10", namespaceAffinity={"matchLabels": {"team": "shop"}})
    asking = pod(namespace, annotations={"ippool": "teams"})
    told = f"the labels of namespace {namespace} do not match spec.namespaceAffinity"
    assert told in await shown(kubectl, asking, until="Warning")
    await kube.patch(NAMESPACES, namespace, {"metadata": {"labels": {"team": "shop"}}})

    async def is_silent() -> bool:
        return "Warning" not in await shown(kubectl, asking, until="created")

    await eventually(is_silent)


async def test_a_pod_on_the_hosts_network_is_told_that_it_gets_no_address(
    admission: Webhook, namespace: str, kube: KubeClient, kubectl: Kubectl
) -> None:
    await make_pool(kube, "rack7", "10.20.0.10", nodeName=["n1"])
    asking = pod(namespace, annotations={"ippool": "rack7"}, hostNetwork=True)
    out = await shown(kubectl, asking, until="created")
    assert f"Warning: the pod has hostNetwork and gets no address: its {PREFIX} annotations mean nothing" in out
    made = await kube.create(PODS, asking, namespace=namespace)
    assert (annotation_of(made), terms_of(made)) == ("rack7", None)


# Nodes


async def test_the_pod_may_go_only_where_its_pools_serve(admission: Webhook, namespace: str, kube: KubeClient) -> None:
    await make_pool(kube, "rack7", "10.20.0.10", nodeName=["n1", "n2"])
    await make_pool(kube, "rack7-v6", "fd00:20::10", "fd00:20::/64", nodeAffinity={"matchLabels": {"rack": "7"}})
    asking = pod(namespace, annotations={"ippool": "rack7,rack7-v6"})
    await tried(kube, asking, lambda made: len(terms_of(made) or []) == 2)
    made = await kube.create(PODS, asking, namespace=namespace)
    assert terms_of(made) == [labelled("rack", "7") | term for term in on("n1", "n2")]


async def test_every_way_to_select_nodes_is_taken_by_the_api_server(
    admission: Webhook, namespace: str, kube: KubeClient
) -> None:
    asked: list[Object] = [
        {"key": "rack", "operator": "NotIn", "values": ["9", "8"]},
        {"key": "example.com/zone", "operator": "Exists"},
        {"key": "spot", "operator": "DoesNotExist"},
    ]
    await make_pool(kube, "rack7", "10.20.0.10", nodeAffinity={"matchExpressions": asked})
    await make_pool(kube, "rack7-v6", "fd00:20::10", "fd00:20::/64", nodeAffinity={"matchLabels": {"rack": ""}})
    asking = pod(namespace, annotations={"ippool": "rack7"}, affinity={"podAntiAffinity": {}})
    await tried(kube, asking, terms_of)
    made = await kube.create(PODS, asking, namespace=namespace)
    (term,) = terms_of(made) or []
    assert term == {"matchExpressions": [asked[1], {**asked[0], "values": ["8", "9"]}, asked[2]]}
    asking = pod(namespace, "both", annotations={"ippool": "rack7,rack7-v6"})
    await tried(kube, asking, lambda made: "rack7-v6" in annotation_of(made) and "{" in annotation_of(made))
    (term,) = terms_of(await kube.create(PODS, asking, namespace=namespace)) or []
    assert term["matchExpressions"][1] == {"key": "rack", "operator": "In", "values": [""]}


@pytest.mark.parametrize(
    ("annotations", "spec"),
    [
        pytest.param({f"{PREFIX}node-affinity": "false"}, {}, id="the annotation says so"),
        pytest.param({}, {"nodeName": "n9"}, id="it has a node"),
        pytest.param({}, {"affinity": with_affinity(on("n9"))}, id="its affinity names one, as a DaemonSet has it"),
    ],
)
async def test_a_pods_scheduling_rules_are_left_alone_where(
    admission: Webhook, namespace: str, kube: KubeClient, annotations: dict[str, str], spec: Object
) -> None:
    await make_node(kube, "n9")
    await make_pool(kube, "rack7", "10.20.0.10", nodeName=["n1"])
    await tried(kube, pod(namespace, annotations={"ippool": "rack7"}), terms_of)
    asking = pod(namespace, annotations={"ippool": "rack7"}, **spec)
    asking["metadata"]["annotations"] |= annotations
    made = await kube.create(PODS, asking, namespace=namespace)
    assert terms_of(made) == terms_of(asking)
    assert annotation_of(made) == '{"ipv4":["rack7"]}'


async def test_a_node_selector_that_leaves_no_node_is_a_warning(
    admission: Webhook, namespace: str, kube: KubeClient, kubectl: Kubectl
) -> None:
    await make_pool(kube, "rack7", "10.20.0.10", nodeAffinity={"matchLabels": {"rack": "7"}})
    asking = pod(namespace, annotations={"ippool": "rack7"}, nodeSelector={"rack": "8"})
    out = await shown(kubectl, asking, until="Warning: the pod's")
    assert "node affinity stays as it is: its pools serve no node that its nodeSelector allows" in out
    assert terms_of(await kube.create(PODS, asking, namespace=namespace)) is None


async def test_more_nodes_by_name_than_a_pod_should_carry_are_a_warning(
    admission: Webhook, namespace: str, kube: KubeClient, kubectl: Kubectl
) -> None:
    await make_pool(kube, "rack7", "10.20.0.10", nodeName=[f"n{number}" for number in range(101)])
    out = await shown(kubectl, pod(namespace, annotations={"ippool": "rack7"}), until="Warning: the pod's")
    assert "node affinity stays as it is: its pools serve 101 nodes by name, more than 100" in out


@asynccontextmanager
async def scheduling(plane: Plane, kube: KubeClient, *nodes: str) -> AsyncIterator[None]:
    """Ready nodes, and controllers and a scheduler where the plane has none of its own."""
    clock = SystemClock()
    events = Recorder(kube, component="devcluster", clock=clock)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(events.run(), name="events")]
        if plans := missing_controllers(plane):
            workloads = manager.Manager(kube, plans, events=events, clock=clock)
            tasks.append(group.create_task(workloads.run(), name="workloads"))
        for node in nodes:
            await registration.register(kube, node, host="192.0.2.1", clock=clock)
        yield
        for task in tasks:
            task.cancel()


async def deploy(kube: KubeClient, namespace: str, annotations: dict[str, str], *, replicas: int = 4) -> None:
    metadata = {"name": "web", "namespace": namespace}
    spec = {"replicas": replicas, **workload("web", **annotations)}
    await kube.create(
        DEPLOYMENTS,
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec},
        namespace=namespace,
    )


def selecting(operator: str, *values: str) -> Object:
    expression: Object = {"key": "rack", "operator": operator}
    if values:
        expression["values"] = [*values]
    return {"nodeAffinity": {"matchExpressions": [expression]}}


@pytest.mark.parametrize(
    ("pool", "served"),
    [
        pytest.param({"nodeName": ["node-2", "node-3"]}, {"node-2", "node-3"}, id="by name"),
        pytest.param({"nodeAffinity": {"matchLabels": {"rack": "7"}}}, {"node-2", "node-3"}, id="by labels"),
        pytest.param(selecting("NotIn", "7"), {"node-1"}, id="by a value, which a node without the label has not"),
        pytest.param(selecting("DoesNotExist"), {"node-1"}, id="by an absent label"),
    ],
)
async def test_the_scheduler_puts_a_deployments_pods_only_where_their_pool_serves(
    admission: Webhook, namespace: str, kube: KubeClient, plane: Plane, pool: Object, served: set[str]
) -> None:
    async with scheduling(plane, kube, "node-1", "node-2", "node-3"):
        for node in ("node-2", "node-3"):
            await kube.patch(NODES, node, {"metadata": {"labels": {"rack": "7"}}})
        await make_pool(kube, "rack7", "10.20.0.10-10.20.0.19", **pool)
        await tried(kube, pod(namespace, annotations={"ippool": "rack7"}), terms_of)
        await deploy(kube, namespace, {IPPOOL: "rack7"})

        async def nodes() -> list[str]:
            pods = (await kube.list(PODS, namespace=namespace))["items"]
            return [each["spec"].get("nodeName", "") for each in pods]

        async def are_bound() -> bool:
            found = await nodes()
            return len(found) == 4 and all(found)

        await eventually(are_bound)
        assert set(await nodes()) == served
        await kube.delete(DEPLOYMENTS, "web", namespace=namespace, propagation="Background")


# Who is not concerned


async def test_pods_without_our_annotations_pass_as_they_are(
    admission: Webhook, namespace: str, kube: KubeClient, plane: Plane
) -> None:
    plain = plain_pod("plain", namespace)
    plain["metadata"]["annotations"] = {"example.com/ipam": "x"}
    made = await kube.create(PODS, plain, namespace=namespace)
    assert made["metadata"]["annotations"] == {"example.com/ipam": "x"}
    if plane.real:
        assert asked_about(admission, "plain") == []


@pytest.mark.parametrize(
    ("change", "operation"),
    [
        pytest.param({}, "UPDATE", id="an update"),
        pytest.param({"kubernetes.io/config.mirror": "x"}, "CREATE", id="a mirror pod"),
    ],
)
async def test_a_malformed_annotation_passes_in(server: Webhook, change: dict[str, str], operation: str) -> None:
    obj = pod("shop", annotations={"ippool": "{"})
    obj["metadata"]["annotations"] |= change
    status, answer = await ask(server, obj, operation)
    assert (status, json.loads(answer)["response"]) == (200, {"uid": "u1", "allowed": True})


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"annotations": {IPPOOL: 7}}},
        {"metadata": {"annotations": [IPPOOL]}},
        {"metadata": None},
        {"spec": {"affinity": []}},
        {"spec": {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchFields": [7]}]}}}}},
    ],
)
async def test_what_is_no_pod_is_the_senders_fault(server: Webhook, change: Object) -> None:
    obj = {**pod("shop", annotations={"ippool": "rack7"}), **change}
    assert (await ask(server, obj, "CREATE"))[0] == 400


async def ask(server: Webhook, obj: Object, operation: str) -> tuple[int, str]:
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    request = {"uid": "u1", "kind": kind, "operation": operation, "namespace": "shop", "object": obj, "oldObject": obj}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    async with server.session() as session, session.post(PATH, json=review) as response:
        return response.status, await response.text()


async def test_with_a_dead_webhook_a_pod_is_created_as_it_is_typed(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    with running_webhook(plane.kubeconfig, tmp_path / "webhook", "--register", "none") as server:
        await register(kube, server)
    made = await kube.create(PODS, pod(namespace, annotations={"ippool": "{"}), namespace=namespace)
    assert annotation_of(made) == "{"
