"""SpiderSubnets, the applications that ask for them, and what came of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from allocator.kube.errors import NotFound
from allocator.kube.resources import DEPLOYMENTS, SPIDER_IP_POOLS, SPIDER_SUBNETS
from devcluster.waiting import until
from tests.plane.controllers import API, FINALIZER

if TYPE_CHECKING:
    from collections.abc import Callable

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object

PREFIX = "ipam.spidernet.io/"
# Whoever waits on two planes, one of them in a crowd.
WITHIN_S = 30.0


async def make_subnet(kube: KubeClient, name: str, *items: str, **spec: Any) -> Object:
    body = {"subnet": "10.20.0.0/16", "ipVersion": 4, "ips": list(items), **spec}
    meta = {"name": name, "finalizers": [FINALIZER]}
    return await kube.create(
        SPIDER_SUBNETS, {"apiVersion": API, "kind": "SpiderSubnet", "metadata": meta, "spec": body}
    )


def asks(*subnets: str, number: str | None = None, **more: str) -> dict[str, str]:
    """The annotations of a pod template."""
    annotations = {PREFIX + "subnet": json.dumps({"ipv4": list(subnets)})}
    if number is not None:
        annotations[PREFIX + "ippool-ip-number"] = number
    return annotations | {PREFIX + key.replace("_", "-"): value for key, value in more.items()}


async def make_deployment(
    kube: KubeClient, namespace: str, name: str, annotations: dict[str, str], *, replicas: int
) -> Object:
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    meta = {"name": name, "namespace": namespace}
    return await kube.create(
        DEPLOYMENTS, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}
    )


async def scale(kube: KubeClient, deployment: Object, replicas: int) -> None:
    meta = deployment["metadata"]
    await kube.patch(DEPLOYMENTS, meta["name"], {"spec": {"replicas": replicas}}, namespace=meta["namespace"])


async def pool_named(kube: KubeClient, name: str) -> Object | None:
    try:
        return await kube.get(SPIDER_IP_POOLS, name)
    except NotFound:
        return None


async def pools_of(kube: KubeClient, application: Object) -> list[Object]:
    """The pools that were made for this very object, by its UID."""
    selector = f"{PREFIX}owner-application-uid={application['metadata']['uid']}"
    found, _ = await kube.list_all(SPIDER_IP_POOLS, label_selector=selector)
    return found


async def until_pool(kube: KubeClient, application: Object, *ips: str) -> Object:
    """Its only pool, once that offers just this."""

    async def look() -> Object | None:
        pools = await pools_of(kube, application)
        return pools[0] if len(pools) == 1 and pools[0]["spec"].get("ips") == list(ips) else None

    name = application["metadata"]["name"]
    return await until(look, within_s=WITHIN_S, what=f"the pool of {name} to offer {', '.join(ips) or 'nothing'}")


async def accounts(kube: KubeClient, subnet: str) -> tuple[dict[str, Any], int, int]:
    """controlledIPPools as an object, allocatedIPCount and totalIPCount."""
    status = (await kube.get(SPIDER_SUBNETS, subnet)).get("status") or {}
    text = status.get("controlledIPPools")
    return json.loads(text) if text else {}, status.get("allocatedIPCount", 0), status.get("totalIPCount", 0)


async def until_accounts(kube: KubeClient, subnet: str, wanted: dict[str, Any], allocated: int, total: int) -> None:
    seen: list[object] = []

    async def look() -> bool:
        seen[:] = [await accounts(kube, subnet)]
        return seen[0] == (wanted, allocated, total)

    try:
        await until(look, within_s=WITHIN_S, what=f"the accounts of {subnet}")
    except TimeoutError as error:
        raise AssertionError(f"the accounts of {subnet} are {seen[0]}, not {(wanted, allocated, total)}") from error


async def until_condition(
    kube: KubeClient, subnet: str, kind: str, holds: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        status = (await kube.get(SPIDER_SUBNETS, subnet)).get("status") or {}
        found = [each for each in status.get("conditions") or () if each["type"] == kind and holds(each)]
        return found[0] if found else None

    return await until(look, within_s=WITHIN_S, what=f"the condition {kind} of SpiderSubnet {subnet}")
