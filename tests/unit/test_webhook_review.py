"""AdmissionReviews in and out: what is read, what is refused, what the API server gets to see."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from allocator.domain.errors import FieldError
from webhook import review
from webhook.review import Allowed, BadReviewError


def body(**changes: Any) -> dict[str, Any]:
    request = {
        "uid": "u1",
        "kind": {"group": "spiderpool.spidernet.io", "version": "v2beta1", "kind": "SpiderIPPool"},
        "resource": {"group": "spiderpool.spidernet.io", "version": "v2beta1", "resource": "spiderippools"},
        "name": "p",
        "operation": "CREATE",
        "object": {"metadata": {"name": "p"}},
        **changes,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def decoded(**changes: Any) -> review.Request:
    return review.decode(json.dumps(body(**changes)).encode())


ODD_METADATA: list[Any] = [None, [], 7, {}, {"name": 7}]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def test_a_request_is_read() -> None:
    request = decoded(dryRun=True, subResource="status", namespace="n")
    assert (request.uid, request.operation, request.kind, request.name) == ("u1", "CREATE", "SpiderIPPool", "p")
    assert (request.is_dry_run, request.subresource, request.namespace) == (True, "status", "n")
    assert request.old == {}


def test_a_delete_has_only_the_old_object() -> None:
    request = decoded(operation="DELETE", object=None, oldObject={"metadata": {"name": "p"}})
    assert (request.operation, request.new, request.old) == ("DELETE", {}, {"metadata": {"name": "p"}})


def test_what_is_deleted_with_a_collection_has_its_own_name() -> None:
    assert decoded(operation="DELETE", name="", object=None, oldObject={"metadata": {"name": "p"}}).name == "p"


def test_an_operation_that_is_not_ours_is_no_mistake() -> None:
    assert decoded(operation="CONNECT", object=None).operation is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "no JSON", id="empty"),
        pytest.param(b"{", "no JSON", id="cut off"),
        pytest.param(b"\xff\xfe", "no JSON", id="no text"),
        pytest.param(b"[]", "no AdmissionReview", id="list"),
        pytest.param(b"{}", "no AdmissionReview", id="another object"),
        pytest.param(b"[" * 100_000, "nested|JSON", id="deep"),
        pytest.param(json.dumps(body() | {"apiVersion": "admission.k8s.io/v1beta1"}).encode(), "version", id="v1beta1"),
        pytest.param(json.dumps(body() | {"request": None}).encode(), "no request", id="no request"),
        pytest.param(json.dumps(body(uid="")).encode(), "no uid", id="no uid"),
        pytest.param(json.dumps(body(uid=7)).encode(), "no uid", id="uid is a number"),
        pytest.param(json.dumps(body(object=None)).encode(), "no object", id="create without object"),
        pytest.param(json.dumps(body(operation="UPDATE")).encode(), "no oldObject", id="update without oldObject"),
        pytest.param(json.dumps(body(operation="DELETE")).encode(), "no oldObject", id="delete without oldObject"),
        pytest.param(json.dumps(body(object=[])).encode(), "object of the request", id="object is a list"),
        pytest.param(json.dumps(body(kind="x")).encode(), "kind of the request", id="kind is a text"),
        pytest.param(json.dumps(body(object=nested(65))).encode(), "deeper than 64", id="object too deep"),
        pytest.param(
            json.dumps(body(object={"metadata": []})).encode(), "metadata of the object", id="metadata a list"
        ),
        *(
            pytest.param(
                json.dumps(
                    body(operation="DELETE", object=None, oldObject={"metadata": metadata, "spec": {}})
                ).encode(),
                "metadata",
                id=f"metadata of the old object: {metadata}",
            )
            for metadata in ODD_METADATA
        ),
    ],
)
def test_what_is_no_review_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(BadReviewError, match=words):
        review.decode(content)


def test_an_object_of_64_levels_is_read() -> None:
    assert decoded(object=nested(64)).new


def test_an_answer_repeats_the_uid_and_carries_the_patch() -> None:
    patch = [{"op": "add", "path": "/a", "value": 1}]
    answer = json.loads(review.encode(decoded(), Allowed(patch)))
    assert answer["apiVersion"] == "admission.k8s.io/v1"
    response = answer["response"]
    assert (response["uid"], response["allowed"], response["patchType"]) == ("u1", True, "JSONPatch")
    assert json.loads(base64.b64decode(response["patch"])) == patch


def test_an_answer_without_changes_has_no_patch() -> None:
    assert json.loads(review.encode(decoded(), Allowed()))["response"] == {"uid": "u1", "allowed": True}


def test_a_refusal_has_one_cause_for_each_problem() -> None:
    problems = [
        FieldError("Invalid", "spec.ips[0]", 'is reversed: write "1-9"', "9-1"),
        FieldError("Required", "spec.subnet", "write it"),
        FieldError("Forbidden", "spec.ipVersion", "is immutable"),
        FieldError("NotSupported", "spec.ipVersion", "supported: 4, 6", 5),
        FieldError("Duplicate", "spec.routes[1].dst", "keep one", "d"),
    ]
    request = decoded()
    status = json.loads(review.encode(request, review.invalid(request, problems)))["response"]["status"]
    assert (status["code"], status["reason"], status["status"]) == (422, "Invalid", "Failure")
    assert status["message"].startswith('SpiderIPPool.spiderpool.spidernet.io "p" is invalid: [spec.ips[0]: Invalid')
    assert status["details"] == {
        "group": "spiderpool.spidernet.io",
        "kind": "SpiderIPPool",
        "name": "p",
        "causes": [
            {
                "reason": "FieldValueInvalid",
                "message": 'Invalid value: "9-1": is reversed: write "1-9"',
                "field": "spec.ips[0]",
            },
            {"reason": "FieldValueRequired", "message": "Required value: write it", "field": "spec.subnet"},
            {"reason": "FieldValueForbidden", "message": "Forbidden: is immutable", "field": "spec.ipVersion"},
            {
                "reason": "FieldValueNotSupported",
                "message": "Unsupported value: 5: supported: 4, 6",
                "field": "spec.ipVersion",
            },
            {
                "reason": "FieldValueDuplicate",
                "message": 'Duplicate value: "d": keep one',
                "field": "spec.routes[1].dst",
            },
        ],
    }


def test_of_thousands_of_problems_some_are_shown() -> None:
    request = decoded()
    problems = [FieldError("Invalid", f"spec.ips[{n}]", "is wrong", "x") for n in range(4096)]
    denied = review.invalid(request, problems)
    assert [problem.field for problem in denied.problems] == [f"spec.ips[{n}]" for n in range(101)]
    assert denied.message.endswith("spec.ips[100]: Too many: 3996 more problems are not shown]")


def test_a_long_value_is_shown_in_part() -> None:
    request = decoded()
    denied = review.invalid(request, [FieldError("Invalid", "spec.subnet", "is wrong", "x" * 10_000)])
    assert len(denied.message) < 400
