"""Endpoints and records of living pods come together again, whoever has edited or deleted them by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from allocator.domain.addresses import object_name, parse_address
from allocator.kube.errors import NotFound
from allocator.kube.resources import EVENTS, PODS, SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES
from devcluster.waiting import until
from tests.plane.agents import make_node, make_pod
from tests.plane.controllers import (
    NOBODY,
    find,
    in_seconds,
    make_endpoint,
    make_pool,
    make_record,
    running_controller,
    state_of,
    until_gone,
    until_state,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.plane.controllers import Controller

ADDRESS = "10.30.0.1"


@pytest.fixture(autouse=True)
async def pool(kube: KubeClient) -> str:
    await make_node(kube, "node-1")
    await make_pool(kube, "mending", "10.30.0.1-10.30.0.250")
    return "mending"


@pytest.fixture(scope="module")
def controller(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    with running_controller(plane.kubeconfig, "default", tmp_path_factory.mktemp("controller")) as running:
        yield running


async def running_pod(kube: KubeClient, namespace: str, name: str, *ips: str) -> Object:
    """A pod whose kubelet reports these addresses."""
    pod = await make_pod(kube, namespace, name, "node-1")
    status: dict[str, Any] = {"phase": "Running", "podIPs": [{"ip": ip} for ip in ips]}
    if ips:
        status["podIP"] = ips[0]
    await kube.patch(PODS, name, {"status": status}, namespace=namespace, subresource="status")
    return pod


async def record_of(kube: KubeClient, pod: Object, text: str = ADDRESS) -> Object:
    meta = pod["metadata"]
    return await make_record(kube, text, "mending", meta["namespace"], meta["name"], meta["uid"])


async def shown_by(kube: KubeClient, namespace: str, name: str) -> tuple[str, list[str]] | None:
    """Whose endpoint it is, and its addresses."""
    try:
        found = await kube.get(SPIDER_ENDPOINTS, name, namespace=namespace)
    except NotFound:
        return None
    current = found["status"]["current"]
    return current["uid"], [entry["ipv4"] for entry in current["ips"]]


async def until_shown(kube: KubeClient, pod: Object, *addresses: str) -> None:
    meta = pod["metadata"]
    wanted = meta["uid"], list(addresses)

    async def shows() -> bool:
        return await shown_by(kube, meta["namespace"], meta["name"]) == wanted

    await until(shows, within_s=20, what=f"the endpoint of {meta['name']} to show {addresses}")


async def edit(kube: KubeClient, namespace: str, name: str, current: dict[str, Any]) -> None:
    await kube.patch(SPIDER_ENDPOINTS, name, {"status": {"current": current}}, namespace=namespace)


async def test_an_endpoint_that_somebody_deletes_is_made_again_from_the_records(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    pod = await running_pod(kube, namespace, "cart", ADDRESS)
    await record_of(kube, pod)
    await until_shown(kube, pod, f"{ADDRESS}/16")
    await kube.delete(SPIDER_ENDPOINTS, "cart", namespace=namespace)
    await until_shown(kube, pod, f"{ADDRESS}/16")
    found = await kube.get(SPIDER_ENDPOINTS, "cart", namespace=namespace)
    assert found["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]


async def test_an_endpoint_that_hangs_on_the_originals_finalizer_is_let_go_and_made_again(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    pod = await running_pod(kube, namespace, "cart", ADDRESS)
    await record_of(kube, pod)
    before = await make_endpoint(kube, pod, "mending", ADDRESS)
    await kube.delete(SPIDER_ENDPOINTS, "cart", namespace=namespace)

    async def is_another() -> bool:
        try:
            found = await kube.get(SPIDER_ENDPOINTS, "cart", namespace=namespace)
        except NotFound:
            return False
        return bool(found["metadata"]["uid"] != before["metadata"]["uid"])

    await until(is_another, within_s=20, what="another endpoint")
    await until_shown(kube, pod, f"{ADDRESS}/16")


async def test_an_endpoint_that_somebody_edits_says_again_what_the_ledger_says(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    pod = await running_pod(kube, namespace, "cart", ADDRESS)
    await record_of(kube, pod)
    await until_shown(kube, pod, f"{ADDRESS}/16")
    wrong = {"interface": "eth0", "ipv4": "10.30.0.99/16", "ipv4Pool": "mending", "vlan": 0}
    await edit(kube, namespace, "cart", {"ips": [wrong]})
    await until_shown(kube, pod, f"{ADDRESS}/16")
    await edit(kube, namespace, "cart", {"uid": NOBODY})
    await until_shown(kube, pod, f"{ADDRESS}/16")
    assert await state_of(kube, "10.30.0.99") == ""


async def test_a_record_that_is_deleted_under_a_living_pod_stands_again_with_all_it_said(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    pod = await running_pod(kube, namespace, "cart", ADDRESS)
    before = await record_of(kube, pod)
    await until_shown(kube, pod, f"{ADDRESS}/16")
    await kube.delete(SPIDER_IP_ADDRESSES, ADDRESS)
    await controller.logged("record_made_again", pod=f"{namespace}/cart")
    found = await find(kube, ADDRESS)
    assert found is not None
    assert found["spec"] == before["spec"]
    assert found["metadata"]["uid"] != before["metadata"]["uid"]


async def test_what_somebody_releases_under_a_running_pod_is_its_own_again(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    pod = await running_pod(kube, namespace, "cart", ADDRESS)
    before = await record_of(kube, pod)
    await until_shown(kube, pod, f"{ADDRESS}/16")
    released = {"state": "Cooling", "until": in_seconds(600)}
    await kube.patch(SPIDER_IP_ADDRESSES, ADDRESS, {"spec": released})
    await until_state(kube, ADDRESS, "Held")
    found = await find(kube, ADDRESS)
    assert found is not None
    assert found["spec"]["holder"] == before["spec"]["holder"]


async def test_a_quarantine_does_not_end_under_a_running_pod(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    pod = await running_pod(kube, namespace, "cart", ADDRESS)
    await record_of(kube, pod)
    over = in_seconds(-10)
    await kube.patch(SPIDER_IP_ADDRESSES, ADDRESS, {"spec": {"state": "Quarantined", "until": over}})
    ghosts = "10.30.0.2"
    await make_record(kube, ghosts, "mending", namespace, "ghost", NOBODY, state="Quarantined", until=over)
    await until_state(kube, ghosts, "Cooling", "")
    assert await state_of(kube, ADDRESS) == "Quarantined"


async def test_every_interface_and_family_comes_back_into_an_endpoint_that_is_gone(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    await make_pool(kube, "mending-v6", "fd00:30::1-fd00:30::9", subnet="fd00:30::/64", ipVersion=6)
    pod = await running_pod(kube, namespace, "cart", ADDRESS, "fd00:30::1")
    meta = pod["metadata"]
    who = {"namespace": namespace, "pod": "cart", "podUID": meta["uid"], "node": "node-1", "containerID": "c1"}
    for text, pool, interface in (
        (ADDRESS, "mending", "eth0"),
        ("fd00:30::1", "mending-v6", "eth0"),
        ("10.30.0.2", "mending", "net1"),
    ):
        holder = {**who, "interface": interface}
        await make_record(kube, text, pool, namespace, "cart", meta["uid"], holder=holder)
    await until_shown(kube, pod, f"{ADDRESS}/16", "10.30.0.2/16")
    ips = (await kube.get(SPIDER_ENDPOINTS, "cart", namespace=namespace))["status"]["current"]["ips"]
    assert [(each["interface"], each.get("ipv6")) for each in ips] == [("eth0", "fd00:30::1/64"), ("net1", None)]


async def test_the_endpoint_of_a_pod_whose_pool_cannot_be_read_stays_as_it_is(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    pod = await running_pod(kube, namespace, "cart", ADDRESS)
    await make_record(kube, ADDRESS, "nonsense", namespace, "cart", pod["metadata"]["uid"])
    await make_endpoint(kube, pod, "nonsense", "10.30.0.99")
    other = await running_pod(kube, namespace, "other", "10.30.0.2")
    await record_of(kube, other, "10.30.0.2")
    await until_shown(kube, other, "10.30.0.2/16")
    assert await shown_by(kube, namespace, "cart") == (pod["metadata"]["uid"], ["10.30.0.99/16"])


async def test_a_record_that_was_lost_while_nobody_watched_stands_again_on_the_word_of_endpoint_and_node(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    pod = await running_pod(kube, namespace, "cart", ADDRESS)
    await make_endpoint(kube, pod, "mending", ADDRESS)
    assert await until_state(kube, ADDRESS, "Held") == "Held"
    found = await find(kube, ADDRESS)
    assert found is not None
    holder = found["spec"]["holder"]
    assert (holder["podUID"], holder["interface"], holder["node"]) == (pod["metadata"]["uid"], "eth0", "node-1")


async def test_an_endpoint_of_a_pod_that_never_got_an_answer_goes(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    pod = await make_pod(kube, namespace, "cart", "node-1")
    await make_endpoint(kube, pod, "mending", ADDRESS)

    async def gone() -> bool:
        return await shown_by(kube, namespace, "cart") is None

    await until(gone, within_s=20, what="the endpoint to go")
    assert await state_of(kube, ADDRESS) == ""


async def test_a_lost_address_that_another_pod_has_by_now_is_told_to_both_and_freed_from_none(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    first = await running_pod(kube, namespace, "first", ADDRESS)
    await make_endpoint(kube, first, "mending", ADDRESS)
    second = await running_pod(kube, namespace, "second", ADDRESS)
    await record_of(kube, second)

    async def told() -> set[str]:
        events = (await kube.list(EVENTS, namespace=namespace))["items"]
        return {each["regarding"]["name"] for each in events if each["reason"] == "AddressConflict"}

    async def both() -> bool:
        return await told() == {"first", "second"}

    await until(both, within_s=20, what="events of both pods")
    found = await find(kube, ADDRESS)
    assert found is not None
    assert found["spec"]["holder"]["podUID"] == second["metadata"]["uid"]
    assert await shown_by(kube, namespace, "first") is not None


async def test_nothing_is_mended_for_a_pod_that_has_ended(
    kube: KubeClient, namespace: str, controller: Controller
) -> None:
    pod = await running_pod(kube, namespace, "cart", ADDRESS)
    await record_of(kube, pod)
    await until_shown(kube, pod, f"{ADDRESS}/16")
    await kube.delete(PODS, "cart", namespace=namespace, grace_period_s=0)
    await until_state(kube, ADDRESS, "Cooling", "")
    await until_gone(kube, object_name(parse_address(ADDRESS)), resource=SPIDER_IP_ADDRESSES)
    assert not controller.lines("record_made_again", pod_uid=pod["metadata"]["uid"])
