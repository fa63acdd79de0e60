"""The manifests as a user applies them, and what the API server then shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from allocator.kube.resources import SPIDER_IP_POOLS, SPIDER_RESERVED_IPS

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from tests.plane.support import Kubectl

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"


@pytest.mark.parametrize("folder", ["crds", "base"])
async def test_manifests_are_accepted_without_warnings(kubectl: Kubectl, folder: str) -> None:
    await kubectl("apply", "-k", str(MANIFESTS / folder), "--warnings-as-errors")
    again = await kubectl("apply", "-k", str(MANIFESTS / folder), "--warnings-as-errors")
    assert "created" not in again


async def test_samples_are_accepted_and_shown(kubectl: Kubectl, kube: KubeClient) -> None:
    await kubectl("apply", "-k", str(MANIFESTS / "samples"), "--warnings-as-errors")
    await kubectl("apply", "-f", str(MANIFESTS / "samples" / "subnet.yaml"), "--warnings-as-errors")
    assert len((await kube.list(SPIDER_IP_POOLS))["items"]) == 2
    assert len((await kube.list(SPIDER_RESERVED_IPS))["items"]) == 1
    header, row, *_ = (await kubectl("get", "sp", "demo-v4")).splitlines()
    assert header.split() == [
        *("NAME", "VERSION", "SUBNET", "ALLOCATED-IP-COUNT", "TOTAL-IP-COUNT", "DEFAULT", "FREE", "AGE")
    ]
    assert row.split()[:2] == ["demo-v4", "172.30.0.0/16"]
    everything = await kubectl("get", "spiderpool", "-o", "name")
    assert "spidersubnet.spiderpool.spidernet.io/demo-subnet-v4" in everything


async def test_a_field_explains_itself(kubectl: Kubectl) -> None:
    assert 'for example ["10.20.0.10-10.20.0.59"' in " ".join((await kubectl("explain", "sp.spec.ips")).split())
