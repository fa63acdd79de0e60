"""Requests that make no sense: refused with the same code and reason by stand-in and real server, and in like words."""
# ruff: noqa: E501 -- a table reads best with one row a line

import json
from typing import Any

import pytest

from allocator.kube.client import KubeClient
from allocator.kube.resources import Object, Resource
from devcluster.plane import Plane
from tests.plane.support import request, widget

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
WIDGETS = "/apis/test.example.com/v1/namespaces/{}/widgets"
CONFIG_MAPS = "/api/v1/namespaces/{}/configmaps"
PODS = "/api/v1/namespaces/{}/pods"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


def _widget(**metadata: Any) -> Object:
    return widget("one", "NS") | {"metadata": {"name": "one"} | metadata}


REFUSALS: dict[str, tuple[str, str, Any, str, int, str | None, str]] = {
    # name: (method, path, body or query, content type, code, reason, words of the message)
    "create with a version": ("POST", WIDGETS, _widget(resourceVersion="5"), "", 500, None, "should not be set on objects"),
    "create in another namespace": ("POST", WIDGETS, _widget(namespace="default"), "", 400, "BadRequest", "does not match the namespace sent"),
    "create without a name": ("POST", CONFIG_MAPS, {"metadata": {}}, "", 422, "Invalid", "name or generateName is required"),
    "create of another kind": ("POST", PODS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}, "", 400, "BadRequest", 'ConfigMap in version "v1" cannot be handled as a Pod'),
    "create without a kind": ("POST", WIDGETS, {"metadata": {"name": "a"}}, "", 400, "BadRequest", "Object 'Kind' is missing"),
    "a label that is a number": ("POST", WIDGETS, _widget(labels={"a": 5}), "", 400, "BadRequest", "cannot be handled as a Widget: json: cannot unmarshal"),
    "a bad label": ("POST", WIDGETS, _widget(labels={"a": "b c"}), "", 422, "Invalid", 'metadata.labels: Invalid value: "b c": a valid label must be an empty string'),
    "an owner without a uid": ("POST", WIDGETS, _widget(ownerReferences=[{"apiVersion": "v1", "kind": "Pod", "name": "p"}]), "", 422, "Invalid", 'metadata.ownerReferences.uid: Invalid value: "": must not be empty'),
    "a bad finalizer": ("POST", CONFIG_MAPS, {"metadata": {"name": "a", "finalizers": ["x"]}}, "", 422, "Invalid", "nor is it fully qualified"),
    "metadata that is a list": ("POST", WIDGETS, widget("one", "NS") | {"metadata": []}, "", 400, "BadRequest", "json: cannot unmarshal"),
    "another content type": ("POST", WIDGETS, _widget(), "text/plain", 415, "UnsupportedMediaType", "the body of the request was in an unknown format"),
    "a patch of the name": ("PATCH", WIDGETS + "/there", {"metadata": {"name": "b"}}, MERGE, 400, "BadRequest", "the name of the object (b) does not match the name on the URL (there)"),
    "a patch of the uid": ("PATCH", WIDGETS + "/there", {"metadata": {"uid": "b"}}, MERGE, 422, "Invalid", 'metadata.uid: Invalid value: "b": field is immutable'),
    "a patch of the deletion time": ("PATCH", WIDGETS + "/there", {"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z"}}, MERGE, 422, "Invalid", "metadata.deletionTimestamp: Invalid value"),
    "a patch of nothing": ("PATCH", WIDGETS + "/absent", {}, MERGE, 404, "NotFound", 'widgets.test.example.com "absent" not found'),
    "a patch that is a list": ("PATCH", WIDGETS + "/there", [], MERGE, 400, "BadRequest", ""),
    "a JSON patch that is an object": ("PATCH", WIDGETS + "/there", {}, JSON_PATCH, 400, "BadRequest", "error decoding patch"),
    "a JSON patch of nothing": ("PATCH", WIDGETS + "/there", [{"op": "remove", "path": "/spec/none"}], JSON_PATCH, 422, "Invalid", "the server rejected our request due to an error in our request"),
    "a JSON patch that does nothing known": ("PATCH", WIDGETS + "/there", [{"op": "no", "path": "/a"}], JSON_PATCH, 422, "Invalid", "the server rejected our request"),
    "a patch without a type": ("PATCH", WIDGETS + "/there", {}, "", 415, "UnsupportedMediaType", ""),
    "a PUT without a name": ("PUT", WIDGETS, _widget(), "", 400, "BadRequest", "name must be provided"),
    "a PUT of what is not there": ("PUT", CONFIG_MAPS + "/a", {"metadata": {"name": "a"}}, "", 404, "NotFound", 'configmaps "a" not found'),
    "a limit that is no number": ("GET", WIDGETS + "?limit=abc", None, "", 400, "BadRequest", "invalid syntax"),
    "a version that is no number": ("GET", WIDGETS + "?resourceVersion=abc", None, "", 400, "BadRequest", "invalid syntax"),
    "a version of the future": ("GET", WIDGETS + "?resourceVersion=99999999", None, "", 504, "Timeout", "Too large resource version: 99999999, current: "),
    "a match without a version": ("GET", WIDGETS + "?resourceVersionMatch=Exact", None, "", 422, "Invalid", "resourceVersionMatch is forbidden unless resourceVersion is provided"),
    "a streamed list that does not match": ("GET", WIDGETS + "?watch=1&sendInitialEvents=true", None, "", 422, "Invalid", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
    "a dry run of a kind unknown": ("POST", WIDGETS + "?dryRun=Some", _widget(), "", 422, "Invalid", 'dryRun: Unsupported value: ["Some"]: supported values: "All"'),
    "a deletion of a kind unknown": ("DELETE", WIDGETS + "/there", {"propagationPolicy": "Sometimes"}, "", 422, "Invalid", 'propagationPolicy: Unsupported value: "Sometimes"'),
    "the end of the default namespace": ("DELETE", "/api/v1/namespaces/default", None, "", 403, "Forbidden", "this namespace may not be deleted"),
    "a pod without containers": ("POST", PODS, {"metadata": {"name": "a"}, "spec": {}}, "", 422, "Invalid", "spec.containers: Required value"),
    "a webhook that lacks everything": ("POST", WEBHOOKS, {"metadata": {"name": "x"}, "webhooks": [{"name": "x"}]}, "", 422, "Invalid", "webhooks[0].clientConfig: Required value: exactly one of url or service is required"),
    "a lease with coarse times": ("POST", LEASES, {"metadata": {"name": "a"}, "spec": {"renewTime": "2026-01-01T00:00:00Z"}}, "", 400, "BadRequest", 'Lease in version "v1" cannot be handled as a Lease: parsing time "2026-01-01T00:00:00Z"'),
    "a resource that is not served": ("GET", "/api/v1/things", None, "", 404, "NotFound", "the server could not find the requested resource"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
async def test_nonsense_is_refused(
    plane: Plane, kube: KubeClient, widgets: Resource, namespace: str, name: str
) -> None:
    method, path, body, content_type, code, reason, words = REFUSALS[name]
    await kube.create(widgets, widget("there", namespace))
    headers = {"Content-Type": content_type or "application/json"}
    text = None if body is None else json.dumps(body).replace('"NS"', json.dumps(namespace))
    status, answer, _ = await request(plane, method, path.format(namespace), body=text, headers=headers)
    told = json.loads(answer)
    assert (status, told["code"], told.get("reason")) == (code, code, reason)
    assert words in told["message"]


async def test_a_pod_keeps_its_spec_but_for_images(plane: Plane, kube: KubeClient, namespace: str) -> None:
    containers = [{"name": "main", "image": "registry.invalid/app:1"}]
    spec = {"containers": containers, "schedulerName": "nobody"}
    body = json.dumps({"metadata": {"name": "a"}, "spec": spec})
    assert (await request(plane, "POST", PODS.format(namespace), body=body))[0] == 201
    path, headers = f"{PODS.format(namespace)}/a", {"Content-Type": "application/strategic-merge-patch+json"}
    image = json.dumps({"spec": {"containers": [{"name": "main", "image": "registry.invalid/app:2"}]}})
    assert (await request(plane, "PATCH", path, body=image, headers=headers))[0] == 200
    status, answer, _ = await request(plane, "PATCH", path, body='{"spec":{"restartPolicy":"Never"}}', headers=headers)
    assert status == 422
    assert "spec: Forbidden: pod updates may not change fields other than" in json.loads(answer)["message"]


async def test_a_lease_is_made_by_a_put(plane: Plane, kube: KubeClient, namespace: str) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/a"
    status, answer, _ = await request(plane, "PUT", path, body='{"metadata": {"name": "a"}, "spec": {}}')
    assert status == 201
    gone = json.loads(answer)["metadata"] | {"name": "b"}
    again = json.dumps({"metadata": {"name": "b", "uid": gone["uid"]}, "spec": {}})
    status, answer, _ = await request(plane, "PUT", path.removesuffix("a") + "b", body=again)
    assert (status, json.loads(answer)["reason"]) == (409, "Conflict")


async def test_a_finalizer_without_a_path_is_warned_of_once(plane: Plane, widgets: Resource, namespace: str) -> None:
    body = widget("one", namespace)
    body["metadata"]["finalizers"] = ["spiderpool.spidernet.io"]
    path = widgets.path(namespace)
    _, _, headers = await request(plane, "POST", path, body=json.dumps(body))
    assert "prefer a domain-qualified finalizer name including a path (/)" in headers["Warning"]
    patch = '{"metadata": {"labels": {"a": "b"}}}'
    _, _, headers = await request(plane, "PATCH", f"{path}/one", body=patch, headers={"Content-Type": MERGE})
    assert "Warning" not in headers
    await request(
        plane, "PATCH", f"{path}/one", body='{"metadata":{"finalizers":null}}', headers={"Content-Type": MERGE}
    )


async def test_a_null_where_none_is_allowed_is_dropped(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    made = await kube.create(widgets, widget("one", namespace, size=None, code=None))
    assert made["spec"] == {"color": "red", "size": 1}


async def test_a_head_request_is_a_get_without_a_body(
    plane: Plane, kube: KubeClient, widgets: Resource, namespace: str
) -> None:
    await kube.create(widgets, widget("one", namespace))
    status, text, _ = await request(plane, "HEAD", widgets.path(namespace, "one"))
    assert (status, text) == (200, "")
