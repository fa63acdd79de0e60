"""Custom resources: schemas, what is unknown, and what a definition brings and takes away."""

import copy
import json
from typing import Any

import pytest

from allocator.kube import resources
from allocator.kube.client import KubeClient
from allocator.kube.errors import ApiError, BadRequest, Invalid
from allocator.kube.resources import Resource
from devcluster.plane import Plane
from tests.plane.support import WIDGET_DEFINITION, eventually, install_crd, is_gone, request, widget


async def test_unknown_fields_are_dropped_and_defaults_set(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    body = widget("one", namespace, parts=[{"name": "p", "wight": 1}], colour="red", match={"any": "thing"})
    made = await kube.create(widgets, body | {"extra": 1})
    assert made["spec"] == {
        "color": "red",
        "size": 1,
        "parts": [{"name": "p", "weight": 7}],
        "match": {"any": "thing"},
    }
    assert "extra" not in made


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param({"color": None}, "spec.color: Required value", id="required"),
        pytest.param(
            {"tags": "x"},
            'spec.tags: Invalid value: "string": spec.tags in body must be of type array: "string"',
            id="type of a list",
        ),
        pytest.param(
            {"parts": [{"name": 5}]},
            'spec.parts[0].name: Invalid value: "integer": '
            'spec.parts[0].name in body must be of type string: "integer"',
            id="type inside a list",
        ),
        pytest.param(
            {"color": "blue"},
            'spec.color: Unsupported value: "blue": supported values: "red", "green"',
            id="enum of strings",
        ),
        pytest.param(
            {"level": 5}, 'spec.level: Unsupported value: 5: supported values: "4", "6"', id="enum of numbers"
        ),
        pytest.param(
            {"size": 10},
            "spec.size: Invalid value: 10: spec.size in body should be less than or equal to 9",
            id="maximum",
        ),
        pytest.param(
            {"depth": -1},
            "spec.depth: Invalid value: -1: spec.depth in body should be greater than or equal to 0",
            id="minimum",
        ),
        pytest.param(
            {"code": "A"},
            "spec.code: Invalid value: \"A\": spec.code in body should match '^[a-z]+$'",
            id="pattern",
        ),
        pytest.param(
            {"code": "abcdef"},
            "spec.code: Too long: may not be more than 5 bytes",
            id="maximal length",
        ),
        pytest.param(
            {"tags": ["a", "b", "c"]},
            "spec.tags: Too many: 3: must have at most 2 items",
            id="maximal items",
        ),
        pytest.param(
            {"port": True},
            'spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"',
            id="number or string",
        ),
    ],
)
async def test_a_breach_of_the_schema_is_told_with_its_field(
    kube: KubeClient, widgets: Resource, namespace: str, spec: dict[str, Any], message: str
) -> None:
    body = widget("one", namespace, **spec)
    body["spec"] = {key: value for key, value in body["spec"].items() if value is not None}
    with pytest.raises(Invalid) as refused:
        await kube.create(widgets, body)
    assert refused.value.message == f'Widget.test.example.com "one" is invalid: {message}'
    (cause,) = refused.value.details["causes"]
    assert f"{cause['field']}: {cause['message']}" == message


async def test_all_breaches_are_told_at_once(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    with pytest.raises(Invalid) as refused:
        await kube.create(widgets, widget("one", namespace, color="blue", size=10))
    assert {cause["field"] for cause in refused.value.details["causes"]} == {"spec.color", "spec.size"}


async def test_strict_validation_refuses_unknown_and_repeated_fields(
    plane: Plane, widgets: Resource, namespace: str
) -> None:
    body = json.dumps(widget("one", namespace, colour="red", parts=[{"name": "p", "wight": 1}]))
    body = body.replace('"color": "red"', '"color": "red", "color": "green"')
    status, text, _ = await request(
        plane, "POST", widgets.path(namespace), params={"fieldValidation": "Strict"}, body=body
    )
    assert status == 400
    answer = json.loads(text)
    assert answer["reason"] == "BadRequest"
    assert answer["message"] == (
        'Widget in version "v1" cannot be handled as a Widget: strict decoding error: duplicate field "spec.color", '
        'unknown field "spec.colour", unknown field "spec.parts[0].wight"'
    )


async def test_lenient_validation_warns(plane: Plane, widgets: Resource, namespace: str) -> None:
    body = json.dumps(widget("one", namespace, colour="red"))
    status, _, headers = await request(
        plane, "POST", widgets.path(namespace), params={"fieldValidation": "Warn"}, body=body
    )
    assert status == 201
    assert headers["Warning"] == '299 - "unknown field \\"spec.colour\\""'


async def test_a_wrong_field_validation_is_refused(plane: Plane, widgets: Resource, namespace: str) -> None:
    status, _, _ = await request(
        plane, "POST", widgets.path(namespace), params={"fieldValidation": "Sometimes"}, body="{}"
    )
    assert status == 422


@pytest.mark.parametrize("body", ["[]", "{", '{"apiVersion": "v1", "kind": "ConfigMap"}', ""])
async def test_a_body_that_is_no_widget_is_refused(plane: Plane, widgets: Resource, namespace: str, body: str) -> None:
    status, text, _ = await request(plane, "POST", widgets.path(namespace), body=body)
    assert (status, json.loads(text)["reason"]) == (400, "BadRequest")


async def test_a_definition_needs_its_own_name(kube: KubeClient) -> None:
    wrong = copy.deepcopy(WIDGET_DEFINITION)
    wrong["metadata"]["name"] = "things.test.example.com"
    with pytest.raises(Invalid) as refused:
        await kube.create(resources.CRDS, wrong)
    assert 'must be spec.names.plural+"."+spec.group' in refused.value.message
    assert "metadata.name" in {cause["field"] for cause in refused.value.details["causes"]}


async def test_a_definition_needs_a_structural_schema(kube: KubeClient) -> None:
    wrong = copy.deepcopy(WIDGET_DEFINITION)
    spec = wrong["spec"]
    spec["names"] = {"plural": "gadgets", "kind": "Gadget"}
    wrong["metadata"]["name"] = "gadgets.test.example.com"
    del spec["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["type"]
    with pytest.raises(Invalid, match=r"spec.*openAPIV3Schema\.properties\[spec\]\.type: Required value"):
        await kube.create(resources.CRDS, wrong)


async def test_a_deleted_definition_takes_its_objects_along(kube: KubeClient, namespace: str) -> None:
    definition = copy.deepcopy(WIDGET_DEFINITION)
    definition["metadata"]["name"] = "gizmos.test.example.com"
    definition["spec"]["names"] = {"plural": "gizmos", "kind": "Gizmo"}
    gizmos = Resource("test.example.com", "v1", "gizmos", "Gizmo", namespaced=True)
    await install_crd(kube, definition)
    made = await kube.create(gizmos, widget("one", namespace) | {"kind": "Gizmo"})
    assert made["kind"] == "Gizmo"
    await kube.delete(resources.CRDS, "gizmos.test.example.com")

    async def gone() -> bool:
        return await is_gone(kube, resources.CRDS, "gizmos.test.example.com")

    await eventually(gone, within_s=30)
    # No metav1.Status but a bare page where the whole group has gone with its last definition.
    with pytest.raises(ApiError) as refusal:
        await kube.list(gizmos, namespace=namespace)
    assert refusal.value.status == 404


async def test_a_definition_of_another_kind_in_the_body_is_refused(
    kube: KubeClient, widgets: Resource, namespace: str
) -> None:
    with pytest.raises(Invalid, match='kind: Invalid value: "Gizmo": must be Widget'):
        await kube.create(widgets, widget("one", namespace) | {"kind": "Gizmo"})
    with pytest.raises(BadRequest, match="API version in the data"):
        await kube.create(widgets, widget("one", namespace) | {"apiVersion": "test.example.com/v2"})
