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
    SPIDER_RESERVED_IPS,
    SPIDER_SUBNETS,
)
from tests.plane.support import is_gone
from tests.plane.test_webhook_admission import register
from tests.plane.webhooks import Webhook, pool, reservation, running_webhook, subnet
from tests.unit.records import NOON, SLOT, a_record, cooling

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane
    from tests.plane.support import Kubectl

FORCE = "ipam.spidernet.io/force-in-use"
POOL = pool("a", subnet="10.20.0.0/16", ips=["10.20.0.10-10.20.0.29"])


@pytest.fixture(scope="module")
def server(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    with running_webhook(plane.kubeconfig, tmp_path_factory.mktemp("webhook"), "--register", "none") as running:
        yield running


@pytest.fixture(autouse=True)
async def admission(server: Webhook, kube: KubeClient) -> None:
    await register(kube, server)


async def hold(kube: KubeClient, *addresses: str, **said: Any) -> None:
    for number, address in enumerate(addresses):
        await kube.create(SPIDER_IP_ADDRESSES, encode_record(a_record(address, pod=f"cart-{number}", **said)))


async def test_an_edit_that_strands_a_holder_is_refused_though_no_status_tells_of_him(kube: KubeClient) -> None:
    await kube.create(SPIDER_IP_POOLS, POOL)
    await hold(kube, "10.20.0.11")
    with pytest.raises(errors.Invalid) as caught:
        await kube.patch(SPIDER_IP_POOLS, "a", {"spec": {"excludeIPs": ["10.20.0.11-10.20.0.12"]}})
    [cause] = caught.value.details["causes"]
    assert (cause["reason"], cause["field"]) == ("FieldValueForbidden", "spec.ips")
    assert "in use: 10.20.0.11 (pod shop/cart-0)" in cause["message"]
    await kube.patch(SPIDER_IP_POOLS, "a", {"spec": {"excludeIPs": ["10.20.0.12"]}})


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


async def test_kubectl_tells_who_keeps_a_pool_from_being_deleted(kube: KubeClient, kubectl: Kubectl) -> None:
    await kube.create(SPIDER_IP_POOLS, POOL)
    await hold(kube, *(f"10.20.0.{last}" for last in range(10, 17)))
    out = await kubectl("delete", "sp", "a", check=False)
    assert 'spiderippools.spiderpool.spidernet.io "a" is forbidden: 7 of its addresses are in use: ' in out
    assert "10.20.0.10 (pod shop/cart-0)" in out
    assert "10.20.0.14 (pod shop/cart-4) and 2 more; delete the pods first" in out
    assert f'{FORCE}: "true"' in out


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


async def test_a_pool_that_nobody_uses_goes(kube: KubeClient) -> None:
    await kube.create(SPIDER_IP_POOLS, POOL)
    await kube.create(SPIDER_IP_ADDRESSES, encode_record(cooling("10.20.0.12", until_s=30)))
    await kube.delete(SPIDER_IP_POOLS, "a")
    await kube.patch(SPIDER_IP_POOLS, "a", {"metadata": {"finalizers": None}})
    assert await is_gone(kube, SPIDER_IP_POOLS, "a")


async def test_the_originals_switch_lets_every_deletion_through(plane: Plane, kube: KubeClient, tmp_path: Path) -> None:
    (tmp_path / "conf.yml").write_text("enableValidatingResourcesDeletedWebhook: false\n")
    await kube.create(SPIDER_IP_POOLS, POOL)
    await hold(kube, "10.20.0.11")
    with running_webhook(
        plane.kubeconfig, tmp_path / "w", "--register", "none", "--config", str(tmp_path / "conf.yml")
    ) as off:
        for kind in ("mutating", "validating"):
            await kube.raw(
                "DELETE", f"/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations/spiderpool-webhook"
            )
        await register(kube, off)
        await kube.delete(SPIDER_IP_POOLS, "a")


async def test_a_subnet_stands_as_long_as_pools_have_addresses_of_it(kube: KubeClient) -> None:
    await kube.create(SPIDER_SUBNETS, subnet("dc1", subnet="10.20.0.0/16", ips=["10.20.0.10-10.20.0.99"]))
    await kube.create(SPIDER_IP_POOLS, POOL)
    with pytest.raises(errors.Forbidden, match="1 SpiderIPPool has addresses of it: a; delete"):
        await kube.delete(SPIDER_SUBNETS, "dc1")
    with pytest.raises(errors.Invalid, match=r'lent to SpiderIPPool "a": 10\.20\.0\.29'):
        await kube.patch(SPIDER_SUBNETS, "dc1", {"spec": {"excludeIPs": ["10.20.0.29-10.20.0.40"]}})
    await kube.patch(SPIDER_SUBNETS, "dc1", {"metadata": {"annotations": {FORCE: "true"}}})
    await kube.delete(SPIDER_SUBNETS, "dc1")


async def test_a_reservation_of_addresses_in_use_is_let_in_and_names_the_holders(
    kube: KubeClient, kubectl: Kubectl
) -> None:
    await kube.create(SPIDER_IP_POOLS, POOL)
    await hold(kube, "10.20.0.11", "10.20.0.12")
    made = reservation("vips", ips=["10.20.0.12-10.20.0.200"])
    out = await kubectl("create", "-f", "-", stdin=str(made).replace("'", '"'))
    assert "Warning: 1 of the addresses is in use, and nothing is taken from a living pod: 10.20.0.12 (pod" in out
    assert await kube.get(SPIDER_RESERVED_IPS, "vips")


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
    assert "Warning: SpiderEndpoints are made from the SpiderIPAddress objects" in edited
    deleted = await kubectl("delete", "se", "cart-0", "-n", namespace)
    assert "Warning: this frees no address, and the SpiderEndpoint comes back: 10.20.0.11 goes" in deleted
