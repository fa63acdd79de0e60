"""What Prometheus hears of reclaim from a controller process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from devcluster.waiting import until
from tests.plane.agents import make_node
from tests.plane.controllers import NOBODY, make_pool, make_record, running_controller, until_state

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane
    from tests.plane.controllers import Controller

LISTEN = ("--metrics-listen", "127.0.0.1:0")


async def metrics_of(controller: Controller) -> dict[str, float]:
    """By name, with the reason where there is one."""
    host, port = (await controller.logged("metrics_listening"))["addresses"][0]
    async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}/metrics") as answer:
        text = await answer.text()
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_leak_shows_with_its_age_until_it_is_freed_and_counted(
    kube: KubeClient, plane: Plane, namespace: str, tmp_path: Path
) -> None:
    await make_node(kube, "node-1")
    await make_pool(kube, "counted", "10.30.0.1-10.30.0.9")
    slowly = ("--reclaim-grace", "3")
    with running_controller(plane.kubeconfig, namespace, tmp_path, *LISTEN, *slowly) as controller:
        await controller.logged("leading")
        before = await metrics_of(controller)
        assert (before["spiderpool_leader"], before["spiderpool_leaked_ips"]) == (1, 0)
        await make_record(kube, "10.30.0.1", "counted", namespace, "ghost", NOBODY)
        await controller.logged("holder_suspected", address="10.30.0.1")

        async def has_grown_old() -> dict[str, float] | None:
            now = await metrics_of(controller)
            return now if now["spiderpool_oldest_leak_seconds"] > 0.5 else None

        leaking = await until(has_grown_old, within_s=10, what="the leak to show")
        assert (leaking["spiderpool_leaked_ips"], leaking["spiderpool_gc_candidates"]) == (1, 1)
        await until_state(kube, "10.30.0.1", "Cooling", "")
        await controller.logged("address_released", address="10.30.0.1")
        after = await metrics_of(controller)
        assert after["spiderpool_gc_released_total PodMissing"] == after["spiderpool_ip_gc_counts_total"] == 1
        assert (after["spiderpool_leaked_ips"], after["spiderpool_oldest_leak_seconds"]) == (0, 0)


async def test_the_brake_shows(kube: KubeClient, plane: Plane, namespace: str, tmp_path: Path) -> None:
    await make_node(kube, "node-1")
    await make_pool(kube, "counted", "10.30.0.1-10.30.0.250")
    for number in range(1, 61):
        await make_record(kube, f"10.30.0.{number}", "counted", namespace, "ghost", NOBODY)
    with running_controller(plane.kubeconfig, namespace, tmp_path, *LISTEN) as controller:
        await controller.logged("reclaim_braked")
        now = await metrics_of(controller)
        assert (now["spiderpool_gc_braked"], now["spiderpool_leaked_ips"]) == (1, 60)


async def test_a_replica_that_does_not_lead_says_so(
    kube: KubeClient, plane: Plane, namespace: str, tmp_path: Path
) -> None:
    with running_controller(plane.kubeconfig, namespace, tmp_path, identity="first") as first:
        await first.logged("leading")
        with running_controller(plane.kubeconfig, namespace, tmp_path, *LISTEN, identity="second") as second:
            assert (await metrics_of(second))["spiderpool_leader"] == 0
