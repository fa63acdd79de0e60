"""The SpiderEndpoint of a name that several pods have had, one after the other."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from allocator.domain import errors
from allocator.domain.addresses import parse_address
from allocator.domain.endpoint import Assigned, Endpoint
from allocator.domain.request import Owner
from allocator.kube.codec import decode_pod
from allocator.kube.resources import SPIDER_ENDPOINTS
from allocator.kube.stores import KubeEndpoints
from allocator.runtime.clock import SystemClock
from tests.plane.agents import make_node, make_pod
from tests.plane.test_agent import kill_pod, make_stateful_set

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object


def endpoint(raw: Object, address: str) -> Endpoint:
    pod = decode_pod(raw)
    told = Assigned(
        interface="eth0",
        address=parse_address(address),
        prefix_length=16,
        pool="a",
        gateway=None,
        routes=(),
        clean_gateway=False,
    )
    return Endpoint(pod=pod, owner=pod.controller or Owner("v1", "Pod", pod.name, pod.uid), assigned=(told,))


@pytest.mark.parametrize("is_static", [False, True], ids=["a bare pod", "a StatefulSet's"])
async def test_the_late_write_of_a_pod_deleted_by_force_leaves_its_successors_endpoint_alone(
    kube: KubeClient, namespace: str, *, is_static: bool
) -> None:
    await make_node(kube, "n1")
    owner = await make_stateful_set(kube, namespace, replicas=0) if is_static else None
    endpoints = KubeEndpoints(kube, clock=SystemClock(), rng=random.Random(7))  # noqa: S311
    before = await make_pod(kube, namespace, "web-0", "n1", owner=owner)
    await endpoints.write(endpoint(before, "10.20.0.10"))
    await kill_pod(kube, before)
    after = await make_pod(kube, namespace, "web-0", "n1", owner=owner)
    await endpoints.write(endpoint(after, "10.20.0.11"))
    with pytest.raises(errors.PodGone):
        await endpoints.write(endpoint(before, "10.20.0.10"))
    found = await kube.get(SPIDER_ENDPOINTS, "web-0", namespace=namespace)
    assert found["status"]["current"]["uid"] == after["metadata"]["uid"]


async def test_a_mend_of_an_endpoint_that_has_changed_since_is_a_conflict_and_changes_nothing(
    kube: KubeClient, namespace: str
) -> None:
    await make_node(kube, "n1")
    endpoints = KubeEndpoints(kube, clock=SystemClock(), rng=random.Random(7))  # noqa: S311
    pod = await make_pod(kube, namespace, "cart", "n1")
    await endpoints.write(endpoint(pod, "10.20.0.10"))
    seen = await kube.get(SPIDER_ENDPOINTS, "cart", namespace=namespace)
    await endpoints.write(endpoint(pod, "10.20.0.11"))
    wanted = endpoint(pod, "10.20.0.12")
    with pytest.raises(errors.Conflict):
        await endpoints.mend(seen, wanted)
    with pytest.raises(errors.Conflict):
        await endpoints.mend(None, wanted)
    with pytest.raises(errors.Conflict):
        await endpoints.discard(seen)
    found = await kube.get(SPIDER_ENDPOINTS, "cart", namespace=namespace)
    assert found["status"]["current"]["ips"][0]["ipv4"] == "10.20.0.11/16"


async def test_a_mend_replaces_the_endpoint_of_a_predecessor_by_another_object(
    kube: KubeClient, namespace: str
) -> None:
    await make_node(kube, "n1")
    endpoints = KubeEndpoints(kube, clock=SystemClock(), rng=random.Random(7))  # noqa: S311
    before = await make_pod(kube, namespace, "cart", "n1")
    await endpoints.write(endpoint(before, "10.20.0.10"))
    seen = await kube.get(SPIDER_ENDPOINTS, "cart", namespace=namespace)
    await kill_pod(kube, before)
    after = await make_pod(kube, namespace, "cart", "n1")
    await endpoints.mend(seen, endpoint(after, "10.20.0.11"))
    found = await kube.get(SPIDER_ENDPOINTS, "cart", namespace=namespace)
    assert found["metadata"]["uid"] != seen["metadata"]["uid"]
    assert found["metadata"]["ownerReferences"][0]["uid"] == after["metadata"]["uid"]
