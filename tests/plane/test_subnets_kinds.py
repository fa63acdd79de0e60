"""Every kind of application gets the pool that it asks for: of the right size, and found by whoever looks for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from allocator.kube.resources import (
    CRON_JOBS,
    DAEMON_SETS,
    JOBS,
    REPLICA_SETS,
    SPIDER_IP_POOLS,
    STATEFUL_SETS,
)
from devcluster.waiting import until
from tests.plane.agents import make_node
from tests.plane.controllers import FINALIZER
from tests.plane.subnets import (
    PREFIX,
    WITHIN_S,
    asks,
    make_deployment,
    make_lone_pod,
    make_subnet,
    make_workload,
    pools_of,
    scale,
    selecting,
    template,
    until_pool,
    until_several,
    until_size,
)

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Resource
    from devcluster.plane import Plane


pytestmark = pytest.mark.usefixtures("controller")


async def test_a_pool_says_whom_it_is_for_and_belongs_to_its_subnet(kube: KubeClient, namespace: str) -> None:
    routes = [{"dst": "10.99.0.0/16", "gw": "10.21.0.9"}]
    subnet = await make_subnet(kube, "said", "10.21.2.1-10.21.2.20", gateway="10.21.0.1", routes=routes)
    cart = await make_deployment(kube, namespace, "cart", asks("said", number="+1"), replicas=2)
    pool = await until_pool(kube, cart, "10.21.2.1-10.21.2.3")
    meta, spec = pool["metadata"], pool["spec"]
    assert meta["labels"] == {
        PREFIX + "owner-spider-subnet": "said",
        PREFIX + "owner-application-gv": "apps_v1",
        PREFIX + "owner-application-kind": "Deployment",
        PREFIX + "owner-application-namespace": namespace,
        PREFIX + "owner-application-name": "cart",
        PREFIX + "owner-application-uid": cart["metadata"]["uid"],
        PREFIX + "interface": "eth0",
        PREFIX + "ip-version": "IPv4",
        PREFIX + "ippool-reclaim": "true",
        PREFIX + "ippool-cidr": "10-21-0-0-16",
    }
    assert spec["podAffinity"] == {
        "matchLabels": {
            PREFIX + "app-api-group": "apps",
            PREFIX + "app-api-version": "v1",
            PREFIX + "app-kind": "Deployment",
            PREFIX + "app-namespace": namespace,
            PREFIX + "app-name": "cart",
        }
    }
    assert (spec["gateway"], spec["routes"], spec["ipVersion"]) == ("10.21.0.1", routes, 4)
    assert meta["ownerReferences"] == [
        {
            "apiVersion": subnet["apiVersion"],
            "kind": "SpiderSubnet",
            "name": "said",
            "uid": subnet["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    assert meta["finalizers"] == [FINALIZER]


async def test_a_replica_set_without_owner_gets_its_replicas_and_one_spare(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "sets", "10.22.2.1-10.22.2.20")
    made = await make_workload(kube, REPLICA_SETS, namespace, "web", selecting("web", asks("sets"), replicas=3))
    pool = await until_pool(kube, made, "10.22.2.1-10.22.2.4")
    assert pool["metadata"]["annotations"][PREFIX + "ippool-ip-number"] == "+1"


async def test_a_stateful_set_gets_its_replicas_and_what_it_asks_beyond(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "states", "10.23.2.1-10.23.2.20")
    spec = selecting("db", asks("states", number="+0"), replicas=3, serviceName="db")
    made = await make_workload(kube, STATEFUL_SETS, namespace, "db", spec)
    await until_pool(kube, made, "10.23.2.1-10.23.2.3")


async def test_a_daemon_set_gets_an_address_for_each_node_that_its_status_counts(
    kube: KubeClient, plane: Plane, namespace: str, controllers: None
) -> None:
    await make_subnet(kube, "demons", "10.24.2.1-10.24.2.20")
    for name in ("node-1", "node-2"):
        await make_node(kube, name)
    # Nodes bear taints until somebody has looked at them.
    pod = template("log", asks("demons", number="+1"), tolerations=[{"operator": "Exists"}])
    spec = {"selector": {"matchLabels": {"app": "log"}}, "template": pod}
    made = await make_workload(kube, DAEMON_SETS, namespace, "log", spec)
    if not plane.real:
        counts = {"currentNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0}
        status = {"status": {"desiredNumberScheduled": 2, **counts}}
        await kube.patch(DAEMON_SETS, "log", status, namespace=namespace, subresource="status")
    await until_pool(kube, made, "10.24.2.1-10.24.2.3")


@pytest.mark.parametrize(
    ("resource", "said", "size"),
    [
        pytest.param(JOBS, {"completions": 5, "parallelism": 2}, 5, id="a Job with completions"),
        pytest.param(JOBS, {"parallelism": 3}, 3, id="a Job with parallelism"),
        pytest.param(JOBS, {}, 1, id="a Job with neither"),
        pytest.param(CRON_JOBS, {"completions": 4, "parallelism": 2}, 4, id="a CronJob by its template"),
    ],
)
async def test_a_job_gets_an_address_for_each_pod_that_it_wants_to_end_well(
    kube: KubeClient, namespace: str, resource: Resource, said: dict[str, int], size: int
) -> None:
    await make_subnet(kube, "jobs", "10.25.2.1-10.25.2.200")
    spec: dict[str, Any] = {"template": template("sum", asks("jobs", number="+0"), restartPolicy="Never"), **said}
    if resource == CRON_JOBS:
        spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": spec}}
    made = await make_workload(kube, resource, namespace, "sum", spec)
    pool = await until_size(kube, made, size)
    assert pool["spec"]["podAffinity"]["matchLabels"][PREFIX + "app-api-group"] == "batch"


async def test_a_bare_pod_gets_a_pool_of_its_own(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "pods", "10.26.2.1-10.26.2.20")
    made = await make_lone_pod(kube, namespace, "one", asks("pods", number="+0"))
    pool = await until_pool(kube, made, "10.26.2.1")
    labels, affinity = pool["metadata"]["labels"], pool["spec"]["podAffinity"]["matchLabels"]
    assert (labels[PREFIX + "owner-application-gv"], labels[PREFIX + "owner-application-kind"]) == ("v1", "Pod")
    assert (affinity[PREFIX + "app-api-group"], affinity[PREFIX + "app-api-version"]) == ("", "v1")


async def test_what_a_deployment_or_cron_job_makes_gets_no_pool_of_its_own(
    kube: KubeClient, plane: Plane, namespace: str
) -> None:
    await make_subnet(kube, "middle", "10.27.2.1-10.27.2.50")
    annotations = asks("middle", number="2")
    cart = await make_deployment(kube, namespace, "cart", annotations, replicas=1)
    work = {"template": template("sum", annotations, restartPolicy="Never"), "suspend": True}
    cron = await make_workload(
        kube, CRON_JOBS, namespace, "sum", {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": work}}
    )
    if plane.real:
        await until(lambda: _has_some(kube, REPLICA_SETS, namespace), within_s=WITHIN_S, what="a ReplicaSet of cart")
    else:
        await make_workload(kube, REPLICA_SETS, namespace, "cart-1", selecting("cart", annotations), owner=cart)
    await make_workload(kube, JOBS, namespace, "sum-1", work, owner=cron)
    # Those that come after them have pools, so they were looked at.
    web = await make_workload(kube, REPLICA_SETS, namespace, "web", selecting("web", annotations))
    last = await make_workload(kube, JOBS, namespace, "last", work)
    served = {each["metadata"]["uid"] for each in (cart, cron, web, last)}
    await until(lambda: _are_served(kube, "middle", served), within_s=WITHIN_S, what=f"pools of just {served}")


async def test_a_workload_on_the_hosts_network_gets_none(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "hosts", "10.28.2.1-10.28.2.20")
    annotations = asks("hosts", number="1")
    on_host = {"selector": {"matchLabels": {"app": "a"}}, "template": template("a", annotations, hostNetwork=True)}
    first = await make_workload(kube, REPLICA_SETS, namespace, "a", on_host)
    second = await make_workload(kube, REPLICA_SETS, namespace, "b", selecting("b", annotations))
    await until_pool(kube, second, "10.28.2.1")
    assert await pools_of(kube, first) == []


async def test_each_family_has_a_pool(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "both4", "10.29.2.1-10.29.2.20")
    await make_subnet(kube, "both6", "fd29::1-fd29::ff")
    annotations = asks("both4", number="3", ipv6=("both6",))
    cart = await make_deployment(kube, namespace, "cart", annotations, replicas=1)
    pools = await until_several(kube, cart, ("10.29.2.1-10.29.2.3",), ("fd29::1-fd29::3",))
    labels = [pool["metadata"]["labels"] for pool in pools]
    assert [each[PREFIX + "ip-version"] for each in labels] == ["IPv4", "IPv6"]
    assert [each[PREFIX + "owner-spider-subnet"] for each in labels] == ["both4", "both6"]


async def test_each_interface_has_a_pool(kube: KubeClient, namespace: str) -> None:
    await make_subnet(kube, "front", "10.30.2.1-10.30.2.20")
    await make_subnet(kube, "back", "10.31.2.1-10.31.2.20")
    # Each is the other's fall-back, so that only the interface tells the pools apart.
    items = [{"interface": "eth0", "ipv4": ["front", "back"]}, {"interface": "net1", "ipv4": ["back", "front"]}]
    annotations = {PREFIX + "subnets": json.dumps(items), PREFIX + "ippool-ip-number": "+1"}
    cart = await make_deployment(kube, namespace, "cart", annotations, replicas=2)
    await until_several(kube, cart, ("10.30.2.1-10.30.2.3",), ("10.31.2.1-10.31.2.3",))
    await scale(kube, cart, 4)
    pools = await until_several(kube, cart, ("10.30.2.1-10.30.2.5",), ("10.31.2.1-10.31.2.5",))
    assert [pool["metadata"]["labels"][PREFIX + "interface"] for pool in pools] == ["eth0", "net1"]


async def _has_some(kube: KubeClient, resource: Resource, namespace: str) -> bool:
    return bool((await kube.list(resource, namespace=namespace))["items"])


async def _are_served(kube: KubeClient, subnet: str, uids: set[str]) -> bool:
    pools, _ = await kube.list_all(SPIDER_IP_POOLS, label_selector=f"{PREFIX}owner-spider-subnet={subnet}")
    found = [pool["metadata"]["labels"][PREFIX + "owner-application-uid"] for pool in pools]
    return sorted(found) == sorted(uids)
