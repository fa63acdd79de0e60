"""What the crash tests judge by sees what it is there for."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.crash import books, telltales

BODY = "MHcCAQEEIFnotARealKeyButAsLongAsALineOfOne"
PEM = f"-----BEGIN EC PRIVATE KEY-----\n{BODY}\n-----END EC PRIVATE KEY-----\n"
SECRET = {"data": {"tls.key": base64.b64encode(PEM.encode()).decode(), "tls.crt": "bm8gc2VjcmV0"}}
POD = {"metadata": {"namespace": "shop", "name": "cart", "uid": "u1"}}


@pytest.mark.parametrize(
    "text",
    [PEM, f"read {BODY}", f"{SECRET['data']}", f"key {SECRET['data']['tls.key'][:60]}..."],
    ids=["whole", "line", "secret", "cut off"],
)
def test_a_key_in_a_log_is_seen_in_every_form(text: str) -> None:
    assert telltales.told([("agent", text)], telltales.of_secret(SECRET)) == ["agent tells a secret"]


def test_a_certificate_is_no_secret() -> None:
    text = "-----BEGIN CERTIFICATE-----\nMIIBeDCCAR+gAwIBAgIU\n" + SECRET["data"]["tls.crt"]
    assert telltales.told([("agent", text)], telltales.of_secret(SECRET)) == []


def test_an_endpoint_of_a_living_pod_that_holds_nothing_is_a_problem() -> None:
    status = {"current": {"uid": "u1", "ips": [{"ipv4": "10.0.0.1/24"}]}}
    endpoint = {"metadata": {"namespace": "shop", "name": "cart"}, "status": status}
    found = books.problems(books_of(endpoints=[endpoint], pods={"u1": POD}), {})
    assert found == ["endpoint shop/cart shows ['10.0.0.1'] of pod u1, which holds nothing"]


@pytest.mark.parametrize("state", ["Quarantined", "Conflict"])
def test_an_address_that_the_product_doubts_is_a_problem(state: str) -> None:
    holder = {"podUID": "u1", "interface": "eth0"}
    spec = {"address": "10.0.0.1", "ipVersion": 4, "pool": "p", "state": state, "holder": holder}
    assert books.problems(books_of(records=[{"spec": spec}]), {}) == [f"10.0.0.1 is {state}"]


def books_of(**what: Any) -> books.Books:
    nothing: dict[str, Any] = {
        "records": [],
        "pods": {},
        "endpoints": [],
        "pools": {},
        "stateful_sets": {},
        "machines": frozenset(),
    }
    return books.Books(**{**nothing, **what})
