"""How an agent chooses pools for a pod, and what it says when none serves: real agents on an API server."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from allocator.kube.errors import NotFound
from allocator.kube.resources import (
    EVENTS,
    NAMESPACES,
    PODS,
    SPIDER_ENDPOINTS,
    SPIDER_IP_ADDRESSES,
    SPIDER_IP_POOLS,
    SPIDER_RESERVED_IPS,
)
from devcluster.waiting import until
from tests.plane.agents import Agent, make_node, make_pool, running_agent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane

API = "spiderpool.spidernet.io/v2beta1"
PREFIX = "ipam.spidernet.io/"
NETWORKS = "k8s.v1.cni.cncf.io/networks"


async def make_pod(kube: KubeClient, namespace: str, name: str, **annotations: object) -> Object:
    """Keyword arguments are Spiderpool's annotations (`_` for `-`, values that are no text as JSON), or `networks`."""
    notes = {
        NETWORKS if key == "networks" else PREFIX + key.replace("_", "-"): value
        if isinstance(value, str)
        else json.dumps(value)
        for key, value in annotations.items()
    }
    meta = {"name": name, "namespace": namespace, "annotations": notes, "labels": {"app": "cart"}}
    spec = {"nodeName": "n1", "containers": [{"name": "main", "image": "none"}]}
    return await kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


async def told_about(kube: KubeClient, pod: Object) -> list[str]:
    """What the events of the pod say, once there are any, with the name that an answer says beside."""
    meta = pod["metadata"]

    async def found() -> list[str]:
        events = (await kube.list(EVENTS, namespace=meta["namespace"]))["items"]
        notes = [event["note"] for event in events if event["regarding"].get("uid") == meta["uid"]]
        return [f"pod {meta['namespace']}/{meta['name']}: {note}" for note in notes]

    return await until(found, within_s=10, what="an event")


@pytest.fixture
async def agent(
    plane: Plane, kube: KubeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Agent]:
    monkeypatch.setenv("MULTUS_CLUSTER_NETWORK", "netops/m0")
    await make_node(kube, "n1")
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as running:
        yield running


@pytest.fixture
async def defaulted(kube: KubeClient) -> AsyncIterator[str]:
    """A namespace with pool three as its default; deleted after the test."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    meta = {"name": name, "annotations": {f"{PREFIX}default-ipv4-ippool": '["three"]'}}
    await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    yield name
    for pod in (await kube.list(PODS, namespace=name))["items"]:
        await kube.delete(PODS, pod["metadata"]["name"], namespace=name, grace_period_s=0)
    with suppress(NotFound):
        await kube.delete(NAMESPACES, name)


async def test_sources_are_asked_in_their_order_of_priority(
    agent: Agent, kube: KubeClient, namespace: str, defaulted: str
) -> None:
    for index, name in enumerate(["one", "two", "three", "four", "five"]):
        await make_pool(kube, name, f"10.20.{index}.1-10.20.{index}.9", default=name == "five")
    ippools, ippool = [{"interface": "eth0", "ipv4": ["one"]}], {"ipv4": ["two"]}
    given = {
        "one": await agent.add(
            await make_pod(kube, defaulted, "one", ippools=ippools, ippool=ippool), defaultIPv4IPPool=["four"]
        ),
        "two": await agent.add(await make_pod(kube, defaulted, "two", ippool=ippool), defaultIPv4IPPool=["four"]),
        "three": await agent.add(await make_pod(kube, defaulted, "three"), defaultIPv4IPPool=["four"]),
        "four": await agent.add(await make_pod(kube, namespace, "four"), defaultIPv4IPPool=["four"]),
        "five": await agent.add(await make_pod(kube, namespace, "five"), defaultIPv4IPPool=None),
    }
    assert {name: answer.json["ips"][0]["ipPool"] for name, answer in given.items()} == {name: name for name in given}


async def test_a_pattern_stands_for_its_pools_in_alphabetical_order_where_it_is_listed(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    for index, name in enumerate(["rack7-b", "hall", "rack7-a"]):
        await make_pool(kube, name, f"10.20.{index}.1")
    await make_pool(kube, "rack7-six", "fd00::1", "fd00::/64")
    answers = [
        await agent.add(await make_pod(kube, namespace, f"cart-{index}", ippool={"ipv4": ["hall", "rack?-*"]}))
        for index in range(4)
    ]
    assert [answer.json["ips"][0]["ipPool"] for answer in answers[:3]] == ["hall", "rack7-a", "rack7-b"]
    assert (answers[3].status, answers[3].headers["X-Spiderpool-Reason"]) == (500, "PoolExhausted")
    assert all(f"{name}: no free address" in answers[3].json for name in ("hall", "rack7-a", "rack7-b"))


async def test_a_pattern_of_one_family_without_a_match_refuses_the_pod_and_names_the_pattern(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    pod = await make_pod(kube, namespace, "cart", ippool={"ipv4": ["a"], "ipv6": ["rack7-*"]})
    refusal = await agent.add(pod)
    assert (refusal.status, refusal.headers["X-Spiderpool-Reason"]) == (500, "NoPoolAvailable")
    assert "rack7-*: no IPv6 SpiderIPPool has such a name" in refusal.json
    with pytest.raises(NotFound):
        await kube.get(SPIDER_IP_ADDRESSES, "10.20.0.10")


async def test_the_short_form_gets_an_address_of_each_family_that_its_pools_have(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    await make_pool(kube, "six", "fd00::10", "fd00::/64")
    answer = await agent.add(await make_pod(kube, namespace, "cart", ippool="six,a"))
    assert sorted(answer.addresses) == ["10.20.0.10/16", "fd00::10/64"]
    refusal = await agent.add(await make_pod(kube, namespace, "pay", ippool="six,nowhere"))
    assert "nowhere: there is no SpiderIPPool of this name" in refusal.json


@pytest.mark.parametrize("first", ["eth0", "fast"])
async def test_items_without_interfaces_belong_to_the_place_in_multus_list_whatever_asks_first(
    agent: Agent, kube: KubeClient, namespace: str, first: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    await make_pool(kube, "b", "10.30.0.10", "10.30.0.0/16")
    pod = await make_pod(kube, namespace, "cart", ippools=[{"ipv4": ["a"]}, {"ipv4": ["b"]}], networks="m1@fast")
    for interface in (first, "fast" if first == "eth0" else "eth0"):
        answer = await agent.add(pod, interface=interface)
        held = {ip["nic"]: ip["address"] for ip in answer.json["ips"]}
        assert held[interface] == {"eth0": "10.20.0.10/16", "fast": "10.30.0.10/16"}[interface]


NEVER = {"matchLabels": {"never": "set"}}
# By pool: what its spec asks for, and why the pod is refused.
REFUSING: dict[str, tuple[dict[str, Any], str]] = {
    "disabled": ({"disable": True}, "the pool is disabled (spec.disable)"),
    "node-name": ({"nodeName": ["n2"]}, "node n1 is not in spec.nodeName"),
    "node-affinity": ({"nodeAffinity": NEVER}, "the labels of node n1 do not match spec.nodeAffinity"),
    "namespace-name": ({"namespaceName": ["lab"]}, "namespace {} is not in spec.namespaceName"),
    "namespace-affinity": (
        {"namespaceAffinity": NEVER},
        "the labels of namespace {} do not match spec.namespaceAffinity",
    ),
    "pod-affinity": ({"podAffinity": NEVER}, "the pod's labels do not match spec.podAffinity"),
    "multus-name": ({"multusName": ["netops/m1"]}, "network netops/m0 of eth0 is not in spec.multusName"),
    "excluded": (
        {"excludeIPs": ["10.20.7.0-10.20.7.9"]},
        "spec.excludeIPs, SpiderReservedIPs and the gateway leave no address of spec.ips",
    ),
    "reserved": ({}, "spec.excludeIPs, SpiderReservedIPs and the gateway leave no address of spec.ips"),
    "terminating": ({}, "the pool is being deleted"),
}


async def test_every_filter_refuses_with_its_reason_in_the_error_and_in_the_pods_event(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    for index, (name, (spec, _)) in enumerate(REFUSING.items()):
        await make_pool(kube, name, f"10.20.{index}.1-10.20.{index}.9", **spec)
    six = {"metadata": {"finalizers": ["spiderpool.spidernet.io"]}}
    await kube.patch(SPIDER_IP_POOLS, "terminating", six)
    await kube.delete(SPIDER_IP_POOLS, "terminating")
    await kube.create(
        SPIDER_RESERVED_IPS,
        {
            "apiVersion": API,
            "kind": "SpiderReservedIP",
            "metadata": {"name": "r"},
            "spec": {"ipVersion": 4, "ips": ["10.20.8.0-10.20.8.99"]},
        },
    )
    told, events = {}, {}
    for name in REFUSING:
        pod = await make_pod(kube, namespace, name, ippool={"ipv4": [name]})
        refusal = await agent.add(pod)
        assert (refusal.status, refusal.headers["X-Spiderpool-Reason"]) == (500, "NoPoolAvailable"), refusal.json
        told[name] = refusal.json.partition(f" {name}: ")[2]
        events[name] = (await told_about(kube, pod)) == [refusal.json]
    assert told == {name: why.format(namespace) for name, (_, why) in REFUSING.items()}
    assert all(events.values())
    assert (await kube.list(SPIDER_IP_ADDRESSES))["items"] == []


async def test_a_pod_that_all_pools_refuse_learns_each_reason_once_and_few_names(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    for index in range(12):
        await make_pool(kube, f"pool-{index:02}", f"10.20.{index}.1", disable=index < 11, nodeName=["n2"])
    pod = await make_pod(kube, namespace, "cart", ippool={"ipv4": ["pool-11", "*"]})
    refusal = await agent.add(pod)
    assert refusal.json.endswith(
        "pool-11: node n1 is not in spec.nodeName; "
        "pool-00, pool-01, pool-02, pool-03, pool-04, pool-05, pool-06, pool-07, pool-08: "
        "the pool is disabled (spec.disable) and node n1 is not in spec.nodeName; and 2 more"
    )
    assert await told_about(kube, pod) == [refusal.json]


async def test_pools_that_fit_the_pod_serve_it_the_closest_tie_first(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    ties: dict[str, dict[str, Any]] = {
        "any": {},
        "network": {"multusName": ["netops/m0"]},
        "team": {"namespaceName": [namespace]},
        "node": {"nodeName": ["n1"]},
        "app": {"podAffinity": {"matchLabels": {"app": "cart"}}},
    }
    for index, (name, spec) in enumerate(ties.items()):
        await make_pool(kube, name, f"10.20.{index}.1", **spec)
    got = []
    for index in range(len(ties)):
        answer = await agent.add(await make_pod(kube, namespace, f"cart-{index}", ippool={"ipv4": list(ties)}))
        got.append(answer.json["ips"][0]["ipPool"])
    assert got == ["app", "node", "team", "network", "any"]


async def test_pools_that_tie_nothing_are_tried_in_the_listed_order(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    listed = ["d", "a", "e", "b", "c"]
    for index, name in enumerate(listed):
        await make_pool(kube, name, f"10.20.{index}.1")
    got = []
    for index in range(len(listed)):
        answer = await agent.add(await make_pod(kube, namespace, f"cart-{index}", ippool={"ipv4": listed}))
        got.append(answer.json["ips"][0]["ipPool"])
    assert got == listed


async def test_routes_of_pool_and_pod_come_with_the_default_route_and_stand_in_the_endpoint(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    routes = [{"dst": "10.98.0.0/16", "gw": "10.20.0.253"}]
    await make_pool(kube, "a", "10.20.0.10", gateway="10.20.0.1", routes=routes)
    own = [{"dst": "10.99.0.0/16", "gw": "10.20.0.254"}]
    pod = await make_pod(kube, namespace, "cart", ippool={"ipv4": ["a"]}, routes=own)
    answer = await agent.add(pod)
    assert [(route["dst"], route["gw"]) for route in answer.json["routes"]] == [
        ("10.98.0.0/16", "10.20.0.253"),
        ("10.99.0.0/16", "10.20.0.254"),
        ("0.0.0.0/0", "10.20.0.1"),
    ]
    endpoint = await kube.get(SPIDER_ENDPOINTS, "cart", namespace=namespace)
    assert endpoint["status"]["current"]["ips"][0]["routes"] == [*routes, *own]


async def test_a_route_goes_to_the_interface_whose_subnet_holds_its_next_hop(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    await make_pool(kube, "b", "10.30.0.10", "10.30.0.0/16")
    ippools = [{"interface": "eth0", "ipv4": ["a"]}, {"interface": "net1", "ipv4": ["b"]}]
    own = [{"dst": "10.99.0.0/16", "gw": "10.30.0.254"}]
    answer = await agent.add(await make_pod(kube, namespace, "cart", ippools=ippools, routes=own))
    assert answer.json["routes"] == [{"ifName": "net1", "dst": "10.99.0.0/16", "gw": "10.30.0.254"}]


@pytest.mark.parametrize(
    ("annotations", "told"),
    [
        pytest.param(
            {"routes": [{"dst": "10.99.0.0/16", "gw": "fd00::1"}]},
            "routes at [0].gw must be an IPv4 address",
            id="families",
        ),
        pytest.param(
            {
                "ippools": [{"interface": "eth0", "ipv4": ["a"]}],
                "routes": [{"dst": "10.99.0.0/16", "gw": "10.99.0.1"}],
            },
            "a route through 10.99.0.1, which lies in no subnet",
            id="no next hop",
        ),
        pytest.param({"dns": {"nameservers": ["dns"]}}, 'dns at nameservers are addresses, and "dns" is', id="dns"),
        pytest.param({"ippool": {"ipv4": ["a["]}}, 'ippool at ipv4 is malformed: "a[" is no pattern', id="pattern"),
        pytest.param({"ippool": {"ipv4": [".."]}}, 'ippool at ipv4 lists "..", which cannot be', id="path"),
        pytest.param(
            {"ippool": r'{"ipv4": ["\ud800"]}'}, "ippool at ipv4 must be a list of pool names", id="half a pair"
        ),
        pytest.param({"ippool": {"ipv4": ["a", "a"]}}, 'ippool at ipv4 lists the pool "a" twice', id="double"),
        pytest.param({"ippools": [{"interface": "net1", "ipv4": ["a"]}]}, 'list the interface "eth0"', id="left out"),
    ],
)
async def test_a_wrong_annotation_is_refused_by_name_and_leaves_nothing(
    agent: Agent, kube: KubeClient, namespace: str, annotations: Mapping[str, object], told: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    pod = await make_pod(kube, namespace, "cart", **{"ippool": "a", **annotations})
    refusal = await agent.add(pod)
    assert (refusal.status, refusal.headers["X-Spiderpool-Reason"]) == (500, "InvalidRequest")
    assert told in refusal.json
    assert await told_about(kube, pod) == [refusal.json]
    assert (await kube.list(SPIDER_IP_ADDRESSES))["items"] == []


async def test_a_clean_gateway_leaves_the_default_route_out_and_is_the_items_own_in_ippools(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19", gateway="10.20.0.1")
    clean = [{"interface": "eth0", "ipv4": ["a"], "cleangateway": True}]
    dirty = [{"interface": "eth0", "ipv4": ["a"]}]
    answers = [
        await agent.add(await make_pod(kube, namespace, "one", ippools=clean)),
        await agent.add(await make_pod(kube, namespace, "two", ippools=dirty), cleanGateway=True),
        await agent.add(await make_pod(kube, namespace, "three", ippool="a"), cleanGateway=True),
    ]
    assert [[route["dst"] for route in answer.json["routes"]] for answer in answers] == [[], ["0.0.0.0/0"], []]
    assert all(answer.json["ips"][0]["gateway"] == "10.20.0.1" for answer in answers)


async def test_name_servers_of_the_pod_come_in_the_answer(agent: Agent, kube: KubeClient, namespace: str) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    dns = {"nameservers": ["10.20.0.53"], "search": ["shop.example.com"]}
    pod = await make_pod(kube, namespace, "cart", ippool="a", dns=dns)
    assert (await agent.add(pod)).json["dns"] == dns
    assert (await agent.add(await make_pod(kube, namespace, "pay", ippool="a"))).json["dns"] == {}


async def test_a_pool_that_cannot_be_read_is_told_as_that_and_the_next_one_serves(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    """CEL does not order IPv6 with a dotted end: such a reversed range is stored while the webhook is away."""
    await make_pool(kube, "reversed", "fd00::0.0.0.9-fd00::0.0.0.1", "fd00::/64")
    alone = await agent.add(await make_pod(kube, namespace, "alone", ippool={"ipv6": ["reversed"]}))
    assert 'reversed: SpiderIPPool reversed: "fd00::0.0.0.9-fd00::0.0.0.1" is reversed' in alone.json
    assert alone.json.startswith(f"pod {namespace}/alone: no IPv6 pool")
    await make_pool(kube, "right", "fd01::1-fd01::9", "fd01::/64")
    served = await agent.add(await make_pod(kube, namespace, "served", ippool={"ipv6": ["reversed", "right"]}))
    assert served.json["ips"][0]["ipPool"] == "right"
