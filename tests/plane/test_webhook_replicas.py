"""Two webhook replicas that judge at the same time: each sees what the other has let in a moment too late."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from allocator.domain.basis import Basis
from allocator.kube.codec import decode_pool
from allocator.kube.errors import Invalid
from allocator.kube.resources import MUTATING_WEBHOOKS, SPIDER_IP_POOLS, SPIDER_SUBNETS, VALIDATING_WEBHOOKS
from devcluster.waiting import until
from tests.plane.controllers import condition, running_controller, until_status
from tests.plane.webhooks import pool, running_webhook, subnet
from webhook.entries import Registration, UrlTarget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource
    from devcluster.plane import Plane
    from tests.plane.webhooks import Webhook

REPLICAS = ("a", "b")
ROUNDS = 25
MARKED_S = 20.0


@pytest.fixture(scope="module")
def servers(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Webhook]]:
    directory = tmp_path_factory.mktemp("replicas")
    with (
        running_webhook(plane.kubeconfig, directory / "a", "--register", "none") as first,
        running_webhook(plane.kubeconfig, directory / "b", "--register", "none") as second,
        running_controller(plane.kubeconfig, "default", directory),
    ):
        yield dict(zip(REPLICAS, (first, second), strict=True))


@pytest.fixture
async def registered(servers: dict[str, Webhook], kube: KubeClient) -> AsyncIterator[None]:
    """Objects with the label replica=a go to one process, those with replica=b to the other."""
    for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
        entries = [entry for name, server in servers.items() for entry in entries_of(name, server, resource)]
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "replicas"}}
        await kube.create(resource, {**body, "webhooks": entries})
    for replica in REPLICAS:
        # Refused by the webhook only: no CEL rule knows of other objects, and nothing of this is stored.
        await until(partial(is_asked, kube, replica), within_s=20, what=f"replica {replica} to be asked")
    yield
    for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
        await kube.delete(resource, "replicas")


def entries_of(replica: str, server: Webhook, resource: Resource) -> list[Object]:
    registration = Registration(target=UrlTarget(server.base), namespace="default", has_subnets=True)
    return [
        {**entry, "name": f"{replica}.{entry['name']}", "objectSelector": {"matchLabels": {"replica": replica}}}
        for entry in registration.webhooks(resource, server.ca_bundle)
        if entry["rules"][0]["resources"][0] in (SPIDER_IP_POOLS.plural, SPIDER_SUBNETS.plural)
    ]


def through(replica: str, made: dict[str, Any]) -> dict[str, Any]:
    return {**made, "metadata": {**made["metadata"], "labels": {"replica": replica}}}


async def is_asked(kube: KubeClient, replica: str) -> bool:
    """The completion of a pool fills in the family."""
    probe = through(replica, pool(f"probe-{replica}", subnet="10.39.0.0/24", ips=["10.39.0.1"]))
    made = await kube.create(SPIDER_IP_POOLS, probe, dry_run=True)
    return "ipVersion" in made["spec"]


async def stands(kube: KubeClient, resource: Resource, made: dict[str, Any]) -> str:
    """The object's name when it was let in, and nothing when it was refused because of the other one."""
    try:
        await kube.create(resource, made)
    except Invalid:
        return ""
    return str(made["metadata"]["name"])


async def race(kube: KubeClient, resource: Resource, *made: dict[str, Any]) -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stands(kube, resource, each)) for each in made]
    return [task.result() for task in tasks if task.result()]


# The pool through replica a, and the one through replica b.
PAIRS = {
    "the same addresses": (("24", "1-9"), ("24", "5-14")),
    "networks that cross": (("24", "1-9"), ("25", "5-14")),
}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
async def test_of_pools_that_overlap_one_is_refused_or_both_are_marked_and_share_nothing(
    kube: KubeClient, pair: tuple[tuple[str, str], ...]
) -> None:
    for number in range(ROUNDS):
        prefix = f"10.40.{number}"
        pools = []
        for replica, (length, span) in zip(REPLICAS, pair, strict=True):
            first, last = span.split("-")
            spec = {"subnet": f"{prefix}.0/{length}", "ips": [f"{prefix}.{first}-{prefix}.{last}"]}
            pools.append(through(replica, pool(f"round-{number}-{replica}", **spec)))
        names = await race(kube, SPIDER_IP_POOLS, *pools)
        assert names, "two that refuse each other leave nobody"
        if len(names) == len(REPLICAS):
            await both_are_marked_and_share_nothing(kube, names)


async def both_are_marked_and_share_nothing(kube: KubeClient, names: list[str]) -> None:
    free = 0
    for name in names:
        status = await until_status(
            kube, name, lambda status: condition(status, "Overlapping")["status"] == "True", within_s=MARKED_S
        )
        free += status["freeIPCount"]
    pools = {name: decode_pool(await kube.get(SPIDER_IP_POOLS, name)) for name in names}
    basis = Basis(pools, ())
    one, other = (basis.usable(each) for each in pools.values())
    assert not one & other
    assert one.size + other.size == free
    assert any(basis.usable(each) == each.total for each in pools.values())


@pytest.mark.usefixtures("registered")
async def test_of_subnets_that_overlap_one_is_refused_or_both_are_marked(kube: KubeClient) -> None:
    for number, lengths in zip(range(10), itertools.cycle([("24", "24"), ("24", "25")]), strict=False):
        made = [
            through(replica, subnet(f"round-{number}-{replica}", subnet=f"10.41.{number}.0/{length}", ips=[]))
            for replica, length in zip(REPLICAS, lengths, strict=True)
        ]
        names = await race(kube, SPIDER_SUBNETS, *made)
        assert names, "two that refuse each other leave nobody"
        for name in names if len(names) == len(REPLICAS) else ():
            await until(partial(is_marked, kube, name), within_s=MARKED_S, what=f"{name} to be marked")


async def is_marked(kube: KubeClient, name: str) -> bool:
    conditions = ((await kube.get(SPIDER_SUBNETS, name)).get("status") or {}).get("conditions") or ()
    return any((each["type"], each["status"]) == ("Overlapping", "True") for each in conditions)
