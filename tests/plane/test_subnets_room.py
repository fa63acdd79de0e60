"""Who gets the addresses of a subnet when they do not suffice, and who takes over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from allocator.kube.resources import DEPLOYMENTS, SPIDER_SUBNETS
from tests.plane.controllers import until_gone
from tests.plane.subnets import (
    asks,
    lent_once,
    make_deployment,
    make_subnet,
    pools_of,
    scale,
    set_ips,
    until_accounts,
    until_agreed,
    until_condition,
    until_event,
    until_pool,
    until_several,
    until_size,
    until_unserved,
)

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object


pytestmark = pytest.mark.usefixtures("controller")


async def _contenders(kube: KubeClient, namespace: str, subnet: str, count: int) -> list[Object]:
    """Applications of two addresses each, all at once."""
    async with asyncio.TaskGroup() as group:
        made = [
            group.create_task(make_deployment(kube, namespace, f"app-{nth}", asks(subnet, number="2"), replicas=1))
            for nth in range(count)
        ]
    return [task.result() for task in made]


async def _without(kube: KubeClient, applications: list[Object]) -> list[Object]:
    """Those that have no addresses."""
    pools = [await pools_of(kube, each) for each in applications]
    has_some = [any(pool["spec"].get("ips") for pool in each) for each in pools]
    return [each for each, has in zip(applications, has_some, strict=True) if not has]


async def test_of_those_that_race_for_the_last_addresses_the_others_are_named_and_told(
    kube: KubeClient, namespace: str
) -> None:
    await make_subnet(kube, "last", "10.51.2.1-10.51.2.8")
    contenders = await _contenders(kube, namespace, "last", 6)
    offered = await until_agreed(kube, "last", pools=4)
    assert [ips.size for ips in offered.values()] == [2, 2, 2, 2]
    waiting = await _without(kube, contenders)
    assert len(waiting) == 2
    told = (await until_unserved(kube, "last", *waiting))["message"]
    assert "2 of 2 addresses are missing" in told
    for each in waiting:
        event = await until_event(kube, each, "SubnetExhausted")
        assert (event["type"], event["regarding"]["kind"]) == ("Warning", "Deployment")
        assert "2 of 2 addresses are missing" in event["note"]


async def test_who_waits_is_served_when_the_subnet_grows(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "grows", "10.52.2.1-10.52.2.4")
    contenders = await _contenders(kube, namespace, "grows", 4)
    await until_agreed(kube, "grows", pools=2)
    waiting = await _without(kube, contenders)
    await until_unserved(kube, "grows", *waiting)
    await set_ips(kube, "grows", "10.52.2.1-10.52.2.4", "10.52.9.1-10.52.9.4")
    offered = await until_agreed(kube, "grows", pools=4)
    assert sum(ips.size for ips in offered.values()) == 8
    await until_unserved(kube, "grows")


@pytest.mark.parametrize(
    ("is_deleted", "net"), [pytest.param(False, "10.53", id="shrinks"), pytest.param(True, "10.59", id="ends")]
)
async def test_who_waits_is_served_when_another(
    kube: KubeClient,
    namespace: str,
    is_deleted: bool,  # noqa: FBT001 - a row of the table
    net: str,
) -> None:
    subnet = f"gives-{net}"
    await make_subnet(kube, subnet, f"{net}.2.1-{net}.2.4")
    first = await make_deployment(kube, namespace, "first", asks(subnet, number="+0"), replicas=4)
    await until_pool(kube, first, f"{net}.2.1-{net}.2.4")
    second = await make_deployment(kube, namespace, "second", asks(subnet, number="+0"), replicas=2)
    await until_unserved(kube, subnet, second)
    if is_deleted:
        await kube.delete(DEPLOYMENTS, "first", namespace=namespace)
    else:
        await scale(kube, first, 2)
    await until_size(kube, second, 2)
    await until_unserved(kube, subnet)
    await lent_once(kube, subnet)


async def test_who_cannot_grow_keeps_what_it_has_and_grows_once_there_is_room(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "tight", "10.54.2.1-10.54.2.3")
    cart = await make_deployment(kube, namespace, "cart", asks("tight", number="+0"), replicas=2)
    pool = await until_pool(kube, cart, "10.54.2.1-10.54.2.2")
    await scale(kube, cart, 5)
    assert "3 of 5 addresses are missing" in (await until_unserved(kube, "tight", cart))["message"]
    await until_pool(kube, cart, "10.54.2.1-10.54.2.2")
    await set_ips(kube, "tight", "10.54.2.1-10.54.2.9")
    grown = await until_pool(kube, cart, "10.54.2.1-10.54.2.5")
    assert grown["metadata"]["uid"] == pool["metadata"]["uid"]
    await until_unserved(kube, "tight")


async def test_a_new_application_goes_to_the_second_subnet_when_the_first_is_full(
    kube: KubeClient, namespace: str
) -> None:
    await make_subnet(kube, "full", "10.55.2.1-10.55.2.3")
    await make_subnet(kube, "free", "10.56.2.1-10.56.2.9")
    first = await make_deployment(kube, namespace, "first", asks("full", "free", number="2"), replicas=1)
    await until_pool(kube, first, "10.55.2.1-10.55.2.2")
    second = await make_deployment(kube, namespace, "second", asks("full", "free", number="2"), replicas=1)
    pool = await until_pool(kube, second, "10.56.2.1-10.56.2.2")
    assert pool["metadata"]["ownerReferences"][0]["name"] == "free"
    await until_unserved(kube, "full")


async def test_growth_takes_a_second_pool_where_the_first_subnet_is_full_and_gives_it_back_first(
    kube: KubeClient, namespace: str
) -> None:
    await make_subnet(kube, "small", "10.57.2.1-10.57.2.3")
    await make_subnet(kube, "large", "10.58.2.1-10.58.2.9")
    cart = await make_deployment(kube, namespace, "cart", asks("small", "large", number="+0"), replicas=2)
    await until_pool(kube, cart, "10.57.2.1-10.57.2.2")
    await scale(kube, cart, 5)
    first, second = await until_several(kube, cart, ("10.57.2.1-10.57.2.2",), ("10.58.2.1-10.58.2.3",))
    assert second["metadata"]["name"] == first["metadata"]["name"] + "-2"
    await scale(kube, cart, 3)
    await until_several(kube, cart, ("10.57.2.1-10.57.2.2",), ("10.58.2.3",))
    await scale(kube, cart, 2)
    last = await until_pool(kube, cart, "10.57.2.1-10.57.2.2")
    assert last["metadata"]["uid"] == first["metadata"]["uid"]
    await until_gone(kube, second["metadata"]["name"])
    await until_accounts(kube, "large", {}, 0, 9)
    await until_unserved(kube, "small")


async def test_of_two_subnets_that_overlap_the_one_made_later_lends_nothing_until_the_other_is_gone(
    kube: KubeClient, namespace: str
) -> None:
    both = [await make_subnet(kube, name, "10.50.2.1-10.50.2.9") for name in ("one", "two")]
    ages = sorted((each["metadata"]["creationTimestamp"], each["metadata"]["uid"], each) for each in both)
    first, second = (each["metadata"]["name"] for _, _, each in ages)
    late = await make_deployment(kube, namespace, "late", asks(second, number="2"), replicas=1)
    cart = await make_deployment(kube, namespace, "cart", asks(first, number="2"), replicas=1)
    await until_pool(kube, cart, "10.50.2.1-10.50.2.2")
    await until_unserved(kube, second, late)
    await until_condition(kube, second, "Overlapping", lambda each: "goes before this one" in str(each["message"]))
    await kube.delete(SPIDER_SUBNETS, first)
    await until_pool(kube, late, "10.50.2.1-10.50.2.2")
    await until_unserved(kube, second)
