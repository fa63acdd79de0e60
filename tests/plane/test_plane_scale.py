"""/scale (autoscaling/v1): the size of a workload, whatever its kind calls it, read and set alike."""
# ruff: noqa: E501 -- a table reads best with one row a line

import copy
import json
import re
from typing import Any

import pytest

from allocator.kube import resources
from allocator.kube.client import KubeClient
from allocator.kube.errors import Conflict, Invalid, NotFound, ServerError
from allocator.kube.resources import Object, Resource
from devcluster.plane import Plane
from tests.plane.support import WIDGET_DEFINITION, Kubectl, install_crd, request, widget

APPS = (resources.DEPLOYMENTS, resources.REPLICA_SETS, resources.STATEFUL_SETS)
GADGETS = Resource("test.example.com", "v1", "gadgets", "Gadget", namespaced=True)
MERGE, JSON_PATCH, STRATEGIC = (f"application/{form}-patch+json" for form in ("merge", "json", "strategic-merge"))


def gadget_definition(**scale: str) -> Object:
    """Of a kind whose size has no default, and which tells a selector."""
    definition = copy.deepcopy(WIDGET_DEFINITION)
    definition["metadata"]["name"] = "gadgets.test.example.com"
    definition["spec"]["names"] = {
        "plural": "gadgets",
        "singular": "gadget",
        "kind": "Gadget",
        "listKind": "GadgetList",
    }
    integer, text = {"type": "integer"}, {"type": "string"}
    spec = {"type": "object", "properties": {"crew": {"type": "object", "properties": {"size": integer}}}}
    status = {"type": "object", "properties": {"crew": integer, "selector": text}}
    schema = {"type": "object", "properties": {"spec": spec, "status": status}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    definition["spec"]["versions"] = [version | {"subresources": {"status": {}, "scale": scale}}]
    return definition


@pytest.fixture
async def gadgets(kube: KubeClient) -> Resource:
    paths = {"specReplicasPath": ".spec.crew.size", "statusReplicasPath": ".status.crew"}
    await install_crd(kube, gadget_definition(**paths, labelSelectorPath=".status.selector"))
    return GADGETS


def workload(resource: Resource, namespace: str, **spec: Any) -> Object:
    """Named `web`. On a real plane nothing runs for it: its pods wait for a scheduler that there is not."""
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "main", "image": "registry.invalid/web:1"}]},
    }
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": "web", "namespace": namespace, "labels": {"team": "shop"}},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec},
    }


@pytest.mark.parametrize("resource", APPS, ids=lambda resource: resource.plural)
async def test_a_scale_tells_whose_size_it_is(kube: KubeClient, namespace: str, resource: Resource) -> None:
    made = await kube.create(resource, workload(resource, namespace, replicas=2))
    scale = await kube.raw("GET", resource.path(namespace, "web", "scale"))
    assert (scale["apiVersion"], scale["kind"], scale["spec"]) == ("autoscaling/v1", "Scale", {"replicas": 2})
    assert scale["status"]["selector"] == "app=web"
    assert scale["metadata"].keys() == {"name", "namespace", "uid", "resourceVersion", "creationTimestamp"}
    assert scale["metadata"]["uid"] == made["metadata"]["uid"]


async def test_a_selector_is_told_as_a_list_request_takes_it(kube: KubeClient, namespace: str) -> None:
    asked = [
        {"key": "tier", "operator": "In", "values": ["front", "back"]},
        {"key": "stage", "operator": "NotIn", "values": ["test"]},
        {"key": "app", "operator": "Exists"},
        {"key": "lost", "operator": "DoesNotExist"},
    ]
    body = workload(resources.DEPLOYMENTS, namespace, replicas=0)
    body["spec"]["selector"] = {"matchLabels": {"team": "shop"}, "matchExpressions": asked}
    body["spec"]["template"]["metadata"]["labels"] |= {"team": "shop", "tier": "front"}
    await kube.create(resources.DEPLOYMENTS, body)
    scale = await kube.raw("GET", resources.DEPLOYMENTS.path(namespace, "web", "scale"))
    assert scale["status"]["selector"] == "app,!lost,stage notin (test),team=shop,tier in (back,front)"


async def test_a_size_of_zero_goes_without_saying(kube: KubeClient, namespace: str) -> None:
    await kube.create(resources.REPLICA_SETS, workload(resources.REPLICA_SETS, namespace, replicas=0))
    scale = await kube.raw("GET", resources.REPLICA_SETS.path(namespace, "web", "scale"))
    assert (scale["spec"], scale["status"]["replicas"]) == ({}, 0)


async def test_a_custom_kind_tells_the_sizes_at_its_paths(kube: KubeClient, gadgets: Resource, namespace: str) -> None:
    await kube.create(gadgets, gadget("one", namespace, crew={"size": 4}))
    status = {"status": {"crew": 3, "selector": "app in (a,b)"}}
    await kube.patch(gadgets, "one", status, namespace=namespace, subresource="status")
    scale = await kube.raw("GET", gadgets.path(namespace, "one", "scale"))
    assert scale["spec"] == {"replicas": 4}
    assert scale["status"] == {"replicas": 3, "selector": "app in (a,b)"}


def gadget(name: str, namespace: str, **spec: Any) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "test.example.com/v1", "kind": "Gadget", "metadata": metadata, "spec": spec}


async def test_a_size_that_was_never_set_can_be_set_but_not_read(
    kube: KubeClient, gadgets: Resource, namespace: str
) -> None:
    await kube.create(gadgets, gadget("one", namespace))
    path = gadgets.path(namespace, "one", "scale")
    with pytest.raises(ServerError, match=r'the spec replicas field "\.spec\.crew\.size" does not exist'):
        await kube.raw("GET", path)
    await kube.raw("PATCH", path, body={"spec": {"replicas": 0}}, content_type=MERGE)
    assert (await kube.get(gadgets, "one", namespace=namespace))["spec"] == {"crew": {"size": 0}}


@pytest.mark.parametrize(
    ("method", "form", "body"),
    [
        pytest.param("PUT", "application/json", {"metadata": {"name": "web"}, "spec": {"replicas": 3}}, id="replace"),
        pytest.param("PATCH", MERGE, {"spec": {"replicas": 3}}, id="merge patch"),
        pytest.param("PATCH", STRATEGIC, {"spec": {"replicas": 3}}, id="strategic merge patch"),
        pytest.param("PATCH", JSON_PATCH, [{"op": "replace", "path": "/spec/replicas", "value": 3}], id="JSON patch"),
    ],
)
@pytest.mark.parametrize("resource", APPS, ids=lambda resource: resource.plural)
async def test_a_workload_is_scaled(
    kube: KubeClient, namespace: str, resource: Resource, method: str, form: str, body: Any
) -> None:
    await kube.create(resource, workload(resource, namespace, replicas=1))
    answer = await kube.raw(method, resource.path(namespace, "web", "scale"), body=body, content_type=form)
    assert answer["spec"] == {"replicas": 3}
    found = await kube.get(resource, "web", namespace=namespace)
    assert (found["spec"]["replicas"], found["metadata"]["generation"]) == (3, 2)


async def test_a_scale_changes_the_size_and_nothing_else(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    before = await kube.create(widgets, widget("one", namespace))
    path = widgets.path(namespace, "one", "scale")
    body = {"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 4}, "status": {"replicas": 9, "selector": "a"}}
    await kube.raw("PATCH", path, body=body, content_type=MERGE)
    after = await kube.get(widgets, "one", namespace=namespace)
    assert after["spec"] == before["spec"] | {"size": 4}
    assert "status" not in after
    assert "labels" not in after["metadata"]


async def test_a_scale_without_a_size_means_zero(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    await kube.create(widgets, widget("one", namespace, size=3))
    await kube.raw("PUT", widgets.path(namespace, "one", "scale"), body={"metadata": {"name": "one"}})
    assert (await kube.get(widgets, "one", namespace=namespace))["spec"]["size"] == 0


async def test_a_dry_run_scales_nothing(plane: Plane, kube: KubeClient, widgets: Resource, namespace: str) -> None:
    await kube.create(widgets, widget("one", namespace))
    body = json.dumps({"metadata": {"name": "one"}, "spec": {"replicas": 4}})
    path = widgets.path(namespace, "one", "scale")
    _, text, _ = await request(plane, "PUT", path, body=body, params={"dryRun": "All"})
    assert json.loads(text)["spec"] == {"replicas": 4}
    assert (await kube.get(widgets, "one", namespace=namespace))["spec"]["size"] == 1


async def test_a_scale_that_was_read_before_another_write_conflicts(
    kube: KubeClient, widgets: Resource, namespace: str
) -> None:
    await kube.create(widgets, widget("one", namespace))
    path = widgets.path(namespace, "one", "scale")
    read = await kube.raw("GET", path)
    await kube.raw("PUT", path, body=read | {"spec": {"replicas": 4}})
    with pytest.raises(Conflict, match=re.escape('on widgets.test.example.com "one": the object has been modified')):
        await kube.raw("PUT", path, body=read | {"spec": {"replicas": 5}})


async def test_a_size_must_fit_the_schema_of_a_custom_kind(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    await kube.create(widgets, widget("one", namespace))
    body = {"metadata": {"name": "one"}, "spec": {"replicas": 10}}
    with pytest.raises(Invalid, match=r"Widget.*spec\.size in body should be less than or equal to 9"):
        await kube.raw("PUT", widgets.path(namespace, "one", "scale"), body=body)


REFUSALS: dict[str, tuple[str, Any, str, int, str, str]] = {
    # name: (method, body, content type, code, reason, words of the message)
    "a negative size": ("PUT", {"metadata": {"name": "web"}, "spec": {"replicas": -1}}, "", 422, "Invalid", "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
    "a size in words": ("PUT", {"metadata": {"name": "web"}, "spec": {"replicas": "3"}}, "", 400, "BadRequest", "json: cannot unmarshal"),
    "a size in words, patched": ("PATCH", {"spec": {"replicas": "3"}}, MERGE, 422, "Invalid", "json: cannot unmarshal"),
    "a size of 33 bits": ("PATCH", {"spec": {"replicas": 1 << 32}}, MERGE, 422, "Invalid", "json: cannot unmarshal"),
    "half a pod": ("PATCH", {"spec": {"replicas": 1.5}}, MERGE, 422, "Invalid", "json: cannot unmarshal"),
    "a patch of nothing": ("PATCH", [{"op": "test", "path": "/spec/replicas", "value": 7}], JSON_PATCH, 422, "Invalid", "the server rejected our request"),
    "no name": ("PUT", {"spec": {"replicas": 1}}, "", 400, "BadRequest", "the name of the object (web based on URL) was undeterminable: name must be provided"),
    "another name": ("PUT", {"metadata": {"name": "b"}}, "", 400, "BadRequest", "the name of the object (b) does not match the name on the URL (web)"),
    "another name, patched": ("PATCH", {"metadata": {"name": "b"}}, MERGE, 400, "BadRequest", "the name of the object (b) does not match the name on the URL (web)"),
    "another namespace": ("PUT", {"metadata": {"name": "web", "namespace": "b"}}, "", 400, "BadRequest", "does not match the namespace sent"),
    "another uid": ("PUT", {"metadata": {"name": "web", "uid": "b"}}, "", 409, "Conflict", "Precondition failed: UID in precondition: b"),
    "another uid, patched": ("PATCH", {"metadata": {"uid": "b"}}, MERGE, 409, "Conflict", "Precondition failed: UID in precondition: b"),
    "another kind": ("PUT", {"apiVersion": "autoscaling/v1", "kind": "Deployment", "metadata": {"name": "web"}}, "", 400, "BadRequest", 'Deployment in version "v1" cannot be handled as a Scale'),
    "another version": ("PUT", {"apiVersion": "apps/v1", "kind": "Scale", "metadata": {"name": "web"}}, "", 400, "BadRequest", "apps/v1"),
    "an unknown field": ("PUT?fieldValidation=Strict", {"metadata": {"name": "web"}, "spec": {"size": 1}}, "", 400, "BadRequest", 'strict decoding error: unknown field "spec.size"'),
    "an unknown field, patched": ("PATCH?fieldValidation=Strict", {"spec": {"size": 1}}, MERGE, 422, "Invalid", 'strict decoding error: unknown field "spec.size"'),
    "a deletion": ("DELETE", None, "", 405, "MethodNotAllowed", "the server does not allow this method on the requested resource"),
    "a creation": ("POST", {"metadata": {"name": "web"}}, "", 405, "MethodNotAllowed", "the server does not allow this method on the requested resource"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_scale_that_makes_no_sense_is_refused(
    plane: Plane, kube: KubeClient, namespace: str, case: str
) -> None:
    method, body, form, code, reason, words = REFUSALS[case]
    await kube.create(resources.DEPLOYMENTS, workload(resources.DEPLOYMENTS, namespace, replicas=1))
    path = resources.DEPLOYMENTS.path(namespace, "web", "scale")
    method, _, query = method.partition("?")
    params = dict([query.split("=")]) if query else None
    sent = json.dumps(body) if body is not None else None
    headers = {"Content-Type": form} if form else None
    status, text, _ = await request(plane, method, path, params=params, body=sent, headers=headers)
    answer = json.loads(text)
    assert (status, answer["reason"]) == (code, reason)
    assert words in answer["message"]


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        pytest.param(resources.DEPLOYMENTS, 'deployments.apps "web" not found', id="an absent object"),
        pytest.param(resources.DAEMON_SETS, "the server could not find the requested resource", id="a kind of no size"),
    ],
)
async def test_no_scale_is_found(kube: KubeClient, namespace: str, resource: Resource, words: str) -> None:
    path = resource.path(namespace, "web", "scale")
    for method, body in (("GET", None), ("PUT", {"metadata": {"name": "web"}})):
        with pytest.raises(NotFound, match=re.escape(words)):
            await kube.raw(method, path, body=body)


async def test_discovery_lists_the_kinds_that_have_a_size(kube: KubeClient, widgets: Resource) -> None:
    found: list[Object] = []
    for group in ("apps", "batch", widgets.group):
        found += (await kube.raw("GET", f"/apis/{group}/v1"))["resources"]
    scales = {entry["name"]: entry for entry in found if entry["name"].endswith("/scale")}
    assert {"deployments/scale", "replicasets/scale", "statefulsets/scale", "widgets/scale"} <= scales.keys()
    assert not {"daemonsets/scale", "jobs/scale"} & scales.keys()
    entry = scales["widgets/scale"]
    assert (entry["group"], entry["version"], entry["kind"]) == ("autoscaling", "v1", "Scale")
    assert entry["verbs"] == ["get", "patch", "update"]


@pytest.mark.parametrize(
    ("paths", "field", "words"),
    [
        pytest.param({"statusReplicasPath": ".status.a"}, "specReplicasPath", "Required value", id="no size"),
        pytest.param({"specReplicasPath": ".spec.a"}, "statusReplicasPath", "Required value", id="no count"),
        pytest.param(
            {"specReplicasPath": ".status.a", "statusReplicasPath": ".status.a"},
            "specReplicasPath",
            'Invalid value: ".status.a": should be a json path under .spec',
            id="a size in the status",
        ),
        pytest.param(
            {"specReplicasPath": ".spec.a", "statusReplicasPath": ".status"},
            "statusReplicasPath",
            'Invalid value: ".status": should be a json path under .status',
            id="the whole status",
        ),
        pytest.param(
            {"specReplicasPath": "spec.a", "statusReplicasPath": ".status.a"},
            "specReplicasPath",
            'Invalid value: "spec.a": must be a simple json path starting with .',
            id="no dot in front",
        ),
        pytest.param(
            {"specReplicasPath": ".spec.a", "statusReplicasPath": ".status.a", "labelSelectorPath": ".metadata.labels"},
            "labelSelectorPath",
            'Invalid value: ".metadata.labels": should be a json path under either .spec or .status',
            id="a selector in the metadata",
        ),
    ],
)
async def test_a_definition_whose_scale_leads_nowhere_is_refused(
    kube: KubeClient, paths: dict[str, str], field: str, words: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await kube.create(resources.CRDS, gadget_definition(**paths), dry_run=True)
    causes = [(cause["field"], cause["message"]) for cause in refused.value.details["causes"]]
    assert causes == [(f"spec.subresources.scale.{field}", words)]


@pytest.mark.parametrize("resource", APPS, ids=lambda resource: resource.plural)
async def test_kubectl_scales(kubectl: Kubectl, kube: KubeClient, namespace: str, resource: Resource) -> None:
    await kube.create(resource, workload(resource, namespace, replicas=1))
    name = f"{resource.plural}/web"
    out = await kubectl("scale", name, "-n", namespace, "--replicas=3", "--current-replicas=1")
    assert out == f"{resource.kind.lower()}.apps/web scaled\n"
    assert (await kube.get(resource, "web", namespace=namespace))["spec"]["replicas"] == 3
    out = await kubectl("scale", name, "-n", namespace, "--replicas=4", "--current-replicas=1", check=False)
    assert "Expected replicas to be 1, was 3" in out


async def test_kubectl_shows_a_scale_as_a_row(
    kubectl: Kubectl, kube: KubeClient, widgets: Resource, namespace: str
) -> None:
    await kube.create(widgets, widget("one", namespace, size=4))
    lines = (await kubectl("get", "widget", "one", "-n", namespace, "--subresource=scale")).splitlines()
    assert lines[0].split() == ["NAME", "DESIRED", "AVAILABLE", "AGE"]
    assert lines[1].split()[:3] == ["one", "4", "0"]


async def test_kubectl_patches_a_scale(kubectl: Kubectl, kube: KubeClient, widgets: Resource, namespace: str) -> None:
    await kube.create(widgets, widget("one", namespace))
    patch = '{"spec": {"replicas": 5}}'
    await kubectl("patch", "widget", "one", "-n", namespace, "--subresource=scale", "--type=merge", "-p", patch)
    assert (await kube.get(widgets, "one", namespace=namespace))["spec"]["size"] == 5
