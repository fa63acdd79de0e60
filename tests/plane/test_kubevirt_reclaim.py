"""What the controller does with the addresses of virtual machines, turn by turn."""

from __future__ import annotations

import json
import random
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from allocator.domain.request import Owner
from allocator.domain.slots import KNOWN, MACHINE_INSTANCE, STATEFUL_SET, slot_of
from allocator.kube.errors import NotFound
from allocator.kube.resources import MACHINE_INSTANCES, MACHINES, PODS, SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES
from allocator.kube.slots import Slots
from allocator.runtime.clock import SystemClock
from controller.tidy import OrphanEndpoints
from devcluster.waiting import until, until_true
from tests.plane import machines
from tests.plane.agents import make_node
from tests.plane.controllers import (
    NOBODY,
    find,
    make_pool,
    make_record,
    running_controller,
    state_of,
    until_state,
    until_status,
)
from tests.plane.machines import MIGRATION, begin_to_delete, make_launcher, make_machine, remove, start
from tests.plane.test_agent import kill_pod
from tests.plane.turns import GRACE_S, leading, reclaim, two_sightings
from tests.unit.fake_clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from allocator.domain.record import Slot
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from controller.books import Books
    from controller.reclaim import Hands, Reclaim
    from devcluster.plane import Plane

ADDRESS = "10.30.0.1"


@pytest.fixture(scope="module", autouse=True)
def kubevirt(plane: Plane) -> Iterator[None]:
    machines.run(plane, machines.install)
    yield
    machines.run(plane, machines.uninstall)


@pytest.fixture(autouse=True)
async def pool(kube: KubeClient) -> None:
    await make_node(kube, "node-1")
    await make_pool(kube, "machines", "10.30.0.1-10.30.0.250")


@pytest.fixture
async def machine(kube: KubeClient, namespace: str) -> Object:
    return await make_machine(kube, namespace)


@pytest.fixture
async def instance(kube: KubeClient, namespace: str, machine: Object) -> Object:
    return await start(kube, namespace, machine=machine)


def slot(namespace: str, name: str = "ledger") -> Slot:
    found = slot_of(namespace, "", Owner(*MACHINE_INSTANCE, name))
    assert found is not None
    return found


def party(launcher: Object) -> Object:
    meta = launcher["metadata"]
    where = {"interface": "eth0", "node": launcher["spec"]["nodeName"], "containerID": "c1"}
    return {"namespace": meta["namespace"], "pod": meta["name"], "podUID": meta["uid"], **where}


async def holds(kube: KubeClient, instance: Object, *launchers: Object, state: str = "Held") -> None:
    """The record of the machine's launchers, the holder first, and the endpoint that speaks of the holder."""
    meta, parties = instance["metadata"], [party(launcher) for launcher in launchers]
    peer = {"peer": parties[1]} if len(parties) > 1 else {}
    said: dict[str, Any] = {"holder": parties[0], "slot": machines.slot_of(instance), "state": state, **peer}
    await make_record(kube, ADDRESS, "machines", meta["namespace"], "", "", **said)
    await make_endpoint(kube, meta["namespace"], parties[0]["podUID"])


async def make_endpoint(kube: KubeClient, namespace: str, pod_uid: str) -> None:
    ip = {"interface": "eth0", "ipv4": f"{ADDRESS}/16", "ipv4Pool": "machines", "vlan": 0}
    status = {
        "current": {"uid": pod_uid, "node": "node-1", "ips": [ip]},
        "ownerControllerType": "VirtualMachineInstance",
        "ownerControllerName": "ledger",
    }
    meta = {"name": "ledger", "namespace": namespace}
    body = {"apiVersion": SPIDER_ENDPOINTS.api_version, "kind": "SpiderEndpoint", "metadata": meta, "status": status}
    await kube.create(SPIDER_ENDPOINTS, body)


async def endpoint_uid(kube: KubeClient, namespace: str) -> str:
    """The pod that the endpoint speaks of, "" when there is no endpoint."""
    try:
        found = await kube.get(SPIDER_ENDPOINTS, "ledger", namespace=namespace)
    except NotFound:
        return ""
    return str(found["status"]["current"]["uid"])


@asynccontextmanager
async def leader(kube: KubeClient, clock: FakeClock) -> AsyncIterator[Reclaim]:
    """Reclaim, with caches of KubeVirt's kinds that are filled."""
    seen: list[Books] = []

    def build(books: Books, hands: Hands) -> Reclaim:
        seen.append(books)
        return reclaim(books, hands)

    nowhere = slot("nowhere")
    async with leading(kube, clock, build) as loop:
        await until_true(lambda: not seen[0].is_wanted(nowhere), within_s=20, what="the caches of machines")
        yield loop


async def test_the_address_of_a_running_machine_stays_though_no_pod_has_the_machines_name(
    kube: KubeClient, instance: Object
) -> None:
    await holds(kube, instance, await make_launcher(kube, instance, "aaaaa", "node-1", {}))
    clock = FakeClock()
    async with leader(kube, clock) as loop:
        await two_sightings(loop, clock)
    assert await state_of(kube, ADDRESS) == "Held"


async def test_a_stopped_machines_address_is_retained_until_the_machine_is_deleted(
    kube: KubeClient, namespace: str, machine: Object, instance: Object
) -> None:
    launcher = await make_launcher(kube, instance, "aaaaa", "node-1", {})
    await holds(kube, instance, launcher)
    await kill_pod(kube, launcher)
    await remove(kube, MACHINE_INSTANCES, instance)
    clock = FakeClock()
    async with leader(kube, clock) as loop:
        await two_sightings(loop, clock)
        assert await state_of(kube, ADDRESS) == "Retained"
        await two_sightings(loop, clock)
        assert await state_of(kube, ADDRESS) == "Retained"
        assert await endpoint_uid(kube, namespace) == launcher["metadata"]["uid"]
    await remove(kube, MACHINES, machine)
    async with leader(kube, clock) as loop:
        await two_sightings(loop, clock)
    assert await state_of(kube, ADDRESS) == "Cooling"
    assert await endpoint_uid(kube, namespace) == ""


async def test_an_instance_without_a_machine_gives_its_address_back_when_it_is_deleted(
    kube: KubeClient, namespace: str
) -> None:
    instance = await start(kube, namespace)
    launcher = await make_launcher(kube, instance, "aaaaa", "node-1", {})
    await holds(kube, instance, launcher)
    await kill_pod(kube, launcher)
    await remove(kube, MACHINE_INSTANCES, instance)
    clock = FakeClock()
    async with leader(kube, clock) as loop:
        await two_sightings(loop, clock)
    assert await state_of(kube, ADDRESS) == "Cooling"


@pytest.mark.parametrize("gone", ["source", "target"])
async def test_when_one_end_of_a_migration_is_gone_the_other_has_the_address_alone(
    kube: KubeClient, namespace: str, instance: Object, gone: str
) -> None:
    source = await make_launcher(kube, instance, "aaaaa", "node-1", {})
    target = await make_launcher(kube, instance, "bbbbb", "node-2", MIGRATION)
    await holds(kube, instance, target, source)
    clock = FakeClock()
    async with leader(kube, clock) as loop:
        await two_sightings(loop, clock)
        spec = (await kube.get(SPIDER_IP_ADDRESSES, ADDRESS))["spec"]
        assert (spec["holder"], spec["peer"]) == (party(target), party(source))
    stays, leaves = (target, source) if gone == "source" else (source, target)
    await kill_pod(kube, leaves)
    async with leader(kube, clock) as loop:
        with capture_logs() as lines:
            await two_sightings(loop, clock)
    (told,) = [line for line in lines if line["event"] == "address_parted"]
    assert (told["pod_uid"], told["reason"]) == (leaves["metadata"]["uid"], "PartnerGone")
    spec = (await kube.get(SPIDER_IP_ADDRESSES, ADDRESS))["spec"]
    assert (spec["state"], spec["holder"], spec.get("peer")) == ("Held", party(stays), None)
    assert await endpoint_uid(kube, namespace) == stays["metadata"]["uid"]


async def test_an_end_of_a_migration_that_is_only_being_deleted_is_not_gone(kube: KubeClient, instance: Object) -> None:
    source = await make_launcher(kube, instance, "aaaaa", "node-1", {})
    target = await make_launcher(kube, instance, "bbbbb", "node-2", MIGRATION)
    await holds(kube, instance, target, source)
    for launcher in (source, target):
        meta = launcher["metadata"]
        await kube.delete(PODS, meta["name"], namespace=meta["namespace"], grace_period_s=1)
    clock = FakeClock()
    async with leader(kube, clock) as loop:
        clock.advance(600)
        await two_sightings(loop, clock)
    spec = (await kube.get(SPIDER_IP_ADDRESSES, ADDRESS))["spec"]
    assert (spec["state"], spec["holder"], spec["peer"]) == ("Held", party(target), party(source))


async def test_when_both_ends_of_a_migration_are_gone_the_address_waits_for_the_machine(
    kube: KubeClient, instance: Object
) -> None:
    launchers = [await make_launcher(kube, instance, suffix, "node-1", {}) for suffix in ("aaaaa", "bbbbb")]
    await holds(kube, instance, *launchers)
    for launcher in launchers:
        await kill_pod(kube, launcher)
    clock = FakeClock()
    async with leader(kube, clock) as loop:
        await two_sightings(loop, clock)
    spec = (await kube.get(SPIDER_IP_ADDRESSES, ADDRESS))["spec"]
    assert (spec["state"], spec.get("peer")) == ("Retained", None)


async def test_uninstalling_kubevirts_definitions_frees_no_address(kube: KubeClient, instance: Object) -> None:
    launcher = await make_launcher(kube, instance, "aaaaa", "node-1", {})
    await holds(kube, instance, launcher, state="Retained")
    await kill_pod(kube, launcher)
    clock = FakeClock()
    try:
        async with leader(kube, clock) as loop:
            await machines.uninstall(kube)
            for _ in range(3):
                await two_sightings(loop, clock)
        async with leading(kube, clock, reclaim) as loop:
            await two_sightings(loop, clock)
        assert await state_of(kube, ADDRESS) == "Retained"
    finally:
        await machines.install(kube)


async def test_the_controller_shows_a_machine_by_its_name_and_gives_its_address_back_once_it_is_deleted(
    plane: Plane, kube: KubeClient, namespace: str, machine: Object, instance: Object, tmp_path: Path
) -> None:
    launcher = await make_launcher(kube, instance, "aaaaa", "node-1", {})
    await holds(kube, instance, launcher)
    await kill_pod(kube, launcher)
    with running_controller(plane.kubeconfig, "default", tmp_path):
        await until_state(kube, ADDRESS, "Retained")
        status = await until_status(kube, "machines", lambda found: bool(found.get("allocatedIPs")))
        assert json.loads(status["allocatedIPs"])[ADDRESS]["pod"] == f"{namespace}/ledger"
        await remove(kube, MACHINE_INSTANCES, instance)
        await remove(kube, MACHINES, machine)
        await until_state(kube, ADDRESS, "Cooling", "")

        async def no_endpoint() -> bool:
            return await endpoint_uid(kube, namespace) == ""

        await until(no_endpoint, within_s=10, what="the endpoint to go")


async def report(kube: KubeClient, launcher: Object) -> None:
    """The launcher's kubelet says that it runs and has the address."""
    meta, status = launcher["metadata"], {"phase": "Running", "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}]}
    await kube.patch(PODS, meta["name"], {"status": status}, namespace=meta["namespace"], subresource="status")


async def test_a_lost_record_of_a_running_machine_stands_again(
    plane: Plane, kube: KubeClient, namespace: str, instance: Object, tmp_path: Path
) -> None:
    launcher = await make_launcher(kube, instance, "aaaaa", "node-1", {})
    await report(kube, launcher)
    await make_endpoint(kube, namespace, launcher["metadata"]["uid"])
    with running_controller(plane.kubeconfig, "default", tmp_path):
        await until_state(kube, ADDRESS, "Held")
    found = await find(kube, ADDRESS)
    assert found is not None
    assert (found["spec"]["holder"]["pod"], found["spec"]["slot"]["name"]) == (launcher["metadata"]["name"], "ledger")


async def test_a_record_deleted_under_a_migrating_machine_stands_again_for_both_ends(
    plane: Plane, kube: KubeClient, namespace: str, instance: Object, tmp_path: Path
) -> None:
    source = await make_launcher(kube, instance, "aaaaa", "node-1", {})
    target = await make_launcher(kube, instance, "bbbbb", "node-1", {})
    await report(kube, source)
    await holds(kube, instance, target, source)
    with running_controller(plane.kubeconfig, "default", tmp_path) as running:
        await running.logged("leading")
        await kube.delete(SPIDER_IP_ADDRESSES, ADDRESS)
        await until_state(kube, ADDRESS, "Held")
    found = await find(kube, ADDRESS)
    assert found is not None
    assert (found["spec"]["holder"], found["spec"]["peer"]) == (party(target), party(source))


async def test_the_endpoint_of_a_machine_is_no_orphan_while_the_machine_stands(
    kube: KubeClient, namespace: str, machine: Object
) -> None:
    await make_endpoint(kube, namespace, NOBODY)
    clock = FakeClock()

    def orphans(books: Books, hands: Hands) -> OrphanEndpoints:
        return OrphanEndpoints(books, hands, grace_s=GRACE_S, sweep_interval_s=1)

    async def two_turns() -> None:
        async with leading(kube, clock, orphans) as loop:
            for _ in range(2):
                await loop.turn()
                clock.advance(GRACE_S)

    await two_turns()
    assert await endpoint_uid(kube, namespace) == NOBODY


STANDING = pytest.mark.parametrize(
    ("instance_is", "machine_is", "is_wanted"),
    [
        ("there", "there", True),
        ("there", "absent", True),
        ("going", "there", True),
        ("going", "going", False),
        ("going", "gone", False),
        ("going", "absent", False),
        ("gone", "there", True),
        ("gone", "going", False),
        ("gone", "gone", False),
    ],
)


@STANDING
async def test_a_machine_may_use_its_slot_as_long_as_it_may_start_again(
    kube: KubeClient, namespace: str, instance_is: str, machine_is: str, *, is_wanted: bool
) -> None:
    machine = None if machine_is == "absent" else await make_machine(kube, namespace)
    instance = await start(kube, namespace, machine=machine)
    for resource, obj, fate in ((MACHINE_INSTANCES, instance, instance_is), (MACHINES, machine, machine_is)):
        if obj is not None and fate == "going":
            await begin_to_delete(kube, resource, obj)
        if obj is not None and fate == "gone":
            await remove(kube, resource, obj)
    clock, rng = SystemClock(), random.Random(1)  # noqa: S311 - jitter
    assert await Slots(kube, KNOWN, clock=clock, rng=rng).is_wanted(slot(namespace)) is is_wanted
    # By the caches of a leader it is the same.
    async with leading(kube, FakeClock(), lambda books, _hands: books) as books:
        await until_true(lambda: books.is_wanted(slot(namespace)) is is_wanted, within_s=20, what="the caches to agree")
        await until_true(lambda: not books.is_wanted(slot("nowhere")), within_s=20, what="the caches to be filled")
        assert books.is_wanted(slot(namespace)) is is_wanted


async def test_no_slot_is_wanted_of_a_workload_that_is_switched_off_and_every_one_of_an_unknown(
    kube: KubeClient, namespace: str, instance: Object
) -> None:
    clock, rng = SystemClock(), random.Random(1)  # noqa: S311 - jitter
    assert not await Slots(kube, frozenset({STATEFUL_SET}), clock=clock, rng=rng).is_wanted(slot(namespace))
    newer = replace(slot(namespace), kind="Fleet")
    assert await Slots(kube, KNOWN, clock=clock, rng=rng).is_wanted(newer)
