"""Applications and their pools, so that the leader comes by each boundary of lending, whatever dies meanwhile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from allocator.kube.resources import DEPLOYMENTS, SPIDER_IP_POOLS, SPIDER_SUBNETS
from devcluster.waiting import until
from tests.crash.stage import NAMESPACE
from tests.plane.controllers import API, FINALIZER
from tests.plane.subnets import PREFIX, asks

if TYPE_CHECKING:
    from collections.abc import Callable

    from allocator.kube.resources import Object
    from tests.crash.stage import Cluster

# A death and an election, on a busy machine.
WITHIN_S = 60.0
GATEWAY = 254
CONTROLLER = "controller-one"


async def application(cluster: Cluster) -> None:
    """It gets its pool."""
    await _served(cluster, 3)


async def application_that_shrinks(cluster: Cluster) -> None:
    """And grows and shrinks again."""
    made, subnet = await _served(cluster, 3)
    for number in (5, 1, 2):
        template = {"metadata": {"annotations": asks(subnet["metadata"]["name"], number=str(number))}}
        await cluster.api.patch(DEPLOYMENTS, made, {"spec": {"template": template}})
        await _lends(cluster, subnet, number)


async def application_that_ends(cluster: Cluster) -> None:
    """The subnet has everything back."""
    made, subnet = await _served(cluster, 3)
    await cluster.api.delete(DEPLOYMENTS, made)
    await _lends(cluster, subnet, 0)


async def takings_of_an_earlier_leader(cluster: Cluster) -> None:
    """It died when it had cut the pool down, and before the accounts let go."""
    _, subnet = await _served(cluster, 2)
    await cluster.stage.restart(CONTROLLER)
    name = subnet["metadata"]["name"]
    lent = await _accounts(cluster, name)
    ((pool, entry),) = lent.items()
    entry["ips"] = [f"{_prefix(subnet)}.1-{_prefix(subnet)}.4"]
    text = json.dumps({pool: entry})
    await cluster.api.patch(SPIDER_SUBNETS, subnet, {"status": {"controlledIPPools": text}}, subresource="status")
    await _lends(cluster, subnet, 2)


async def pool_that_was_there_before_its_subnet(cluster: Cluster) -> None:
    """It gets the subnet's label and gateway, and with its consent the gateway that the subnet gets later."""
    number = next(cluster.stage.numbers) % 250
    follows = {PREFIX + "follow-subnet": "true"}
    meta = {"name": f"old-{number}", "finalizers": [FINALIZER], "annotations": follows}
    spec = {"subnet": f"10.254.{number}.0/24", "ips": [f"10.254.{number}.1"], "ipVersion": 4}
    pool = await cluster.api.create(
        SPIDER_IP_POOLS, {"apiVersion": API, "kind": "SpiderIPPool", "metadata": meta, "spec": spec}
    )
    subnet = await _subnet(cluster, number)
    for last in (GATEWAY, GATEWAY - 1):
        gateway = f"10.254.{number}.{last}"
        await cluster.api.patch(SPIDER_SUBNETS, subnet, {"spec": {"gateway": gateway}})

        async def follows_it(gateway: str = gateway) -> bool:
            found = await cluster.api.find(SPIDER_IP_POOLS, pool["metadata"]["name"])
            return found is not None and found["spec"].get("gateway") == gateway

        await until(follows_it, within_s=WITHIN_S, what="the pool to have its subnet's gateway")


async def _served(cluster: Cluster, number: int) -> tuple[Object, Object]:
    """A Deployment without pods on a subnet of its own, once it has its pool."""
    subnet = await _subnet(cluster, next(cluster.stage.numbers) % 250)
    name = f"app-{next(cluster.stage.numbers)}"
    annotations = asks(subnet["metadata"]["name"], number=str(number))
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    }
    made = await cluster.api.create(
        DEPLOYMENTS,
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template},
        },
    )
    await _lends(cluster, subnet, number)
    return made, subnet


async def _subnet(cluster: Cluster, number: int) -> Object:
    meta = {"name": f"lender-{number}", "finalizers": [FINALIZER]}
    spec = {
        "subnet": f"10.254.{number}.0/24",
        "ips": [f"10.254.{number}.1-10.254.{number}.9"],
        "gateway": f"10.254.{number}.{GATEWAY}",
        "ipVersion": 4,
    }
    return await cluster.api.create(
        SPIDER_SUBNETS, {"apiVersion": API, "kind": "SpiderSubnet", "metadata": meta, "spec": spec}
    )


async def _lends(cluster: Cluster, subnet: Object, number: int) -> None:
    """Wait until the accounts say so, and all the subnet's pools together offer just that."""

    async def look() -> bool:
        lent = await _accounts(cluster, subnet["metadata"]["name"])
        pools = {
            each["metadata"]["name"]: each["spec"].get("ips") or []
            for each in await cluster.api.items(SPIDER_IP_POOLS)
            if each["spec"]["subnet"] == subnet["spec"]["subnet"]
        }
        return {pool: entry["ips"] for pool, entry in lent.items()} == pools and _size(pools) == number

    await until(look, within_s=WITHIN_S, what=f"the subnet and its pools to agree on {number} addresses")


async def _accounts(cluster: Cluster, name: str) -> dict[str, Any]:
    found = await cluster.api.find(SPIDER_SUBNETS, name) or {}
    text = (found.get("status") or {}).get("controlledIPPools")
    return dict(json.loads(text)) if text else {}


def _size(pools: dict[str, list[str]]) -> int:
    last: Callable[[str], int] = lambda text: int(text.rpartition(".")[2])  # noqa: E731 - all in one /24
    spans = (item.partition("-") for items in pools.values() for item in items)
    return sum(last(end or first) - last(first) + 1 for first, _, end in spans)


def _prefix(subnet: Object) -> str:
    return str(subnet["spec"]["subnet"]).rpartition(".")[0]
