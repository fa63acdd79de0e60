"""`spiderpoolctl gc --dry-run` as a process: what reclaim is about to free, and that asking frees nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import yaml

from allocator.kube.resources import SPIDER_IP_ADDRESSES
from tests.plane.agents import make_node, make_pod
from tests.plane.commands import ctl
from tests.plane.controllers import NOBODY, make_pool, make_record, make_stateful_set, slot_of

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane


async def some_of_each(kube: KubeClient, namespace: str) -> None:
    """A living pod, one that is gone, and two slots of a StatefulSet, one of which it has given up."""
    await make_node(kube, "node-1")
    await make_pool(kube, "asked", "10.30.0.1-10.30.0.250")
    cart = await make_pod(kube, namespace, "cart", "node-1")
    await make_record(kube, "10.30.0.1", "asked", namespace, "cart", cart["metadata"]["uid"])
    await make_record(kube, "10.30.0.2", "asked", namespace, "ghost", NOBODY)
    stateful_set = await make_stateful_set(kube, namespace, replicas=1)
    for ordinal in (0, 1):
        slot = slot_of(stateful_set, ordinal)
        await make_record(kube, f"10.30.0.{ordinal + 3}", "asked", namespace, f"db-{ordinal}", NOBODY, slot=slot)


async def test_it_names_each_address_that_would_go_with_its_pod_and_the_reason(
    kube: KubeClient, plane: Plane, namespace: str
) -> None:
    await some_of_each(kube, namespace)
    outcome = await ctl("gc", "--dry-run", "--kubeconfig", str(plane.kubeconfig))
    assert (outcome.status, outcome.stderr) == (0, "")
    head, ghost, kept, given_up = (line.split() for line in outcome.stdout.splitlines())
    assert head == ["ADDRESS", "POOL", "POD", "NODE", "ACTION", "REASON"]
    assert ghost == ["10.30.0.2", "asked", f"{namespace}/ghost", "node-1", "Release", "PodMissing"]
    # Where somebody runs StatefulSets, db-0 has a successor by now.
    assert kept[:5] == ["10.30.0.3", "asked", f"{namespace}/db-0", "node-1", "Retain"]
    assert given_up == ["10.30.0.4", "asked", f"{namespace}/db-1", "node-1", "Release", "PodMissing"]


async def test_scripts_get_the_same_under_a_version(kube: KubeClient, plane: Plane, namespace: str) -> None:
    await some_of_each(kube, namespace)
    asked = ("gc", "--dry-run", "--kubeconfig", str(plane.kubeconfig), "-o")
    told = json.loads((await ctl(*asked, "json")).stdout)
    assert told == yaml.safe_load((await ctl(*asked, "yaml")).stdout)
    assert (told["apiVersion"], told["kind"], len(told["items"])) == ("spiderpoolctl/v1", "GarbageReport", 3)
    first = told["items"][0]
    assert (first["address"], first["action"], first["reason"], first["podUID"]) == (
        "10.30.0.2",
        "Release",
        "PodMissing",
        NOBODY,
    )


async def test_asking_changes_nothing(kube: KubeClient, plane: Plane, namespace: str) -> None:
    await some_of_each(kube, namespace)
    before = (await kube.list(SPIDER_IP_ADDRESSES))["items"]
    await ctl("gc", "--dry-run", "--kubeconfig", str(plane.kubeconfig))
    assert (await kube.list(SPIDER_IP_ADDRESSES))["items"] == before


async def test_a_cluster_in_order_is_said_to_be_so(kube: KubeClient, plane: Plane) -> None:
    outcome = await ctl("gc", "--dry-run", "--kubeconfig", str(plane.kubeconfig))
    assert (outcome.status, outcome.stdout) == (0, "Nothing: every address in use has a pod, or is kept for one.\n")


async def test_without_dry_run_it_says_that_there_is_nothing_to_do_by_hand() -> None:
    outcome = await ctl("gc")
    assert outcome.status == 2
    assert "--dry-run" in outcome.stderr
