"""How many addresses an application's pool has, when that changes, and what the cluster has to say about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from allocator.kube.resources import JOBS, NAMESPACES
from tests.plane.controllers import running_controller
from tests.plane.subnets import (
    PREFIX,
    annotate,
    asks,
    config_with,
    make_deployment,
    make_subnet,
    make_workload,
    pools_of,
    scale,
    template,
    until_accounts,
    until_event,
    until_pool,
    until_several,
    until_size,
    until_unserved,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane
    from tests.plane.controllers import Controller


@pytest.fixture(scope="module", autouse=True)
def controller(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    directory = tmp_path_factory.mktemp("controller")
    said = config_with(
        directory,
        clusterSubnetDefaultFlexibleIPNumber=3,
        clusterDefaultIPv4Subnet=["cluster4"],
        clusterDefaultIPv6Subnet=["cluster6"],
    )
    with running_controller(plane.kubeconfig, "default", directory, *said) as running:
        yield running


@pytest.mark.parametrize(
    ("number", "last", "told"),
    [
        pytest.param("+2", 4, "+2", id="beyond its replicas"),
        pytest.param("+0", 2, "+0", id="nothing beyond them"),
        pytest.param("7", 7, "7", id="a fixed number"),
        pytest.param(None, 5, "+3", id="as the ConfigMap says"),
    ],
)
async def test_the_pool_of_two_replicas_has_what_the_annotation_says(
    kube: KubeClient, namespace: str, number: str | None, last: int, told: str
) -> None:
    await make_subnet(kube, "sizes", "10.41.2.1-10.41.2.200", subnet="10.41.0.0/16")
    cart = await make_deployment(kube, namespace, f"cart-{last}", asks("sizes", number=number), replicas=2)
    pool = await until_size(kube, cart, last)
    assert pool["metadata"]["annotations"][PREFIX + "ippool-ip-number"] == told


async def test_a_fixed_number_stays_when_the_replicas_change(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "fixed", "10.42.2.1-10.42.2.20")
    cart = await make_deployment(kube, namespace, "cart", asks("fixed", number="4"), replicas=2)
    pool = await until_pool(kube, cart, "10.42.2.1-10.42.2.4")
    await scale(kube, cart, 9)
    # The next word about it has been heard, and the one before.
    await annotate(kube, cart, asks("fixed", number="5"))
    again = await until_pool(kube, cart, "10.42.2.1-10.42.2.5")
    assert again["metadata"]["uid"] == pool["metadata"]["uid"]
    assert again["metadata"]["annotations"][PREFIX + "ippool-ip-number"] == "5"


async def test_scaled_to_nothing_the_pool_stays_with_its_surplus(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "zero", "10.43.2.1-10.43.2.20")
    cart = await make_deployment(kube, namespace, "cart", asks("zero", number="+1"), replicas=3)
    pool = await until_pool(kube, cart, "10.43.2.1-10.43.2.4")
    await scale(kube, cart, 0)
    # Nobody uses any: the lowest go back.
    small = await until_pool(kube, cart, "10.43.2.4")
    assert small["metadata"]["uid"] == pool["metadata"]["uid"]
    await annotate(kube, cart, asks("zero", number="+0"))
    await until_pool(kube, cart)
    await until_accounts(kube, "zero", {small["metadata"]["name"]: _loan(cart, [])}, 0, 20)


async def test_a_job_that_has_finished_gives_its_addresses_back(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "ended", "10.44.2.1-10.44.2.20")
    # Nobody else writes its status then.
    spec = {"template": template("sum", asks("ended", number="+1"), restartPolicy="Never"), "completions": 3}
    job = await make_workload(kube, JOBS, namespace, "sum", {**spec, "managedBy": "example.com/tests"})
    pool = await until_pool(kube, job, "10.44.2.1-10.44.2.4")
    since = "2026-01-01T00:00:00Z"
    conditions = [{"type": kind, "status": "True", "reason": "Done"} for kind in ("SuccessCriteriaMet", "Complete")]
    status = {"startTime": since, "completionTime": since, "succeeded": 3, "conditions": conditions}
    await kube.patch(JOBS, "sum", {"status": status}, namespace=namespace, subresource="status")
    await until_pool(kube, job)
    await until_accounts(kube, "ended", {pool["metadata"]["name"]: _loan(job, [])}, 0, 20)


async def test_a_namespace_may_say_which_subnet_its_applications_use(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "spaces", "10.45.2.1-10.45.2.20")
    cart = await make_deployment(kube, namespace, "cart", {PREFIX + "ippool-ip-number": "2"}, replicas=1)
    # The one that came after it has a pool: it was looked at.
    later = await make_deployment(kube, namespace, "later", asks("spaces", number="1"), replicas=1)
    await until_pool(kube, later, "10.45.2.1")
    annotations = {PREFIX + "default-ipv4-subnet": json.dumps(["spaces"])}
    await kube.patch(NAMESPACES, namespace, {"metadata": {"annotations": annotations}})
    await until_pool(kube, cart, "10.45.2.2-10.45.2.3")


async def test_the_clusters_subnets_are_for_those_that_name_neither_subnets_nor_pools(
    kube: KubeClient, namespace: str
) -> None:
    await make_subnet(kube, "cluster4", "10.46.2.1-10.46.2.20")
    await make_subnet(kube, "cluster6", "fd46::1-fd46::ff")
    with_pools = {PREFIX + "ippool": '{"ipv4": ["mine"]}'}
    first = await make_deployment(kube, namespace, "first", with_pools, replicas=1)
    cart = await make_deployment(kube, namespace, "cart", {}, replicas=1)
    await until_several(kube, cart, ("10.46.2.1-10.46.2.4",), ("fd46::1-fd46::4",))
    assert await pools_of(kube, first) == []


@pytest.mark.parametrize(
    ("annotations", "told"),
    [
        pytest.param({"ippool-ip-number": "many"}, 'ippool-ip-number is "many"', id="a number that is none"),
        pytest.param({"ippool-reclaim": "perhaps"}, 'ippool-reclaim is "perhaps"', id="a word that is no boolean"),
    ],
)
async def test_who_asks_for_what_cannot_be_is_told_and_served_once_that_is_mended(
    kube: KubeClient, namespace: str, annotations: dict[str, str], told: str
) -> None:
    await make_subnet(kube, "odd", "10.47.2.1-10.47.2.20", subnet="10.47.0.0/16")
    wrong = asks("odd") | {PREFIX + key: value for key, value in annotations.items()}
    cart = await make_deployment(kube, namespace, "cart", wrong, replicas=1)
    event = await until_event(kube, cart, "InvalidRequest")
    assert (event["type"], event["reportingController"]) == ("Warning", "spiderpool-controller")
    assert told in event["note"]
    assert told in (await until_unserved(kube, "odd", cart))["message"]
    await annotate(kube, cart, {PREFIX + "ippool-ip-number": "1", PREFIX + "ippool-reclaim": None})
    await until_size(kube, cart, 1)
    await until_unserved(kube, "odd")


async def test_who_names_a_subnet_that_is_not_there_is_told_and_served_once_it_is(
    kube: KubeClient, namespace: str
) -> None:
    cart = await make_deployment(kube, namespace, "cart", asks("later", number="2"), replicas=1)
    event = await until_event(kube, cart, "SubnetExhausted")
    assert "there is no IPv4 SpiderSubnet later" in event["note"]
    await make_subnet(kube, "later", "10.48.2.1-10.48.2.20")
    await until_pool(kube, cart, "10.48.2.1-10.48.2.2")
    await until_unserved(kube, "later")


def _loan(application: dict[str, Any], ips: list[str]) -> dict[str, Any]:
    meta, gv = application["metadata"], application["apiVersion"].replace("/", "_")
    return {"ips": ips, "application": f"{gv}_{application['kind']}_{meta['namespace']}_{meta['name']}"}
