"""What the API server answers when it will not do as asked: the `Status` object of Kubernetes, as an exception.

Codes, reasons and wording follow kube-apiserver, because clients decide by the reason and people read the message.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Object = dict[str, Any]


class Named(Protocol):
    """As much of a resource type as a message needs."""

    @property
    def group(self) -> str: ...
    @property
    def plural(self) -> str: ...
    @property
    def kind(self) -> str: ...


class Problem(Exception):
    def __init__(
        self, code: int, reason: str, message: str, *, details: Object | None = None, metadata: Object | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.metadata = metadata

    def status(self) -> Object:
        status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata or {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            status["details"] = self.details
        if not self.reason:
            del status["reason"]
        return status


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One cause of an Invalid answer. `text` stands behind the path: 'Required value', 'Invalid value: …'."""

    reason: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def required(path: str, hint: str = "") -> FieldProblem:
    return FieldProblem("FieldValueRequired", path, f"Required value: {hint}" if hint else "Required value")


def invalid_value(path: str, value: str, why: str) -> FieldProblem:
    """`value` as Go prints it: a string in quotes, anything else as JSON."""
    return FieldProblem("FieldValueInvalid", path, f"Invalid value: {value}: {why}")


def forbidden_field(path: str, why: str) -> FieldProblem:
    return FieldProblem("FieldValueForbidden", path, f"Forbidden: {why}")


def full_name(rt: Named) -> str:
    return f"{rt.plural}.{rt.group}" if rt.group else rt.plural


def _details(rt: Named, name: str, **more: Any) -> Object:
    details: Object = {"name": name, "group": rt.group, "kind": rt.plural}
    return {key: value for key, value in details.items() if value} | more


def not_found(rt: Named, name: str) -> Problem:
    return Problem(404, "NotFound", f'{full_name(rt)} "{name}" not found', details=_details(rt, name))


def already_exists(rt: Named, name: str) -> Problem:
    return Problem(409, "AlreadyExists", f'{full_name(rt)} "{name}" already exists', details=_details(rt, name))


def conflict(rt: Named, name: str, why: str = "") -> Problem:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {full_name(rt)} "{name}": {why}'
    return Problem(409, "Conflict", message, details=_details(rt, name))


def failed_precondition(rt: Named, name: str, why: str) -> Problem:
    """A delete that means another object; kube-apiserver names the kind here, not the resource."""
    kind = f"{rt.kind}.{rt.group}" if rt.group else rt.kind
    message = f'Operation cannot be fulfilled on {kind} "{name}": {why}'
    return Problem(409, "Conflict", message, details=_details(rt, name) | {"kind": rt.kind})


def forbidden(rt: Named, name: str, why: str, *, causes: Sequence[Object] = ()) -> Problem:
    details = _details(rt, name) | ({"causes": list(causes)} if causes else {})
    return Problem(403, "Forbidden", f'{full_name(rt)} "{name}" is forbidden: {why}', details=details)


def invalid(rt: Named, name: str, causes: Iterable[FieldProblem]) -> Problem:
    causes = list(causes)
    texts = list(dict.fromkeys(str(cause) for cause in causes))
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    kind = f"{rt.kind}.{rt.group}" if rt.group else rt.kind
    details = _details(rt, name, kind=rt.kind)
    details["causes"] = [{"reason": c.reason, "message": c.text, "field": c.path} for c in causes]
    return Problem(422, "Invalid", f'{kind} "{name}" is invalid: {joined}', details=details)


def undecodable(rt: Named, version: str, given: str, why: str) -> Problem:
    return bad_request(f'{given} in version "{version}" cannot be handled as a {rt.kind}: {why}')


def unreadable_patch(why: str) -> Problem:
    """What a patch would make of the object is none. kube-apiserver names no kind here."""
    text = f"Invalid value: {why}"
    cause = {"reason": "FieldValueInvalid", "message": text, "field": "patch"}
    return Problem(422, "Invalid", f' "" is invalid: patch: {text}', details={"causes": [cause]})


def bad_request(message: str) -> Problem:
    return Problem(400, "BadRequest", message)


def method_not_allowed() -> Problem:
    return Problem(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def not_acceptable(offered: str) -> Problem:
    message = f"only the following media types are accepted: {offered}"
    return Problem(406, "NotAcceptable", message)


def unsupported_media_type(offered: str, hint: str = "") -> Problem:
    message = f"the body of the request was in an unknown format - accepted media types include: {offered}"
    return Problem(415, "UnsupportedMediaType", message + (f" ({hint})" if hint else ""))


def too_large() -> Problem:
    return Problem(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728")


def expired(requested: int, oldest: int) -> Problem:
    return Problem(410, "Expired", f"too old resource version: {requested} ({oldest})")


def too_new(requested: int, current: int) -> Problem:
    message = f"Timeout: Too large resource version: {requested}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return Problem(504, "Timeout", message, details={"causes": [cause], "retryAfterSeconds": 1})


def unauthorized() -> Problem:
    return Problem(401, "Unauthorized", "Unauthorized")


def internal(message: str) -> Problem:
    return Problem(
        500, "InternalError", f"Internal error occurred: {message}", details={"causes": [{"message": message}]}
    )


def success(rt: Named, name: str, uid: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": _details(rt, name, uid=uid),
    }
