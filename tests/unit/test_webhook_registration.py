"""What is registered with the API server, field by field."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from allocator.kube.resources import MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS
from allocator.runtime.clock import SystemClock
from tests.unit.scripted_server import connected
from webhook import registration
from webhook.entries import Registration, ServiceTarget, UrlTarget
from webhook.registration import Registrar

if TYPE_CHECKING:
    from pathlib import Path

URL = Registration(target=UrlTarget("https://127.0.0.1:5722"), namespace="spiderpool", has_subnets=True)
SERVICE = Registration(target=ServiceTarget("spiderpool"), namespace="spiderpool", has_subnets=False)


def names(registration: Registration, *, mutating: bool) -> list[str]:
    resource = MUTATING_WEBHOOKS if mutating else VALIDATING_WEBHOOKS
    return [webhook["name"] for webhook in registration.webhooks(resource, "")]


def test_the_entries_have_the_names_of_the_original() -> None:
    own = [f"{kind}.spiderpool.spidernet.io" for kind in ("spidersubnet", "spiderippool", "spiderreservedip")]
    assert names(URL, mutating=True) == [*own, "pods.spiderpool.spidernet.io"]
    assert names(URL, mutating=False) == [*own, "spiderendpoint.spiderpool.spidernet.io"]


def test_subnets_are_left_out_when_the_feature_is_off() -> None:
    assert not any("subnet" in name for name in names(SERVICE, mutating=True) + names(SERVICE, mutating=False))


@pytest.mark.parametrize("resource", [MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS], ids=["mutating", "validating"])
def test_every_entry_is_bounded_and_free_of_side_effects(resource: object) -> None:
    for webhook in URL.webhooks(resource, "ca"):  # type: ignore[arg-type]  # parametrized values are objects
        assert webhook["sideEffects"] == "None"
        assert webhook["timeoutSeconds"] == (1 if webhook["name"].startswith("pods") else 2)
        assert webhook["admissionReviewVersions"] == ["v1"]
        assert webhook["clientConfig"]["caBundle"] == "Y2E="
        is_without = webhook["name"].startswith(("spiderendpoint", "pods"))
        assert webhook["failurePolicy"] == ("Ignore" if is_without else "Fail")


def test_pods_are_asked_about_where_they_ask_for_addresses_and_are_not_ours() -> None:
    *_, pods = URL.webhooks(MUTATING_WEBHOOKS, "")
    assert pods["clientConfig"]["url"] == "https://127.0.0.1:5722/mutate--v1-pod"
    assert pods["rules"][0]["resources"] == ["pods"]
    assert pods["rules"][0]["operations"] == ["CREATE"]
    assert pods["namespaceSelector"]["matchExpressions"] == [
        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "spiderpool"]}
    ]
    assert [condition["name"] for condition in pods["matchConditions"]] == ["asks-for-addresses", "no-mirror-pod"]


def test_deletion_is_asked_of_the_validating_side() -> None:
    asked = {
        webhook["name"].split(".")[0]: webhook["rules"][0]["operations"]
        for webhook in URL.webhooks(VALIDATING_WEBHOOKS, "")
    }
    both, three = ["CREATE", "UPDATE"], ["CREATE", "UPDATE", "DELETE"]
    assert asked == {"spidersubnet": three, "spiderippool": three, "spiderreservedip": both, "spiderendpoint": three}


def test_the_validating_side_is_not_asked_again_what_the_mutating_side_has_judged() -> None:
    conditions = {
        webhook["name"].split(".")[0]: [each["name"] for each in webhook["matchConditions"]]
        for webhook in URL.webhooks(VALIDATING_WEBHOOKS, "")
    }
    both = ["not-our-own", "spec-changes"]
    assert conditions == {
        "spidersubnet": [*both, "not-judged-yet"],
        "spiderippool": [*both, "not-judged-yet"],
        "spiderreservedip": both,
        "spiderendpoint": ["not-our-own", "status-changes", "not-collected"],
    }


def test_only_the_plain_resource_is_matched() -> None:
    [pool] = [w for w in URL.webhooks(MUTATING_WEBHOOKS, "") if w["name"].startswith("spiderippool")]
    assert pool["rules"] == [
        {
            "apiGroups": ["spiderpool.spidernet.io"],
            "apiVersions": ["v2beta1"],
            "resources": ["spiderippools"],
            "operations": ["CREATE", "UPDATE"],
            "scope": "*",
        }
    ]


def test_a_url_and_a_service_lead_to_the_same_path() -> None:
    path = "/validate-spiderpool-spidernet-io-v2beta1-spiderippool"
    by_url, by_service = (
        next(w for w in registration.webhooks(VALIDATING_WEBHOOKS, "") if w["name"].startswith("spiderippool"))
        for registration in (URL, SERVICE)
    )
    assert by_url["clientConfig"]["url"] == f"https://127.0.0.1:5722{path}"
    assert by_service["clientConfig"]["service"] == {
        "namespace": "spiderpool",
        "name": "spiderpool-webhook",
        "path": path,
        "port": 443,
    }


async def test_a_stop_does_not_wait_for_an_api_server_that_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "REMOVAL_S", 0.2)
    async with connected(tmp_path, timeout_s=10) as (server, client):
        registrar = Registrar(client, URL, ca_bundle=lambda: "", clock=SystemClock())
        async with asyncio.TaskGroup() as group:
            task = group.create_task(registrar.run())
            async with asyncio.timeout(5):
                while not server.asked:  # noqa: ASYNC110 - the server tells nobody
                    await asyncio.sleep(0.01)
            began = time.monotonic()
            task.cancel()
        assert time.monotonic() - began < 2
        # It has asked for what it would have removed.
        assert len(server.asked) == 2
