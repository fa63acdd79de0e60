"""Virtual machines of KubeVirt keep their addresses: through restarts, moves and stops, until they are deleted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from allocator.kube.errors import NotFound
from allocator.kube.resources import MACHINE_INSTANCES, MACHINES, PODS, SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES
from tests.plane import machines
from tests.plane.agents import Agent, make_node, make_pool, running_agent
from tests.plane.machines import MIGRATION, make_launcher, make_machine, remove, start
from tests.plane.test_agent import kill_pod, state_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane

ADDRESS = "10.20.0.10"
ONE = {"ipam.spidernet.io/ippool": '{"ipv4": ["a"]}'}
TWO = {
    "ipam.spidernet.io/ippools": json.dumps(
        [{"interface": "eth0", "ipv4": ["a"]}, {"interface": "net1", "ipv4": ["b"]}]
    )
}


@pytest.fixture(scope="module", autouse=True)
def kubevirt(plane: Plane) -> Iterator[None]:
    machines.run(plane, machines.install)
    yield
    machines.run(plane, machines.uninstall)


@pytest.fixture(autouse=True)
async def pool(kube: KubeClient) -> None:
    """With no address to spare."""
    await make_node(kube, "n1")
    await make_node(kube, "n2")
    await make_pool(kube, "a", ADDRESS)


@pytest.fixture
async def agent(plane: Plane, kube: KubeClient, tmp_path: Path) -> AsyncIterator[Agent]:
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as running:
        yield running


@pytest.fixture
async def other(plane: Plane, kube: KubeClient, tmp_path: Path) -> AsyncIterator[Agent]:
    async with running_agent(plane.kubeconfig, "n2", tmp_path) as running:
        yield running


@pytest.fixture
async def machine(kube: KubeClient, namespace: str) -> Object:
    return await make_machine(kube, namespace)


@pytest.fixture
async def instance(kube: KubeClient, namespace: str, machine: Object) -> Object:
    return await start(kube, namespace, machine=machine)


async def restart(kube: KubeClient, namespace: str, machine: Object, instance: Object) -> Object:
    await remove(kube, MACHINE_INSTANCES, instance)
    return await start(kube, namespace, machine=machine)


async def spec_of(kube: KubeClient, address: str = ADDRESS) -> Object:
    spec: Object = (await kube.get(SPIDER_IP_ADDRESSES, address))["spec"]
    return spec


async def endpoint_of(kube: KubeClient, namespace: str) -> Object:
    return await kube.get(SPIDER_ENDPOINTS, "ledger", namespace=namespace)


def holders(spec: Object, *pods: Object) -> bool:
    """Whether the record speaks of these pods, the holder first."""
    uids = [spec[party]["podUID"] for party in ("holder", "peer") if party in spec]
    return uids == [pod["metadata"]["uid"] for pod in pods]


async def test_a_restarted_machine_gets_the_addresses_of_all_interfaces_back_on_another_node(
    agent: Agent, other: Agent, kube: KubeClient, namespace: str, machine: Object, instance: Object
) -> None:
    await make_pool(kube, "b", "10.20.0.20")
    first = await make_launcher(kube, instance, "aaaaa", "n1", TWO)
    given = (await agent.add(first)).addresses
    await agent.add(first, interface="net1")
    await kill_pod(kube, first)
    for interface in ("eth0", "net1"):
        await agent.delete(first, interface=interface)
    assert [await state_of(kube, text) for text in (ADDRESS, "10.20.0.20")] == ["Retained", "Retained"]
    second = await make_launcher(kube, await restart(kube, namespace, machine, instance), "bbbbb", "n2", TWO)
    assert (await other.add(second)).addresses == given == ["10.20.0.10/16", "10.20.0.20/16"]
    assert (await other.add(second, interface="net1")).status == 200
    for text in (ADDRESS, "10.20.0.20"):
        assert holders(await spec_of(kube, text), second)


async def test_a_restart_does_not_wait_for_the_del_of_the_launcher_before(
    agent: Agent, other: Agent, kube: KubeClient, namespace: str, machine: Object, instance: Object
) -> None:
    first = await make_launcher(kube, instance, "aaaaa", "n1", ONE)
    await agent.add(first)
    await kill_pod(kube, first)
    second = await make_launcher(kube, await restart(kube, namespace, machine, instance), "bbbbb", "n2", ONE)
    assert (await other.add(second)).addresses == ["10.20.0.10/16"]
    assert (await agent.delete(first)).status == 200
    assert holders(await spec_of(kube), second)


async def test_the_endpoint_has_the_name_of_the_machine_and_no_pod_owns_it(
    agent: Agent, kube: KubeClient, namespace: str, instance: Object
) -> None:
    launcher = await make_launcher(kube, instance, "aaaaa", "n1", ONE)
    await agent.add(launcher)
    endpoint = await endpoint_of(kube, namespace)
    assert "ownerReferences" not in endpoint["metadata"]
    status = endpoint["status"]
    assert (status["ownerControllerType"], status["ownerControllerName"]) == ("VirtualMachineInstance", "ledger")
    assert (status["current"]["uid"], status["current"]["node"]) == (launcher["metadata"]["uid"], "n1")


async def test_a_stopped_machine_keeps_its_address_and_a_deleted_one_does_not(
    agent: Agent, kube: KubeClient, namespace: str, machine: Object, instance: Object
) -> None:
    launcher = await make_launcher(kube, instance, "aaaaa", "n1", ONE)
    await agent.add(launcher)
    await kill_pod(kube, launcher)
    await remove(kube, MACHINE_INSTANCES, instance)
    await agent.delete(launcher)
    assert await state_of(kube, ADDRESS) == "Retained"
    assert await endpoint_of(kube, namespace)
    second = await make_launcher(kube, await start(kube, namespace, machine=machine), "bbbbb", "n1", ONE)
    await agent.add(second)
    await kill_pod(kube, second)
    await remove(kube, MACHINE_INSTANCES, instance)
    await remove(kube, MACHINES, machine)
    await agent.delete(second)
    assert await state_of(kube, ADDRESS) == "Cooling"
    with pytest.raises(NotFound):
        await endpoint_of(kube, namespace)


async def test_the_target_of_a_migration_has_the_address_beside_its_source_and_goes_on_with_it(
    agent: Agent, other: Agent, kube: KubeClient, namespace: str, instance: Object
) -> None:
    source = await make_launcher(kube, instance, "aaaaa", "n1", ONE)
    target = await make_launcher(kube, instance, "bbbbb", "n2", ONE | MIGRATION)
    given = (await agent.add(source)).addresses
    assert (await other.add(target)).addresses == given
    assert holders(await spec_of(kube), target, source)
    assert (await agent.add(source)).addresses == given
    assert holders(await spec_of(kube), source, target)
    assert (await other.add(target, container="c2")).addresses == given
    assert holders(await spec_of(kube), target, source)
    await kill_pod(kube, source)
    await agent.delete(source)
    assert await state_of(kube, ADDRESS) == "Held"
    third = await make_launcher(kube, instance, "ccccc", "n1", ONE | MIGRATION)
    assert (await agent.add(third)).addresses == given
    assert holders(await spec_of(kube), third, target)


async def test_a_migration_that_fails_leaves_the_address_to_its_source(
    agent: Agent, other: Agent, kube: KubeClient, namespace: str, instance: Object
) -> None:
    source = await make_launcher(kube, instance, "aaaaa", "n1", ONE)
    target = await make_launcher(kube, instance, "bbbbb", "n2", ONE | MIGRATION)
    await agent.add(source)
    await other.add(target)
    await kill_pod(kube, target)
    await other.delete(target)
    assert await state_of(kube, ADDRESS) == "Held"
    assert holders(await spec_of(kube), source)
    current = (await endpoint_of(kube, namespace))["status"]["current"]
    assert (current["uid"], current["node"]) == (source["metadata"]["uid"], "n1")
    assert (await other.delete(target)).status == 200
    assert (await agent.add(source, container="c2")).addresses == ["10.20.0.10/16"]


async def test_both_ends_of_a_migration_must_be_gone_before_the_address_is_given_back(
    agent: Agent, other: Agent, kube: KubeClient, namespace: str, machine: Object, instance: Object
) -> None:
    source = await make_launcher(kube, instance, "aaaaa", "n1", ONE)
    target = await make_launcher(kube, instance, "bbbbb", "n2", ONE | MIGRATION)
    await agent.add(source)
    await other.add(target)
    await remove(kube, MACHINES, machine)
    await remove(kube, MACHINE_INSTANCES, instance)
    await kill_pod(kube, target)
    await other.delete(target)
    assert holders(await spec_of(kube), source)
    await kill_pod(kube, source)
    await agent.delete(source)
    assert await state_of(kube, ADDRESS) == "Cooling"


async def test_a_second_launcher_that_is_no_migration_waits_until_the_first_is_gone(
    agent: Agent, other: Agent, kube: KubeClient, namespace: str, machine: Object, instance: Object
) -> None:
    first = await make_launcher(kube, instance, "aaaaa", "n1", ONE)
    await agent.add(first)
    second = await make_launcher(kube, await restart(kube, namespace, machine, instance), "bbbbb", "n2", ONE)
    refusal = await other.add(second)
    assert (refusal.headers["X-Spiderpool-Reason"], refusal.headers["X-Spiderpool-CNI-Code"]) == ("SlotInUse", "11")
    assert f"{namespace}/virt-launcher-ledger-aaaaa" in refusal.json
    # Its node is cut off: that it is being deleted does not say that it has ended.
    await kube.delete(PODS, "virt-launcher-ledger-aaaaa", namespace=namespace, grace_period_s=600)
    refusal = await other.add(second)
    assert (refusal.headers["X-Spiderpool-Reason"], "out-of-service" in refusal.json) == ("SlotInUse", True)
    assert holders(await spec_of(kube), first)
    await kill_pod(kube, first)
    assert (await other.add(second)).addresses == ["10.20.0.10/16"]


async def test_the_successor_of_a_launcher_that_has_ended_gets_its_address_while_its_pod_is_still_there(
    agent: Agent, other: Agent, kube: KubeClient, namespace: str, machine: Object, instance: Object
) -> None:
    first = await make_launcher(kube, instance, "aaaaa", "n1", ONE)
    await agent.add(first)
    status = {"status": {"phase": "Succeeded"}}
    await kube.patch(PODS, first["metadata"]["name"], status, namespace=namespace, subresource="status")
    second = await make_launcher(kube, await restart(kube, namespace, machine, instance), "bbbbb", "n2", ONE)
    assert (await other.add(second)).addresses == ["10.20.0.10/16"]


async def test_two_machines_do_not_share_an_address_whatever_a_pod_says_of_migrations(
    agent: Agent, kube: KubeClient, namespace: str, instance: Object
) -> None:
    await agent.add(await make_launcher(kube, instance, "aaaaa", "n1", ONE))
    other = await start(kube, namespace, "orders")
    refusal = await agent.add(await make_launcher(kube, other, "bbbbb", "n1", ONE | MIGRATION))
    assert refusal.headers["X-Spiderpool-Reason"] == "PoolExhausted"


async def test_a_machine_that_moves_to_another_pool_gives_its_old_address_back(
    agent: Agent, kube: KubeClient, namespace: str, machine: Object, instance: Object
) -> None:
    await make_pool(kube, "b", "10.20.0.20")
    first = await make_launcher(kube, instance, "aaaaa", "n1", ONE)
    await agent.add(first)
    await kill_pod(kube, first)
    moved = {"ipam.spidernet.io/ippool": '{"ipv4": ["b"]}'}
    second = await make_launcher(kube, await restart(kube, namespace, machine, instance), "bbbbb", "n1", moved)
    assert (await agent.add(second)).addresses == ["10.20.0.20/16"]
    assert await state_of(kube, ADDRESS) == "Cooling"


async def test_where_static_addresses_of_machines_are_switched_off_a_launcher_is_a_pod_like_any_other(
    plane: Plane, kube: KubeClient, instance: Object, tmp_path: Path
) -> None:
    conf = tmp_path / "conf.yml"
    conf.write_text("enableKubevirtStaticIP: false\n")
    launcher = await make_launcher(kube, instance, "aaaaa", "n1", ONE)
    meta = launcher["metadata"]
    async with running_agent(plane.kubeconfig, "n1", tmp_path, "--config", str(conf)) as agent:
        await agent.add(launcher)
        endpoint = await kube.get(SPIDER_ENDPOINTS, meta["name"], namespace=meta["namespace"])
        assert [owner["uid"] for owner in endpoint["metadata"]["ownerReferences"]] == [meta["uid"]]
        assert "slot" not in await spec_of(kube)
        await kill_pod(kube, launcher)
        await agent.delete(launcher)
    assert await state_of(kube, ADDRESS) == "Cooling"


async def test_where_kubevirts_kinds_are_not_served_a_launchers_address_is_kept(
    agent: Agent, kube: KubeClient, plane: Plane, namespace: str, instance: Object
) -> None:
    launcher = await make_launcher(kube, instance, "aaaaa", "n1", ONE)
    await agent.add(launcher)
    await kill_pod(kube, launcher)
    await machines.uninstall(kube)
    try:
        assert (await agent.delete(launcher)).status == 200
        assert await state_of(kube, ADDRESS) == "Retained"
    finally:
        await machines.install(kube)


async def test_the_agent_shows_a_machines_addresses_under_its_own_name_and_under_its_launchers(
    agent: Agent, kube: KubeClient, namespace: str, instance: Object
) -> None:
    pod = await make_launcher(kube, instance, "aaaaa", "n1", ONE)
    await agent.add(pod)
    for name in ("ledger", pod["metadata"]["name"]):
        found = await agent.call("GET", f"/v1/workloadendpoint?podNamespace={namespace}&podName={name}")
        assert (found.json["podName"], found.json["interfaces"][0]["ipv4"]) == (
            pod["metadata"]["name"],
            f"{ADDRESS}/16",
        )
