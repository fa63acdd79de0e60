"""SpiderSubnets, the applications that ask for them, and what came of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from allocator.domain.addresses import IntervalSet
from allocator.kube.errors import NotFound
from allocator.kube.resources import DEPLOYMENTS, EVENTS, PODS, SPIDER_IP_POOLS, SPIDER_SUBNETS
from devcluster.waiting import WaitError, until
from tests.plane.controllers import API, FINALIZER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from allocator.domain.addresses import Version
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource

PREFIX = "ipam.spidernet.io/"
# Whoever waits on two planes, one of them in a crowd.
WITHIN_S = 60.0


async def make_subnet(kube: KubeClient, name: str, *items: str, **spec: Any) -> Object:
    """Of the /16 or /64 around its first address, unless said otherwise. Tests that share a controller have networks
    of their own: pools of the one before may be on their way out still.
    """
    version: Version = 6 if ":" in items[0] else 4
    network = f"{items[0].partition('::')[0]}::/64" if version == 6 else f"{'.'.join(items[0].split('.')[:2])}.0.0/16"
    body = {"subnet": network, "ipVersion": version, "ips": list(items), **spec}
    meta = {"name": name, "finalizers": [FINALIZER]}
    return await kube.create(
        SPIDER_SUBNETS, {"apiVersion": API, "kind": "SpiderSubnet", "metadata": meta, "spec": body}
    )


async def set_ips(kube: KubeClient, subnet: str, *items: str) -> None:
    await kube.patch(SPIDER_SUBNETS, subnet, {"spec": {"ips": list(items)}})


def asks(*subnets: str, number: str | None = None, ipv6: tuple[str, ...] = (), **more: str) -> dict[str, str]:
    """The annotations of a pod template."""
    families = {"ipv4": list(subnets), "ipv6": list(ipv6)}
    annotations = {PREFIX + "subnet": json.dumps({key: names for key, names in families.items() if names})}
    if number is not None:
        annotations[PREFIX + "ippool-ip-number"] = number
    return annotations | {PREFIX + key.replace("_", "-"): value for key, value in more.items()}


def template(name: str, annotations: dict[str, str], **spec: Any) -> Object:
    containers = [{"name": "main", "image": "none"}]
    return {
        "metadata": {"labels": {"app": name}, "annotations": annotations},
        "spec": {"containers": containers, **spec},
    }


async def make_workload(
    kube: KubeClient, resource: Resource, namespace: str, name: str, spec: Object, *, owner: Object | None = None
) -> Object:
    meta: Object = {"name": name, "namespace": namespace} | ({} if owner is None else _owned_by(owner))
    return await kube.create(
        resource, {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, "spec": spec}
    )


def selecting(name: str, annotations: dict[str, str], **spec: Any) -> Object:
    """The spec of a workload that selects its pods."""
    return {"selector": {"matchLabels": {"app": name}}, "template": template(name, annotations), **spec}


async def make_deployment(
    kube: KubeClient, namespace: str, name: str, annotations: dict[str, str], *, replicas: int
) -> Object:
    return await make_workload(kube, DEPLOYMENTS, namespace, name, selecting(name, annotations, replicas=replicas))


async def make_lone_pod(
    kube: KubeClient, namespace: str, name: str, annotations: dict[str, str], *, owner: Object | None = None
) -> Object:
    """Of no node, so that nobody ends it. A real controller lets go of a pod that its selector does not match."""
    selector = {} if owner is None else owner["spec"].get("selector") or {}
    made = template(selector.get("matchLabels", {}).get("app", name), annotations)
    meta = {**made["metadata"], "name": name, "namespace": namespace} | ({} if owner is None else _owned_by(owner))
    return await kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": made["spec"]})


def _owned_by(owner: Object) -> Object:
    reference = {key: owner[key] for key in ("apiVersion", "kind")}
    reference |= {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "controller": True}
    return {"ownerReferences": [reference]}


async def scale(kube: KubeClient, deployment: Object, replicas: int) -> None:
    meta = deployment["metadata"]
    await kube.patch(DEPLOYMENTS, meta["name"], {"spec": {"replicas": replicas}}, namespace=meta["namespace"])


async def annotate(kube: KubeClient, deployment: Object, annotations: Mapping[str, str | None]) -> None:
    """Of its pod template; None takes one away."""
    meta = deployment["metadata"]
    body = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    await kube.patch(DEPLOYMENTS, meta["name"], body, namespace=meta["namespace"])


def config_with(directory: Path, **keys: Any) -> tuple[str, str]:
    """The arguments that let a controller read these keys of the ConfigMap."""
    path = directory / "conf.yml"
    path.write_text(json.dumps(keys))
    return "--config", str(path)


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


async def until_size(kube: KubeClient, application: Object, size: int) -> Object:
    """Its only pool, once that offers so many IPv4 addresses, whichever."""

    async def look() -> Object | None:
        pools = await pools_of(kube, application)
        sizes = [IntervalSet.parse(4, pool["spec"].get("ips") or []).size for pool in pools]
        return pools[0] if sizes == [size] else None

    return await until(look, within_s=WITHIN_S, what=f"{size} addresses for {application['metadata']['name']}")


async def until_several(kube: KubeClient, application: Object, *wanted: tuple[str, ...]) -> list[Object]:
    """Its pools in the order of their names, once each offers what is said of it."""

    async def look() -> list[Object] | None:
        pools = sorted(await pools_of(kube, application), key=lambda pool: str(pool["metadata"]["name"]))
        return pools if [pool["spec"].get("ips") for pool in pools] == [list(ips) for ips in wanted] else None

    return await until(look, within_s=WITHIN_S, what=f"pools of {application['metadata']['name']} to offer {wanted}")


async def until_event(kube: KubeClient, application: Object, reason: str) -> Object:
    """The event of this reason about the very object."""
    meta = application["metadata"]

    async def look() -> Object | None:
        events, _ = await kube.list_all(EVENTS, namespace=meta["namespace"])
        about = (each for each in events if (each.get("regarding") or {}).get("uid") == meta["uid"])
        return next((each for each in about if each.get("reason") == reason), None)

    return await until(look, within_s=WITHIN_S, what=f"an event {reason} about {meta['name']}")


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
    except WaitError as error:
        raise AssertionError(f"the accounts of {subnet} are {seen[0]}, not {(wanted, allocated, total)}") from error


async def until_condition(
    kube: KubeClient, subnet: str, kind: str, holds: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        status = (await kube.get(SPIDER_SUBNETS, subnet)).get("status") or {}
        found = [each for each in status.get("conditions") or () if each["type"] == kind and holds(each)]
        return found[0] if found else None

    return await until(look, within_s=WITHIN_S, what=f"the condition {kind} of SpiderSubnet {subnet}")


async def until_unserved(kube: KubeClient, subnet: str, *applications: Object) -> dict[str, Any]:
    """ApplicationsUnserved, once it names just these, of one namespace: none, and it is False."""
    names = [f"{each['kind']} {each['metadata']['namespace']}/{each['metadata']['name']}:" for each in applications]

    def holds(condition: dict[str, Any]) -> bool:
        told = condition["message"]
        if not applications:
            return bool(condition["status"] == "False")
        others = told.count(f" {applications[0]['metadata']['namespace']}/") - len(names)
        return condition["status"] == "True" and others == 0 and all(name in told for name in names)

    return await until_condition(kube, subnet, "ApplicationsUnserved", holds)


async def until_agreed(kube: KubeClient, *subnets: str, pools: int) -> dict[str, IntervalSet]:
    """What each pool of the subnets offers, once so many offer something and the accounts say just that. No address is
    ever in two of them, on the way there neither.
    """

    async def look() -> list[dict[str, IntervalSet]]:
        offered, lent = await lent_once(kube, *subnets)
        return [offered] if offered == lent and sum(map(bool, offered.values())) == pools else []

    return (await until(look, within_s=WITHIN_S, what=f"accounts of {', '.join(subnets)} and {pools} pools to agree"))[
        0
    ]


async def lent_once(kube: KubeClient, *subnets: str) -> tuple[dict[str, IntervalSet], dict[str, IntervalSet]]:
    """What pools of these IPv4 subnets offer and what the accounts say; AssertionError for an address twice."""
    pools, _ = await kube.list_all(SPIDER_IP_POOLS)
    label = PREFIX + "owner-spider-subnet"
    ours = [pool for pool in pools if (pool["metadata"].get("labels") or {}).get(label) in subnets]
    offered = {pool["metadata"]["name"]: IntervalSet.parse(4, pool["spec"].get("ips") or []) for pool in ours}
    lent: dict[str, IntervalSet] = {}
    for subnet in subnets:
        entries, allocated, _ = await accounts(kube, subnet)
        of_subnet = {name: IntervalSet.parse(4, entry["ips"]) for name, entry in entries.items()}
        assert sum(ips.size for ips in of_subnet.values()) == allocated
        lent |= of_subnet
    for book in (offered, lent):
        union = IntervalSet.of(4, (span for ips in book.values() for span in ips.spans))
        assert sum(ips.size for ips in book.values()) == union.size, f"an address is twice in {book}"
    return offered, lent
