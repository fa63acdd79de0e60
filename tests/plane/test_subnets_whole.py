"""The whole chain, with every process and the real plugin: pods of an application that takes from a subnet."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import yaml

from allocator.kube.errors import NotFound
from allocator.kube.resources import DEPLOYMENTS, NAMESPACES, PODS, SPIDER_IP_ADDRESSES, SPIDER_SUBNETS
from devcluster import cluster as devcluster
from devcluster import services
from devcluster.processes import processes
from devcluster.waiting import until
from tests.crash.actors import ROOT
from tests.plane.subnets import accounts, asks, make_deployment, make_subnet, pools_of, scale, until_accounts
from tests.plane.support import install_crd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane

# Two planes, one of them real, in a crowd.
WITHIN_S = 90.0


@asynccontextmanager
async def whole_cluster(plane: Plane, folder: Path) -> AsyncIterator[KubeClient]:
    """Of the same kind as the tests' plane, and with nodes of its own; pods have addresses, and no network."""
    settings = devcluster.Settings(directory=folder, plane=plane.kind, nodes=2, network="none")
    async with devcluster.run(settings) as cluster, processes(cluster.workspace.logs) as running:
        for path in sorted((ROOT / "manifests" / "crds").glob("spider*.yaml")):
            await install_crd(cluster.client, yaml.safe_load(path.read_text()))
        await cluster.client.create(
            NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": services.NAMESPACE}}
        )
        await services.start(services.services_of(cluster), running)
        yield cluster.client


async def test_the_pods_of_an_application_have_its_pools_addresses_through_its_whole_life(
    plane: Plane, tmp_path: Path
) -> None:
    async with whole_cluster(plane, tmp_path / "cluster") as kube:
        await make_subnet(kube, "dc1", "10.20.2.1-10.20.2.12", gateway="10.20.0.1")
        web = await make_deployment(kube, "default", "web", asks("dc1", number="+1"), replicas=3)
        first = await _running(kube, 3)
        assert {pool for _, pool in await _addresses(kube)} == {(await pools_of(kube, web))[0]["metadata"]["name"]}

        # Every pod is replaced, with one address to spare.
        await kube.patch(
            DEPLOYMENTS,
            "web",
            {"spec": {"template": {"metadata": {"annotations": {"example.com/restarted": "now"}}}}},
            namespace="default",
        )
        await until(lambda: _are_others(kube, first), within_s=WITHIN_S, what="the rolling update to go through")

        await scale(kube, web, 6)
        await _running(kube, 6)
        assert len({address for address, _ in await _addresses(kube)}) == 6

        await scale(kube, web, 0)
        await until(lambda: _lends(kube, 1), within_s=WITHIN_S, what="the pool to give all back but the spare one")
        await scale(kube, web, 2)
        await _running(kube, 2)

        await kube.delete(DEPLOYMENTS, "web", namespace="default", propagation="Background")
        await until_accounts(kube, "dc1", {}, 0, 12)
        await kube.delete(SPIDER_SUBNETS, "dc1")
        await until(lambda: _is_gone(kube), within_s=WITHIN_S, what="the subnet to go")


async def _running(kube: KubeClient, count: int) -> set[str]:
    """The UIDs of the pods, once there are so many and all of them run with an address of their own."""

    async def look() -> set[str] | None:
        pods = await _pods(kube)
        addresses = {pod["status"]["podIP"] for pod in pods if (pod.get("status") or {}).get("podIP")}
        run = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]
        return {pod["metadata"]["uid"] for pod in pods} if len(run) == len(addresses) == len(pods) == count else None

    return await until(look, within_s=WITHIN_S, what=f"{count} pods to run")


async def _are_others(kube: KubeClient, first: set[str]) -> bool:
    pods = await _pods(kube)
    run = [pod["metadata"]["uid"] for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]
    return len(pods) == len(run) == len(first) and not first & set(run)


async def _pods(kube: KubeClient) -> list[Object]:
    return (await kube.list_all(PODS, namespace="default"))[0]


async def _addresses(kube: KubeClient) -> list[tuple[str, str]]:
    """Those in use, each with its pool."""
    records, _ = await kube.list_all(SPIDER_IP_ADDRESSES)
    held: list[dict[str, Any]] = [each["spec"] for each in records if each["spec"]["state"] == "Held"]
    return [(spec["address"], spec["pool"]) for spec in held]


async def _lends(kube: KubeClient, number: int) -> bool:
    return (await accounts(kube, "dc1"))[1] == number


async def _is_gone(kube: KubeClient) -> bool:
    try:
        await kube.get(SPIDER_SUBNETS, "dc1")
    except NotFound:
        return True
    return False
