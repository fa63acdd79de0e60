"""AdmissionReview (admission.k8s.io/v1) as a value: decode the request, encode the answer."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import msgspec

from allocator.domain.errors import FieldError

Object: TypeAlias = dict[str, Any]
Operation: TypeAlias = Literal["CREATE", "UPDATE", "DELETE"]

API_VERSION: Final = "admission.k8s.io/v1"
# The deepest field of our kinds is at 9; managedFields repeats the path of a field, so 64 leaves ample room.
DEPTH_LIMIT: Final = 64
# More than fit into the 1.5 MiB that etcd takes, but for the shortest. 7 MiB of those would cost seconds.
VALUES_LIMIT: Final = 250_000
OPERATIONS: Final[dict[str, Operation]] = {"CREATE": "CREATE", "UPDATE": "UPDATE", "DELETE": "DELETE"}

# FieldError.type in the words of metav1.CauseType, and as Kubernetes begins the message.
CAUSES: Final = {
    "Invalid": ("FieldValueInvalid", "Invalid value"),
    "Required": ("FieldValueRequired", "Required value"),
    "Forbidden": ("FieldValueForbidden", "Forbidden"),
    "NotSupported": ("FieldValueNotSupported", "Unsupported value"),
    "Duplicate": ("FieldValueDuplicate", "Duplicate value"),
    "TooMany": ("FieldValueTooMany", "Too many"),
    "InternalError": ("InternalError", "Internal error"),
}
WITHOUT_VALUE: Final = frozenset({"Required", "Forbidden", "TooMany", "InternalError"})
SHOWN_VALUE_LIMIT: Final = 200
# More than anybody mends at once; an object with thousands would cost the API server megabytes for each try.
SHOWN_PROBLEMS_LIMIT: Final = 100


class BadReviewError(Exception):
    """The body is no review that we can answer; the message says why, for the sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question of the API server. `new` is empty for DELETE, `old` for CREATE."""

    uid: str
    operation: Operation | None
    group: str
    kind: str
    plural: str
    subresource: str
    name: str
    namespace: str
    is_dry_run: bool
    new: Object
    old: Object


@dataclass(frozen=True, slots=True)
class Allowed:
    """`warnings` are shown to the user (kubectl prints them); the API server cuts them at 4,096 characters in all."""

    patch: list[Object] = field(default_factory=list)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Denied:
    """`code` and `reason` as of metav1.Status; `problems` are its causes."""

    code: int
    reason: str
    message: str
    problems: list[FieldError] = field(default_factory=list)
    warnings: tuple[str, ...] = ()


Verdict: TypeAlias = Allowed | Denied


def decode(body: bytes) -> Request:
    """The request in the body. BadReviewError when it is none."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadReviewError(f"the body is no JSON: {error}") from None
    except RecursionError:
        raise BadReviewError(f"the body is nested deeper than {DEPTH_LIMIT} levels") from None
    if not isinstance(document, dict) or document.get("kind") != "AdmissionReview":
        raise BadReviewError("the body is no AdmissionReview")
    if document.get("apiVersion") != API_VERSION:
        raise BadReviewError(f"the review is of another version than {API_VERSION}")
    request = document.get("request")
    if not isinstance(request, dict):
        raise BadReviewError("the review has no request")
    if not isinstance(request.get("uid"), str) or not request["uid"]:
        raise BadReviewError("the request has no uid")
    return _request(request)


def invalid(request: Request, problems: list[FieldError]) -> Denied:
    """A refusal with one cause for each problem, worded as the API server's own validation."""
    if rest := problems[SHOWN_PROBLEMS_LIMIT:]:
        more = FieldError("TooMany", rest[0].field, f"{len(rest)} more problems are not shown")
        problems = [*problems[:SHOWN_PROBLEMS_LIMIT], more]
    shown = [f"{problem.field}: {_cause_text(problem)}" for problem in problems]
    text = shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]"
    kind = f"{request.kind}.{request.group}".removesuffix(".")
    return Denied(422, "Invalid", f'{kind} "{request.name}" is invalid: {text}', problems)


def encode(request: Request, verdict: Verdict) -> bytes:
    return msgspec.json.encode(
        {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": _response(request, verdict)}
    )


def _request(request: Object) -> Request:
    kind, resource = _object(request, "kind"), _object(request, "resource")
    operation = OPERATIONS.get(_text(request, "operation"))
    new, old = _object(request, "object"), _object(request, "oldObject")
    for obj in (new, old):
        _check_size(obj)
    if operation in ("CREATE", "UPDATE") and not new:
        raise BadReviewError(f"the request has no object, which {operation} needs")
    if operation in ("UPDATE", "DELETE") and not old:
        raise BadReviewError(f"the request has no oldObject, which {operation} needs")
    if not isinstance(new.get("metadata", {}), dict):
        raise BadReviewError("metadata of the object is no object")
    # What is stored has a name; a new object may wait for one (generateName).
    if old and not _text(_object(old, "metadata"), "name"):
        raise BadReviewError("the oldObject has no metadata.name")
    return Request(
        uid=request["uid"],
        operation=operation,
        group=_text(kind, "group"),
        kind=_text(kind, "kind"),
        plural=_text(resource, "resource"),
        subresource=_text(request, "subResource"),
        # A new object that is posted, and each one of a collection that is deleted, has its name in itself only.
        name=_text(request, "name") or _text((new or old).get("metadata", {}), "name"),
        namespace=_text(request, "namespace"),
        is_dry_run=request.get("dryRun") is True,
        new=new,
        old=old,
    )


def _response(request: Request, verdict: Verdict) -> Object:
    response: Object = {"uid": request.uid, "allowed": isinstance(verdict, Allowed)}
    if verdict.warnings:
        response["warnings"] = list(verdict.warnings)
    if isinstance(verdict, Denied):
        # The API server's own refusals name the resource where something is forbidden, else the kind.
        kind = request.plural if verdict.reason == "Forbidden" else request.kind
        details: Object = {"group": request.group, "kind": kind, "name": request.name}
        if verdict.problems:
            details["causes"] = [
                {"reason": CAUSES[problem.type][0], "message": _cause_text(problem), "field": problem.field}
                for problem in verdict.problems
            ]
        response["status"] = {
            "status": "Failure",
            "code": verdict.code,
            "reason": verdict.reason,
            "message": verdict.message,
            "details": details,
        }
    elif verdict.patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(msgspec.json.encode(verdict.patch)).decode()
    return response


def _cause_text(problem: FieldError) -> str:
    opening = CAUSES[problem.type][1]
    if problem.type in WITHOUT_VALUE:
        return f"{opening}: {problem.message}"
    value = msgspec.json.encode(problem.value).decode()
    if len(value) > SHOWN_VALUE_LIMIT:
        value = f"{value[:SHOWN_VALUE_LIMIT]}..."
    return f"{opening}: {value}: {problem.message}"


def _check_size(value: Object) -> None:
    """BadReviewError when it is deeper or has more values than any object of ours.

    Without recursion, since the depth is what the sender chose; and before anything else, since it may all be copied.
    """
    level: list[Object | list[Any]] = [value]
    number = 0
    for _ in range(DEPTH_LIMIT):
        number += sum(map(len, level))
        if number > VALUES_LIMIT:
            raise BadReviewError(f"the object has more than {VALUES_LIMIT} values")
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise BadReviewError(f"the object is nested deeper than {DEPTH_LIMIT} levels")


def _object(parent: Object, key: str) -> Object:
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadReviewError(f"{key} of the request is no object")
    return value


def _text(parent: Object, key: str) -> str:
    value = parent.get(key)
    return value if isinstance(value, str) else ""
