"""Labels that people edit, twins, the original's records, reservations: nobody loses an address by them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from allocator.kube.resources import (
    DEPLOYMENTS,
    SPIDER_IP_POOLS,
    SPIDER_RESERVED_IPS,
    SPIDER_SUBNETS,
    VALIDATING_WEBHOOKS,
)
from devcluster.services import free_port
from devcluster.waiting import until
from tests.plane.agents import make_node, make_pod, make_pool
from tests.plane.controllers import API, make_record, running_controller, until_gone
from tests.plane.subnets import (
    PREFIX,
    WITHIN_S,
    accounts,
    asks,
    config_with,
    make_deployment,
    make_subnet,
    pool_named,
    pools_of,
    scale,
    until_condition,
    until_event,
    until_pool,
    until_unserved,
)

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.plane.controllers import Controller


async def test_a_pool_whose_label_somebody_edits_keeps_its_addresses_while_pods_use_them(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    await make_subnet(kube, "odd81", "10.81.2.1-10.81.2.6")
    cart = await make_deployment(kube, namespace, "cart", asks("odd81", number="2"), replicas=2)
    pool = await until_pool(kube, cart, "10.81.2.1-10.81.2.2")
    name = pool["metadata"]["name"]
    await make_node(kube, "node-1")
    pod = await make_pod(kube, namespace, "pod-1", "node-1")
    await make_record(kube, "10.81.2.1", name, namespace, "pod-1", pod["metadata"]["uid"])
    label = {"metadata": {"labels": {PREFIX + "owner-spider-subnet": "typo"}}}
    await kube.patch(SPIDER_IP_POOLS, name, label)
    other = await make_deployment(kube, namespace, "other", asks("odd81", number="2"), replicas=2)

    async def served() -> bool:
        pools = await pools_of(kube, other)
        return bool(pools) and all(raw["spec"]["ips"] for raw in pools)

    await until(served, within_s=WITHIN_S, what="the other application to have its pool")
    (second,) = await pools_of(kube, other)
    assert not {"10.81.2.1-10.81.2.2", "10.81.2.1", "10.81.2.2"} & set(second["spec"]["ips"])
    edited = await pool_named(kube, name)
    assert edited is not None
    assert "deletionTimestamp" not in edited["metadata"]
    assert (await accounts(kube, "odd81"))[0][name]["ips"] == ["10.81.2.1-10.81.2.2"]


async def test_of_two_subnets_of_one_network_the_older_has_the_pools_made_by_hand_and_nobody_argues(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    await make_pool(kube, "hand82", "10.82.2.1-10.82.2.2", "10.82.0.0/16")
    twins = [await make_subnet(kube, name, "10.82.2.1-10.82.2.9") for name in ("odd82", "odd82-again")]
    # Of the same second are those of two replicas of the webhook; then the UID decides.
    older, younger = (
        each["metadata"]["name"]
        for each in sorted(twins, key=lambda each: (each["metadata"]["creationTimestamp"], each["metadata"]["uid"]))
    )
    await until_condition(kube, younger, "Overlapping", lambda each: each["status"] == "True")
    await controller.logged("pool_adopted", pool="hand82", subnet=older)
    for name in ("cart", "other"):
        made = await make_deployment(kube, namespace, name, asks(older, number="1"), replicas=1)
        await until_pool(kube, made, "10.82.2.3" if name == "cart" else "10.82.2.4")
    # The first that was there may have had it for a moment.
    assert len(controller.lines("pool_adopted", pool="hand82")) <= 2
    hand = await pool_named(kube, "hand82")
    assert hand is not None
    assert hand["metadata"]["labels"][PREFIX + "owner-spider-subnet"] == older


async def test_the_originals_records_keep_a_pool_from_giving_anything_back(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    await make_subnet(kube, "odd83", "10.83.2.1-10.83.2.9")
    cart = await make_deployment(kube, namespace, "cart", asks("odd83", number="+0"), replicas=3)
    pool = await until_pool(kube, cart, "10.83.2.1-10.83.2.3")
    name = pool["metadata"]["name"]
    text = json.dumps({"10.83.2.1": {"pod": f"{namespace}/old", "podUid": "u1"}})
    originals = {"allocatedIPs": text, "allocationSource": None}
    await kube.patch(SPIDER_IP_POOLS, name, {"status": originals}, subresource="status")
    await controller.logged("pool_left_alone", pool=name)
    await scale(kube, cart, 1)
    other = await make_deployment(kube, namespace, "other", asks("odd83", number="1"), replicas=1)
    await until_pool(kube, other, "10.83.2.4")
    await kube.delete(DEPLOYMENTS, "cart", namespace=namespace)
    third = await make_deployment(kube, namespace, "third", asks("odd83", number="1"), replicas=1)
    await until_pool(kube, third, "10.83.2.5")
    kept = await pool_named(kube, name)
    assert kept is not None
    assert kept["spec"]["ips"] == ["10.83.2.1-10.83.2.3"]
    assert "deletionTimestamp" not in kept["metadata"]


async def test_an_address_that_is_reserved_after_it_was_lent_is_exchanged(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    await make_subnet(kube, "odd84", "10.84.2.1-10.84.2.9")
    cart = await make_deployment(kube, namespace, "cart", asks("odd84", number="2"), replicas=2)
    await until_pool(kube, cart, "10.84.2.1-10.84.2.2")
    reserved = {"ipVersion": 4, "ips": ["10.84.2.1"]}
    await kube.create(
        SPIDER_RESERVED_IPS,
        {"apiVersion": API, "kind": "SpiderReservedIP", "metadata": {"name": "odd84"}, "spec": reserved},
    )
    await until_pool(kube, cart, "10.84.2.2-10.84.2.3")


async def test_an_application_whose_pool_is_refused_is_told_and_served_once_it_is_not(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    await make_subnet(kube, "odd86", "10.86.2.1-10.86.2.9")
    await kube.create(VALIDATING_WEBHOOKS, _that_nobody_answers("pools.example.com"))
    cart = await make_deployment(kube, namespace, "cart", asks("odd86", number="2"), replicas=2)
    told = await until_event(kube, cart, "PoolRefused")
    assert "pools.example.com" in told["note"]
    await until_unserved(kube, "odd86", cart)
    await kube.delete(VALIDATING_WEBHOOKS, "pools.example.com")
    await until_pool(kube, cart, "10.86.2.1-10.86.2.2")


def _that_nobody_answers(name: str) -> Object:
    webhook = {
        "name": name,
        "clientConfig": {"url": f"https://127.0.0.1:{free_port()}/"},
        "rules": [
            {
                "apiGroups": [SPIDER_IP_POOLS.group],
                "apiVersions": ["*"],
                "operations": ["CREATE"],
                "resources": [SPIDER_IP_POOLS.plural],
                "scope": "*",
            }
        ],
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "timeoutSeconds": 1,
        "failurePolicy": "Fail",
    }
    kind = {"apiVersion": VALIDATING_WEBHOOKS.api_version, "kind": VALIDATING_WEBHOOKS.kind}
    return {**kind, "metadata": {"name": name}, "webhooks": [webhook]}


async def test_without_automatic_pools_a_subnet_still_goes_with_those_that_it_has(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await make_subnet(kube, "odd85", "10.85.2.1-10.85.2.9")
    with running_controller(plane.kubeconfig, namespace, tmp_path, identity="with"):
        cart = await make_deployment(kube, namespace, "cart", asks("odd85", number="2"), replicas=2)
        await until_pool(kube, cart, "10.85.2.1-10.85.2.2")
    switched_off = config_with(tmp_path, enableAutoPoolForApplication=False)
    with running_controller(plane.kubeconfig, namespace, tmp_path, *switched_off, identity="without"):
        await kube.delete(SPIDER_SUBNETS, "odd85")
        await until_gone(kube, "odd85", resource=SPIDER_SUBNETS)
        assert await pools_of(kube, cart) == []
