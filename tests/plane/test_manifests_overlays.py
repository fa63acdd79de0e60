"""What `kubectl apply -k` of an overlay would write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from certs.store import SECRET_NAME
from webhook.entries import NAME

if TYPE_CHECKING:
    from tests.plane.support import Kubectl

OVERLAYS = Path(__file__).resolve().parents[2] / "manifests" / "overlays"


@pytest.fixture
async def written(kubectl: Kubectl) -> dict[tuple[str, str], dict[str, Any]]:
    text = await kubectl("kustomize", str(OVERLAYS / "cert-manager"))
    return {(obj["kind"], obj["metadata"]["name"]): obj for obj in yaml.safe_load_all(text)}


def hours(duration: str) -> int:
    found = re.fullmatch(r"([0-9]+)h", duration)
    assert found
    return int(found[1])


async def test_cert_manager_writes_the_secret_that_the_webhook_reads(
    written: dict[tuple[str, str], dict[str, Any]],
) -> None:
    certificate = written["Certificate", NAME]
    namespace = written["Namespace", "spiderpool"]["metadata"]["name"]
    spec = certificate["spec"]
    assert (certificate["metadata"]["namespace"], spec["secretName"]) == (namespace, SECRET_NAME)
    # The name by which an API server calls a Service.
    assert f"{NAME}.{namespace}.svc" in spec["dnsNames"]
    assert "server auth" in spec["usages"]


async def test_certificates_of_cert_manager_live_as_long_as_our_own(
    written: dict[tuple[str, str], dict[str, Any]],
) -> None:
    leaf, ca = (written["Certificate", name]["spec"] for name in (NAME, f"{NAME}-ca"))
    for spec, days in ((leaf, 90), (ca, 365)):
        assert (spec["privateKey"]["algorithm"], spec["privateKey"]["size"]) == ("ECDSA", 256)
        assert hours(spec["duration"]) == 24 * days
        assert hours(spec["renewBefore"]) * 3 == hours(spec["duration"])
    assert hours(ca["renewBefore"]) > hours(leaf["duration"])


async def test_a_chain_of_issuers_leads_from_a_self_signed_root(
    written: dict[tuple[str, str], dict[str, Any]],
) -> None:
    leaf, ca = (written["Certificate", name]["spec"] for name in (NAME, f"{NAME}-ca"))
    assert ca["isCA"] is True
    assert written["Issuer", leaf["issuerRef"]["name"]]["spec"] == {"ca": {"secretName": ca["secretName"]}}
    assert written["Issuer", ca["issuerRef"]["name"]]["spec"] == {"selfSigned": {}}


async def test_the_webhook_may_read_that_secret_and_write_none(
    written: dict[tuple[str, str], dict[str, Any]],
) -> None:
    assert written["Role", NAME]["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [SECRET_NAME], "verbs": ["get"]}
    ]
