"""Hostile reviews for a real process over TLS: it refuses or judges them, and is none the worse for it."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jsonpatch
import pytest
from hypothesis import HealthCheck, given, settings

from tests.plane import hostile
from tests.plane.webhooks import Webhook, running_webhook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.plane import Plane

REFUSALS: Final = (400, 413, 415)
EXAMPLES: Final = 600
# What the allocator may keep of the largest requests; a leak of one review in each request would be more.
GROWTH_LIMIT_KIB: Final = 32 * 1024
JSON: Final = {"Content-Type": "application/json"}
BOUNDED: Final = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


class Sender:
    """One connection, opened anew where the server has closed it."""

    def __init__(self, webhook: Webhook) -> None:
        self.webhook = webhook
        tls = ssl.create_default_context(cadata=webhook.ca_bundle)
        self._connection = http.client.HTTPSConnection("127.0.0.1", webhook.port, context=tls, timeout=20)

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        try:
            self._connection.request("POST", path, body, JSON if headers is None else headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def sender(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sender]:
    with running_webhook(plane.kubeconfig, tmp_path_factory.mktemp("webhook"), "--register", "none") as webhook:
        sender = Sender(webhook)
        deadline = time.monotonic() + 30
        while not is_usable(sender):
            assert time.monotonic() < deadline
        yield sender
        sender.close()
        assert not webhook.lines("request_failed")


def is_usable(sender: Sender) -> bool:
    """Whether a sound review is still answered."""
    for path in hostile.PATHS:
        status, _ = sender.post(path, json.dumps(hostile.OF_KIND[hostile.kind_of(path)][0]).encode())
        if status != 200:
            return False
    return True


def memory_kib(webhook: Webhook) -> int:
    lines = Path(f"/proc/{webhook.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def check(sender: Sender, path: str, body: bytes) -> None:
    status, answer = sender.post(path, body)
    assert sender.webhook.process.poll() is None
    if status == 200:
        check_verdict(json.loads(body), json.loads(answer))
    else:
        assert status in REFUSALS, answer
        text = answer.decode()
        assert "Traceback" not in text
        assert "\n" not in text


def check_verdict(review: dict[str, Any], answer: dict[str, Any]) -> None:
    assert (review["kind"], review["apiVersion"]) == ("AdmissionReview", "admission.k8s.io/v1")
    assert (answer["kind"], answer["apiVersion"]) == ("AdmissionReview", "admission.k8s.io/v1")
    request, response = review["request"], answer["response"]
    assert request["uid"]
    assert response["uid"] == request["uid"]
    assert isinstance(response["allowed"], bool)
    if not response["allowed"]:
        assert 400 <= response["status"]["code"] < 500
        assert response["status"]["message"]
        assert "patch" not in response
    if "patch" in response:
        assert response["patchType"] == "JSONPatch"
        patched = jsonpatch.apply_patch(request["object"], json.loads(base64.b64decode(response["patch"])))
        assert json.loads(json.dumps(patched)) == patched


@settings(BOUNDED, max_examples=EXAMPLES)
@given(exchange=hostile.exchanges())
def test_a_review_with_something_wrong_in_it_is_refused_or_judged(sender: Sender, exchange: tuple[str, bytes]) -> None:
    check(sender, *exchange)


@settings(BOUNDED, max_examples=EXAMPLES)
@given(exchange=hostile.garbage())
def test_bytes_that_may_be_no_review_are_refused_or_judged(sender: Sender, exchange: tuple[str, bytes]) -> None:
    check(sender, *exchange)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json; charset=none"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/vnd.kubernetes.protobuf"},
        {**JSON, "Content-Encoding": "gzip"},
        {**JSON, "Content-Encoding": "br"},
        {**JSON, "Expect": "200-maybe"},
    ],
    ids=str,
)
def test_odd_headers_are_refused_or_ignored(sender: Sender, headers: dict[str, str]) -> None:
    for path in hostile.PATHS:
        body = json.dumps(hostile.OF_KIND[hostile.kind_of(path)][0]).encode()
        sent = gzip.compress(body) if "gzip" in headers.values() else body
        status, answer = sender.post(path, sent, headers)
        if status == 200:
            check_verdict(json.loads(body), json.loads(answer))
        else:
            assert status in (*REFUSALS, 417), answer


def wide(path: str) -> bytes:
    """A review of almost 7 MiB, of the smallest values that JSON has."""
    review = json.loads(json.dumps(hostile.OF_KIND[hostile.kind_of(path)][0]))
    review["request"]["object"]["spec"] = {"ips": [], "wide": 0}
    text = json.dumps(review)
    return text.replace('"wide": 0', '"wide": [' + "{}," * 2_300_000 + "0]").encode()


def test_memory_does_not_grow_with_what_was_sent(sender: Sender) -> None:
    large = [wide(path) for path in hostile.PATHS]

    def send_all() -> None:
        for path, body in zip(hostile.PATHS, large, strict=True):
            sender.post(path, body)
        for path in hostile.PATHS:
            for review in hostile.OF_KIND[hostile.kind_of(path)] * 10:
                sender.post(path, json.dumps(review).encode())

    send_all()
    before = memory_kib(sender.webhook)
    send_all()
    assert memory_kib(sender.webhook) - before < GROWTH_LIMIT_KIB


def test_afterwards_sound_reviews_are_answered_as_before(sender: Sender) -> None:
    assert is_usable(sender)
