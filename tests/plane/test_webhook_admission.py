"""Admission through the API server: registration, races, and a webhook that is dead. admission/ has what it answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from allocator.kube import errors
from allocator.kube.resources import (
    MUTATING_WEBHOOKS,
    SPIDER_ENDPOINTS,
    SPIDER_IP_POOLS,
    VALIDATING_WEBHOOKS,
)
from tests.plane.support import eventually
from tests.plane.webhooks import Webhook, configuration, pool, running_webhook
from webhook.entries import NAME, Registration, UrlTarget

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Resource
    from devcluster.plane import Plane

FINALIZER = "spiderpool.spidernet.io"


POOL = pool("a", subnet="10.20.0.0/16", ips=["10.20.0.12", "10.20.0.10-10.20.0.11"], gateway="10.20.0.1")


@pytest.mark.usefixtures("admission")
async def test_a_dry_run_shows_the_completed_pool_and_keeps_nothing(kube: KubeClient) -> None:
    shown = await kube.create(SPIDER_IP_POOLS, POOL, dry_run=True)
    assert shown["spec"]["ipVersion"] == 4
    assert await kube.list_all(SPIDER_IP_POOLS) == ([], (await kube.list_all(SPIDER_IP_POOLS))[1])


@pytest.mark.usefixtures("admission")
async def test_one_of_many_pools_for_the_same_addresses_wins(kube: KubeClient) -> None:
    async def tried(name: str) -> bool:
        try:
            await kube.create(SPIDER_IP_POOLS, pool(name, subnet="10.20.0.0/16", ips=["10.20.0.5"]))
        except errors.Invalid:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(tried(f"p{n}")) for n in range(8)]
    assert sorted(task.result() for task in tries) == [False] * 7 + [True]


@pytest.mark.usefixtures("admission")
async def test_a_name_may_be_used_again_at_once(kube: KubeClient) -> None:
    await kube.create(SPIDER_IP_POOLS, POOL)
    await kube.patch(SPIDER_IP_POOLS, "a", {"metadata": {"finalizers": None}})
    await kube.delete(SPIDER_IP_POOLS, "a")
    await kube.create(SPIDER_IP_POOLS, pool("b", subnet="10.20.0.0/24", ips=["10.20.0.12"]))


async def test_a_dead_webhook_stops_nothing_but_changes_of_the_spec(plane: Plane, kube: KubeClient) -> None:
    await kube.create(SPIDER_IP_POOLS, {**POOL, "metadata": {"name": "a", "finalizers": [FINALIZER]}})
    dead = Registration(target=UrlTarget("https://127.0.0.1:9"), namespace="spiderpool", has_subnets=True)
    for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
        await kube.create(resource, configuration(resource, dead.webhooks(resource, "")))

    async def is_refused() -> bool:
        try:
            await kube.patch(SPIDER_IP_POOLS, "a", {"spec": {"disable": True}})
        except errors.ServerError:
            return True
        await kube.patch(SPIDER_IP_POOLS, "a", {"spec": {"disable": False}})
        return False

    await eventually(is_refused)
    await kube.patch(SPIDER_IP_POOLS, "a", {"status": {"allocatedIPCount": 1}}, subresource="status")
    endpoint = {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderEndpoint",
        "metadata": {"name": "e", "namespace": "default"},
        "status": {
            "ownerControllerType": "Pod",
            "ownerControllerName": "e",
            "current": {"uid": "u", "node": "n", "ips": [{"interface": "eth0", "ipv4": "10.20.0.12/16"}]},
        },
    }
    await kube.create(SPIDER_ENDPOINTS, endpoint, namespace="default")
    if plane.real:  # the embedded plane has no CEL, so no matchConditions
        await kube.patch(SPIDER_IP_POOLS, "a", {"metadata": {"labels": {"team": "net"}, "finalizers": None}})


async def urls(kube: KubeClient, resource: Resource) -> list[str]:
    try:
        return [webhook["clientConfig"]["url"] for webhook in (await kube.get(resource, NAME))["webhooks"]]
    except errors.NotFound:
        return []


async def test_it_registers_itself_puts_drift_right_and_leaves_nothing(
    plane: Plane, kube: KubeClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("registered")
    with running_webhook(plane.kubeconfig, directory, "--register", "url", "--log-level", "debug") as webhook:

        async def is_registered() -> bool:
            found = [*await urls(kube, MUTATING_WEBHOOKS), *await urls(kube, VALIDATING_WEBHOOKS)]
            return len(found) == 8 and all(url.startswith(webhook.base) for url in found)

        await eventually(is_registered)
        for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
            broken = await kube.get(resource, NAME)
            broken["webhooks"][0]["clientConfig"]["caBundle"] = ""
            broken["webhooks"][1]["failurePolicy"] = "Ignore"
            await kube.replace(resource, broken)

        async def is_put_right() -> bool:
            return len(webhook.lines("registration_put_right")) == 2

        await eventually(is_put_right, within_s=10)
        await kube.create(SPIDER_IP_POOLS, POOL)

        checked = len(webhook.lines("registration_checked"))

        async def is_checked_twice() -> bool:
            return len(webhook.lines("registration_checked")) >= checked + 2

        # The first of the two may have begun before; the second has seen everything, and lets it be.
        await eventually(is_checked_twice)
        assert len(webhook.lines("registration_put_right")) == 2
    assert await urls(kube, MUTATING_WEBHOOKS) == []
    assert await urls(kube, VALIDATING_WEBHOOKS) == []


def answered(server: Webhook, name: str) -> list[str]:
    """The sides that judged the object of this name (or none yet), in order."""
    lines = [line for line in server.lines("review_answered") if line["name"] == name]
    return [line["path"].split("-")[0].removeprefix("/") for line in lines]


@pytest.mark.real_plane
@pytest.mark.usefixtures("admission")
async def test_a_new_pool_is_judged_once_unless_its_name_comes_later(server: Webhook, kube: KubeClient) -> None:
    await kube.create(SPIDER_IP_POOLS, pool("once", subnet="10.31.0.0/16"))
    assert answered(server, "once") == ["mutate"]
    unnamed = pool("", subnet="10.32.0.0/16") | {"metadata": {"generateName": "twice-"}}
    made = await kube.create(SPIDER_IP_POOLS, unnamed)
    assert answered(server, made["metadata"]["name"]) == ["validate"]
    await kube.patch(SPIDER_IP_POOLS, "once", {"spec": {"disable": True}})
    assert answered(server, "once") == ["mutate", "mutate", "validate"]


@pytest.mark.real_plane
@pytest.mark.usefixtures("admission")
async def test_without_its_mutating_side_the_validating_one_judges_a_new_pool(kube: KubeClient) -> None:
    await kube.create(SPIDER_IP_POOLS, POOL)
    await kube.delete(MUTATING_WEBHOOKS, NAME)

    async def is_refused() -> bool:
        await kube.create(SPIDER_IP_POOLS, pool("b", subnet="10.20.0.0/24", ipVersion=4), dry_run=True)
        return False

    with pytest.raises(errors.Invalid, match=r'overlaps 10\.20\.0\.0/16 of SpiderIPPool "a"'):
        await eventually(is_refused)
