"""What is in use: edits and deletions that would strand somebody, seen by live reads, and how they are forced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from allocator.domain.record import State
from allocator.kube import errors
from allocator.kube.codec import encode_record
from allocator.kube.resources import (
    SPIDER_ENDPOINTS,
    SPIDER_IP_ADDRESSES,
    SPIDER_IP_POOLS,
)
from tests.plane.webhooks import pool
from tests.unit.records import NOON, SLOT, a_record, cooling

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from tests.plane.support import Kubectl

FORCE = "ipam.spidernet.io/force-in-use"
POOL = pool("a", subnet="10.20.0.0/16", ips=["10.20.0.10-10.20.0.29"])
pytestmark = pytest.mark.usefixtures("admission")


async def hold(kube: KubeClient, *addresses: str, **said: Any) -> None:
    for number, address in enumerate(addresses):
        await kube.create(SPIDER_IP_ADDRESSES, encode_record(a_record(address, pod=f"cart-{number}", **said)))


@pytest.mark.parametrize(
    "said",
    [{"state": State.RETAINED, "slot": SLOT}, {"state": State.QUARANTINED, "until": NOON}, {"state": State.CONFLICT}],
    ids=lambda said: said["state"],
)
async def test_every_state_but_cooling_is_use(kube: KubeClient, said: dict[str, Any]) -> None:
    await kube.create(SPIDER_IP_POOLS, POOL)
    await hold(kube, "10.20.0.11", **said)
    await kube.create(SPIDER_IP_ADDRESSES, encode_record(cooling("10.20.0.12", until_s=30)))
    with pytest.raises(errors.Invalid, match=r"in use: 10\.20\.0\.11 \("):
        await kube.patch(SPIDER_IP_POOLS, "a", {"spec": {"ips": []}})
    await kube.patch(SPIDER_IP_POOLS, "a", {"spec": {"ips": ["10.20.0.11"]}})


async def test_the_annotation_forces_edits_and_deletion_and_says_so(kube: KubeClient, kubectl: Kubectl) -> None:
    await kube.create(SPIDER_IP_POOLS, POOL)
    await hold(kube, "10.20.0.11")
    await kubectl("annotate", "sp", "a", f"{FORCE}=true")
    edited = await kubectl("patch", "sp", "a", "--type=merge", "-p", '{"spec":{"ips":["10.20.0.20"]}}')
    assert "Warning: forced by the annotation ipam.spidernet.io/force-in-use" in edited
    deleted = await kubectl("delete", "sp", "a", "--wait=false")
    assert "Warning: forced by the annotation" in deleted
    # The address is still its pod's, so the controller's finalizer keeps the pool.
    assert (await kube.get(SPIDER_IP_POOLS, "a"))["metadata"]["deletionTimestamp"]


async def test_another_value_than_true_forces_nothing_and_is_hinted_at(kube: KubeClient, kubectl: Kubectl) -> None:
    await kube.create(SPIDER_IP_POOLS, POOL)
    await hold(kube, "10.20.0.11")
    await kubectl("annotate", "sp", "a", f"{FORCE}=yes")
    for command in (("delete", "sp", "a"), ("patch", "sp", "a", "--type=merge", "-p", '{"spec":{"ips":[]}}')):
        out = await kubectl(*command, check=False)
        assert "in use" in out
        assert f'Warning: the annotation {FORCE} counts only with the value "true"' in out


async def test_an_endpoint_edited_or_deleted_by_hand_gets_a_warning(
    kube: KubeClient, kubectl: Kubectl, namespace: str
) -> None:
    await hold(kube, "10.20.0.11")
    await kube.create(
        SPIDER_ENDPOINTS,
        {
            "apiVersion": "spiderpool.spidernet.io/v2beta1",
            "kind": "SpiderEndpoint",
            "metadata": {"name": "cart-0", "namespace": namespace},
            "status": {
                "ownerControllerType": "Pod",
                "ownerControllerName": "cart-0",
                "current": {"uid": "uid-1", "node": "n", "ips": [{"interface": "eth0", "ipv4": "10.20.0.11/16"}]},
            },
        },
    )
    patch = '{"status":{"ownerControllerName":"other"}}'
    edited = await kubectl("patch", "se", "cart-0", "-n", namespace, "--type=merge", "-p", patch)
    assert "Warning: a SpiderEndpoint only shows what the SpiderIPAddress objects say" in edited
    deleted = await kubectl("delete", "se", "cart-0", "-n", namespace)
    assert "Warning: this frees no address, it only hides them: the pod has 10.20.0.11 until it ends" in deleted
