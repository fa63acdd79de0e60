"""The agent's API through real processes on an API server: who gets which address, and who keeps it."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from allocator.kube.errors import AlreadyExists, NotFound
from allocator.kube.resources import (
    EVENTS,
    NAMESPACES,
    PODS,
    SPIDER_ENDPOINTS,
    SPIDER_IP_ADDRESSES,
    SPIDER_RESERVED_IPS,
    STATEFUL_SETS,
)
from devcluster.waiting import until
from tests.plane.agents import Agent, make_node, make_pod, make_pool, running_agent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane

API = "spiderpool.spidernet.io/v2beta1"
ONE = '{"ipv4": ["a"]}'


async def make_stateful_set(kube: KubeClient, namespace: str, replicas: int) -> Object:
    labels = {"app": "web"}
    annotations = {"ipam.spidernet.io/ippool": ONE}
    containers = [{"name": "main", "image": "none"}]
    template = {"metadata": {"labels": labels, "annotations": annotations}, "spec": {"containers": containers}}
    spec = {"replicas": replicas, "serviceName": "web", "selector": {"matchLabels": labels}, "template": template}
    meta = {"name": "web", "namespace": namespace}
    return await kube.create(
        STATEFUL_SETS, {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": spec}
    )


async def member(kube: KubeClient, owner: Object, ordinal: int, node: str) -> Object:
    """The StatefulSet's pod on this node: made here, or bound here where a real controller-manager made it first."""
    namespace, name = owner["metadata"]["namespace"], f"web-{ordinal}"
    try:
        return await make_pod(kube, namespace, name, node, ONE, owner)
    except AlreadyExists:
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        meta = {"name": name, "namespace": namespace}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": target}
        await kube.raw("POST", PODS.path(namespace, name, "binding"), body=binding)
        return await kube.get(PODS, name, namespace=namespace)


async def kill_pod(kube: KubeClient, pod: Object) -> None:
    """Delete the pod at once, as a kubelet does when its containers are gone."""
    meta = pod["metadata"]
    await kube.delete(PODS, meta["name"], namespace=meta["namespace"], grace_period_s=0)


async def state_of(kube: KubeClient, address: str) -> str:
    return str((await kube.get(SPIDER_IP_ADDRESSES, address))["spec"]["state"])


@pytest.fixture
async def agent(plane: Plane, kube: KubeClient, tmp_path: Path) -> AsyncIterator[Agent]:
    await make_node(kube, "n1")
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as running:
        yield running


async def test_a_pod_gets_an_address_of_its_pool_with_gateway_and_routes(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10", gateway="10.20.0.1", routes=[{"dst": "10.99.0.0/16", "gw": "10.20.0.254"}])
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    answer = await agent.add(pod)
    assert answer.json["ips"] == [
        {"address": "10.20.0.10/16", "gateway": "10.20.0.1", "ipPool": "a", "nic": "eth0", "version": 4}
    ]
    assert answer.json["routes"] == [
        {"ifName": "eth0", "dst": "10.99.0.0/16", "gw": "10.20.0.254"},
        {"ifName": "eth0", "dst": "0.0.0.0/0", "gw": "10.20.0.1"},
    ]


async def test_the_answer_comes_after_the_address_object_and_the_endpoint_are_written(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    assert (await agent.add(pod)).addresses == ["10.20.0.10/16"]
    spec = (await kube.get(SPIDER_IP_ADDRESSES, "10.20.0.10"))["spec"]
    assert (spec["state"], spec["pool"], spec["holder"]) == (
        "Held",
        "a",
        {
            "namespace": namespace,
            "pod": "cart",
            "podUID": pod["metadata"]["uid"],
            "interface": "eth0",
            "node": "n1",
            "containerID": "c1",
        },
    )
    endpoint = await kube.get(SPIDER_ENDPOINTS, "cart", namespace=namespace)
    assert endpoint["status"] == {
        "ownerControllerType": "Pod",
        "ownerControllerName": "cart",
        "current": {
            "uid": pod["metadata"]["uid"],
            "node": "n1",
            "ips": [{"interface": "eth0", "ipv4": "10.20.0.10/16", "ipv4Pool": "a", "vlan": 0}],
        },
    }


async def test_an_ipv6_address_is_named_by_its_eight_groups(agent: Agent, kube: KubeClient, namespace: str) -> None:
    await make_pool(kube, "six", "fd00::10", "fd00::/64")
    pod = await make_pod(kube, namespace, "cart", "n1", '{"ipv6": ["six"]}')
    assert (await agent.add(pod)).addresses == ["fd00::10/64"]
    assert await state_of(kube, "fd00-0-0-0-0-0-0-10") == "Held"


async def test_dual_stack_is_all_or_nothing(agent: Agent, kube: KubeClient, namespace: str) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    await make_pool(kube, "six", "fd00::10", "fd00::/64")
    await agent.add(await make_pod(kube, namespace, "first", "n1", '{"ipv6": ["six"]}'))
    pod = await make_pod(kube, namespace, "cart", "n1", '{"ipv4": ["a"], "ipv6": ["six"]}')
    refusal = await agent.add(pod)
    assert (refusal.status, refusal.headers["X-Spiderpool-Reason"]) == (500, "PoolExhausted")
    assert "six: no free address" in refusal.json
    with pytest.raises(NotFound):
        await kube.get(SPIDER_IP_ADDRESSES, "10.20.0.10")


async def test_a_repeated_add_and_a_new_sandbox_keep_the_address_on_a_full_pool(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    for container in ("c1", "c1", "c2"):
        assert (await agent.add(pod, container=container)).addresses == ["10.20.0.10/16"]
    record = await kube.get(SPIDER_IP_ADDRESSES, "10.20.0.10")
    assert record["spec"]["holder"]["containerID"] == "c2"


async def test_two_interfaces_on_one_pool_get_two_addresses(agent: Agent, kube: KubeClient, namespace: str) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.11")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    got = (await agent.add(pod)).addresses + (await agent.add(pod, interface="net1")).addresses
    assert sorted(got) == ["10.20.0.10/16", "10.20.0.11/16"]
    endpoint = await kube.get(SPIDER_ENDPOINTS, "cart", namespace=namespace)
    assert [each["interface"] for each in endpoint["status"]["current"]["ips"]] == ["eth0", "net1"]


async def test_the_add_of_a_second_interface_leaves_what_the_endpoint_says_of_the_first(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.11", gateway="10.20.0.1")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    first = await agent.add(pod, cleanGateway=True)
    second = await agent.add(pod, interface="net1")
    assert [[route["dst"] for route in each.json["routes"]] for each in (first, second)] == [[], ["0.0.0.0/0"]]
    endpoint = await kube.get(SPIDER_ENDPOINTS, "cart", namespace=namespace)
    assert {each["interface"]: each["cleanGateway"] for each in endpoint["status"]["current"]["ips"]} == {
        "eth0": True,
        "net1": False,
    }


async def test_a_refused_add_leaves_no_endpoint_that_shows_what_the_pod_does_not_hold(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    pod = await make_pod(kube, namespace, "cart", "n1", '{"ipv4": ["a"], "ipv6": ["nowhere"]}')
    assert (await agent.add(pod)).status == 500
    with pytest.raises(NotFound):
        await kube.get(SPIDER_ENDPOINTS, "cart", namespace=namespace)


async def test_excluded_and_reserved_addresses_are_never_given(agent: Agent, kube: KubeClient, namespace: str) -> None:
    await make_pool(kube, "a", "10.20.0.2-10.20.0.5", gateway="10.20.0.1", excludeIPs=["10.20.0.2"])
    await kube.create(
        SPIDER_RESERVED_IPS,
        {
            "apiVersion": API,
            "kind": "SpiderReservedIP",
            "metadata": {"name": "r"},
            "spec": {"ipVersion": 4, "ips": ["10.20.0.3-10.20.0.4"]},
        },
    )
    got = []
    for index in range(2):
        pod = await make_pod(kube, namespace, f"cart-{index}", "n1", ONE)
        got.append(await agent.add(pod))
    assert (got[0].addresses, got[1].status) == (["10.20.0.5/16"], 500)


async def test_an_exhausted_pool_falls_back_to_the_next_in_the_list(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    await make_pool(kube, "b", "10.20.0.20")
    pools = [
        (await agent.add(await make_pod(kube, namespace, f"cart-{index}", "n1", '{"ipv4": ["a", "b"]}'))).addresses
        for index in range(2)
    ]
    assert pools == [["10.20.0.10/16"], ["10.20.0.20/16"]]


async def test_namespace_and_cluster_defaults_serve_pods_without_annotations(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10", default=True)
    await make_pool(kube, "b", "10.20.0.20")
    assert (await agent.add(await make_pod(kube, namespace, "one", "n1"))).addresses == ["10.20.0.10/16"]
    note = {"metadata": {"annotations": {"ipam.spidernet.io/default-ipv4-ippool": '["b"]'}}}
    await kube.patch(NAMESPACES, namespace, note)
    pod = await make_pod(kube, namespace, "two", "n1")

    async def second() -> list[str]:
        answer = await agent.add(pod)
        return answer.addresses if answer.status == 200 else []

    # The agent's watch shows the annotation a moment after the write; until then pool a is refused as exhausted.
    got = await until(second, within_s=10, what="the namespace's default")
    assert got == ["10.20.0.20/16"]


async def test_del_of_a_living_pod_frees_nothing(agent: Agent, kube: KubeClient, namespace: str) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    await agent.add(pod)
    assert (await agent.delete(pod)).status == 200
    assert await state_of(kube, "10.20.0.10") == "Held"


async def test_del_of_a_dead_pod_lets_its_address_cool_and_takes_its_endpoint_away(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    await agent.add(pod)
    await kill_pod(kube, pod)
    for _ in range(3):
        assert (await agent.delete(pod)).status == 200
    assert await state_of(kube, "10.20.0.10") == "Cooling"
    with pytest.raises(NotFound):
        await kube.get(SPIDER_ENDPOINTS, "cart", namespace=namespace)


async def test_a_del_that_names_no_pod_finds_it_by_the_sandbox(agent: Agent, kube: KubeClient, namespace: str) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    await agent.add(pod)
    nameless = {"metadata": {"namespace": "", "name": "", "uid": ""}}
    assert (await agent.delete(nameless)).status == 200
    assert await state_of(kube, "10.20.0.10") == "Held"
    await kill_pod(kube, pod)
    assert (await agent.delete(nameless, container="unknown")).status == 200
    assert await state_of(kube, "10.20.0.10") == "Held"
    assert (await agent.delete(nameless)).status == 200
    assert await state_of(kube, "10.20.0.10") == "Cooling"
    refusal = await agent.add(nameless)
    assert (refusal.headers["X-Spiderpool-Reason"], "CNI_ARGS" in refusal.json) == ("InvalidRequest", True)


async def test_a_late_del_of_an_old_sandbox_leaves_the_new_one_alone(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    await agent.add(pod, container="c1")
    await agent.add(pod, container="c2")
    await kill_pod(kube, pod)
    await agent.delete(pod, container="c1")
    assert await state_of(kube, "10.20.0.10") == "Held"
    await agent.delete(pod, container="c2")
    assert await state_of(kube, "10.20.0.10") == "Cooling"


async def test_a_predecessors_del_never_touches_a_pod_of_the_same_name(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.11")
    first = await make_pod(kube, namespace, "cart", "n1", ONE)
    old = (await agent.add(first)).addresses[0].removesuffix("/16")
    await kill_pod(kube, first)
    second = await make_pod(kube, namespace, "cart", "n1", ONE)
    new = (await agent.add(second)).addresses[0].removesuffix("/16")
    await agent.delete(first)
    assert (await state_of(kube, old), await state_of(kube, new)) == ("Cooling", "Held")
    endpoint = await kube.get(SPIDER_ENDPOINTS, "cart", namespace=namespace)
    assert endpoint["status"]["current"]["uid"] == second["metadata"]["uid"]


async def test_the_only_address_is_given_while_it_still_cools_rather_than_none(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    first = await make_pod(kube, namespace, "one", "n1", ONE)
    await agent.add(first)
    await kill_pod(kube, first)
    await agent.delete(first)
    second = await make_pod(kube, namespace, "two", "n1", ONE)
    assert (await agent.add(second)).addresses == ["10.20.0.10/16"]


async def test_a_cooling_address_waits_while_another_one_is_free(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.11")
    first = await make_pod(kube, namespace, "one", "n1", ONE)
    cooling = (await agent.add(first)).addresses
    await kill_pod(kube, first)
    await agent.delete(first)
    second = await make_pod(kube, namespace, "two", "n1", ONE)
    assert (await agent.add(second)).addresses != cooling


async def test_a_stateful_pod_gets_its_address_back_on_another_node_and_a_full_pool(
    agent: Agent, kube: KubeClient, namespace: str, plane: Plane, tmp_path: Path
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    owner = await make_stateful_set(kube, namespace, replicas=1)
    first = await member(kube, owner, 0, "n1")
    await agent.add(first)
    await kill_pod(kube, first)
    await agent.delete(first)
    assert await state_of(kube, "10.20.0.10") == "Retained"
    await make_node(kube, "n2")
    async with running_agent(plane.kubeconfig, "n2", tmp_path) as other:
        second = await member(kube, owner, 0, "n2")
        assert (await other.add(second)).addresses == ["10.20.0.10/16"]
    endpoint = await kube.get(SPIDER_ENDPOINTS, "web-0", namespace=namespace)
    assert endpoint["status"]["current"]["node"] == "n2"


async def test_a_stateful_pod_above_the_replicas_gives_its_address_back(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    owner = await make_stateful_set(kube, namespace, replicas=1)
    pod = await make_pod(kube, namespace, "web-1", "n1", ONE, owner)
    await agent.add(pod)
    await kill_pod(kube, pod)
    await agent.delete(pod)
    assert await state_of(kube, "10.20.0.10") == "Cooling"


async def test_a_restarted_agent_finds_what_it_gave_and_carries_out_stored_intents(
    kube: KubeClient, namespace: str, plane: Plane, tmp_path: Path
) -> None:
    await make_pool(kube, "a", "10.20.0.10-10.20.0.11")
    await make_node(kube, "n1")
    living = await make_pod(kube, namespace, "living", "n1", ONE)
    dying = await make_pod(kube, namespace, "dying", "n1", ONE)
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as before:
        kept = (await before.add(living)).addresses
        freed = (await before.add(dying)).addresses[0].removesuffix("/16")
    await kill_pod(kube, dying)
    intents = tmp_path / "n1" / "intents"
    intents.mkdir()
    (intents / "torn.json").write_text('{"containerID": "c1", "ifNa')
    meta = dying["metadata"]
    body = {"containerID": "c1", "ifName": "eth0", "podNamespace": namespace, "podName": "dying", "podUID": meta["uid"]}
    (intents / "kept.json").write_text(json.dumps(body))

    async def carried_out() -> bool:
        return not list(intents.iterdir())

    async with running_agent(plane.kubeconfig, "n1", tmp_path) as after:
        assert (await after.add(living)).addresses == kept
        await until(carried_out, within_s=15, what="the intents to be carried out")
    assert await state_of(kube, freed) == "Cooling"


async def test_a_refusal_becomes_an_event_of_the_pod(agent: Agent, kube: KubeClient, namespace: str) -> None:
    pod = await make_pod(kube, namespace, "cart", "n1", '{"ipv4": ["nowhere"]}')
    refusal = await agent.add(pod)
    assert (refusal.headers["X-Spiderpool-Reason"], refusal.headers["X-Spiderpool-CNI-Code"]) == (
        "NoPoolAvailable",
        "999",
    )

    async def events_of() -> list[Object]:
        return list((await kube.list(EVENTS, namespace=namespace))["items"])

    events = await until(events_of, within_s=10, what="the event")
    assert events[0]["reason"] == "NoPoolAvailable"
    assert refusal.json == f"pod {namespace}/cart: {events[0]['note']}"
    assert events[0]["regarding"]["uid"] == pod["metadata"]["uid"]


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        pytest.param({"data": b"{", "headers": {"Content-Type": "application/json"}}, 400, "not JSON", id="no JSON"),
        pytest.param({"json": {"podName": "x"}}, 422, "containerID in body is required", id="members missing"),
        pytest.param({"json": {"containerID": None}}, 422, "containerID in body is required", id="null"),
        pytest.param({"data": b"{}"}, 415, "only [application/json]", id="no content type"),
        pytest.param({"json": {"containerID": "x" * 270_000}}, 413, "", id="over the limit"),
        pytest.param(
            {"data": b"[" * 50_000, "headers": {"Content-Type": "application/json"}}, 422, "", id="deep nesting"
        ),
    ],
)
async def test_a_bad_body_is_refused_without_a_traceback(
    agent: Agent, options: dict[str, Any], status: int, told: str
) -> None:
    for method in ("POST", "DELETE"):
        answer = await agent.call(method, "/v1/ipam/ip", **options)
        assert (answer.status, answer.json["code"] >= 400) == (status, True)
        assert told in answer.json["message"]
        assert "Traceback" not in str(answer.json)


async def test_unknown_paths_and_methods_answer_404_and_405(agent: Agent) -> None:
    assert (await agent.call("GET", "/v1/nothing")).status == 404
    answer = await agent.call("PUT", "/v1/ipam/ip")
    assert (answer.status, answer.headers["Allow"]) == (405, "DELETE,POST")


async def test_probes_and_the_workload_endpoint_answer_on_the_socket(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    for path in ("ipam/healthy", "runtime/startup", "runtime/readiness", "runtime/liveness"):
        assert (await agent.call("GET", f"/v1/{path}")).status == 200
    await make_pool(kube, "a", "10.20.0.10")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    await agent.add(pod)
    query = f"podNamespace={namespace}&podName=cart"
    found = await agent.call("GET", f"/v1/workloadendpoint?{query}")
    assert found.json["interfaces"] == [{"interface": "eth0", "routes": [], "ipv4": "10.20.0.10/16", "ipv4Pool": "a"}]
    assert (await agent.call("GET", f"/v1/workloadendpoint?{query}x")).status == 404


async def test_the_socket_is_for_its_owner_only_and_goes_with_the_agent(
    kube: KubeClient, plane: Plane, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as running:
        assert stat.S_IMODE(running.socket.stat().st_mode) == 0o600
    assert (running.process.returncode, running.socket.exists()) == (0, False)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which takes root")
async def test_another_user_is_turned_away_even_where_the_sockets_mode_would_let_him_in(
    plane: Plane, kube: KubeClient
) -> None:
    await make_node(kube, "n1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with running_agent(plane.kubeconfig, "n1", folder) as agent:
            await asyncio.to_thread(folder.chmod, 0o755)
            agent.socket.chmod(0o666)
            ask = (
                "import os, socket; os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
                f"s.connect({str(agent.socket)!r}); s.sendall(b'GET /v1/ipam/healthy HTTP/1.0\\r\\n\\r\\n'); "
                "print(s.makefile().read())"
            )
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", ask, stdout=asyncio.subprocess.PIPE)
            out, _ = await process.communicate()
    assert " 403 " in out.decode().splitlines()[0]
    assert "user 65534 may not ask" in out.decode()


@pytest.mark.timeout(240)
async def test_200_concurrent_adds_over_4_agents_on_200_addresses_all_succeed_without_a_duplicate(
    kube: KubeClient, namespace: str, plane: Plane, tmp_path: Path
) -> None:
    await make_pool(kube, "a", "10.20.0.1-10.20.0.200")
    nodes = [f"n{index}" for index in range(4)]
    for node in nodes:
        await make_node(kube, node)
    pods = [await make_pod(kube, namespace, f"p{index}", nodes[index % 4], ONE) for index in range(200)]
    async with AsyncExitStack() as stack:
        agents = {
            node: await stack.enter_async_context(running_agent(plane.kubeconfig, node, tmp_path)) for node in nodes
        }
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(agents[pod["spec"]["nodeName"]].add(pod)) for pod in pods]
        answers = [task.result() for task in tasks]
    refusals = Counter(str(answer.json) for answer in answers if answer.status != 200)
    assert not refusals
    given = {answer.addresses[0] for answer in answers}
    assert given == {f"10.20.0.{index}/16" for index in range(1, 201)}
    records, _ = await kube.list_all(SPIDER_IP_ADDRESSES, field_selector="spec.pool=a")
    assert Counter(record["spec"]["state"] for record in records) == {"Held": 200}
    assert len({record["spec"]["holder"]["podUID"] for record in records}) == 200
