import pytest

from allocator.kube import errors
from allocator.kube.errors import from_response


def status(code: int, reason: str, **more: object) -> dict[str, object]:
    return {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": "no", **more}


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (400, "BadRequest", errors.BadRequest),
        (401, "Unauthorized", errors.BadRequest),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (409, "AlreadyExists", errors.AlreadyExists),
        (409, "Conflict", errors.Conflict),
        (410, "Expired", errors.Gone),
        (410, "Gone", errors.Gone),
        (400, "Expired", errors.Gone),
        (415, "UnsupportedMediaType", errors.BadRequest),
        (422, "Invalid", errors.Invalid),
        (429, "TooManyRequests", errors.TooManyRequests),
        (500, "InternalError", errors.ServerError),
        (503, "ServiceUnavailable", errors.ServerError),
    ],
)
def test_the_status_chooses_the_class(code: int, reason: str, expected: type[errors.ApiError]) -> None:
    error = from_response(code, status(code, reason))
    assert type(error) is expected
    assert (error.status, error.reason, error.message) == (code, reason, "no")


def test_details_are_kept_and_ask_for_the_wait() -> None:
    body = status(429, "TooManyRequests", details={"retryAfterSeconds": 3, "kind": "pods"})
    error = from_response(429, body)
    assert error.details == {"retryAfterSeconds": 3, "kind": "pods"}
    assert error.retry_after == 3.0


def test_the_header_wins_over_the_details() -> None:
    body = status(429, "TooManyRequests", details={"retryAfterSeconds": 3})
    assert from_response(429, body, retry_after=9.0).retry_after == 9.0


def test_a_page_of_a_proxy_is_cut_to_a_line() -> None:
    page = b"<html>\n" + b"<p>Bad gateway</p>\n" * 1000
    error = from_response(502, page)
    assert type(error) is errors.ServerError
    assert error.message.startswith("<html> <p>Bad gateway</p> <p>")
    assert len(error.message) < 320


@pytest.mark.parametrize("body", [None, b"", [], {"kind": "Pod"}, b"\xff\xfe"])
def test_any_body_makes_an_error(body: object) -> None:
    assert type(from_response(503, body)) is errors.ServerError


@pytest.mark.parametrize("body", [None, b"", b"404 page not found\n", b"<html>", {"kind": "Pod"}])
def test_a_page_that_is_not_found_proves_no_object_gone(body: object) -> None:
    error = from_response(404, body)
    assert type(error) is errors.BadRequest
    assert error.status == 404


def test_an_error_reads_as_status_reason_and_message() -> None:
    assert str(from_response(409, status(409, "Conflict"))) == "409 Conflict: no"
    assert str(from_response(502, b"")) == "502 ServerError: no message"
