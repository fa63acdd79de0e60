"""Admission through the API server: what users type, and what they get to see."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from allocator.kube import errors
from allocator.kube.resources import (
    MUTATING_WEBHOOKS,
    SPIDER_ENDPOINTS,
    SPIDER_IP_POOLS,
    SPIDER_RESERVED_IPS,
    SPIDER_SUBNETS,
    VALIDATING_WEBHOOKS,
)
from tests.plane.support import eventually
from tests.plane.webhooks import Webhook, pool, reservation, running_webhook, subnet
from webhook.entries import NAME, Registration, UrlTarget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource
    from devcluster.plane import Plane
    from tests.plane.support import Kubectl

RESOURCES = {"SpiderIPPool": SPIDER_IP_POOLS, "SpiderSubnet": SPIDER_SUBNETS, "SpiderReservedIP": SPIDER_RESERVED_IPS}
FINALIZER = "spiderpool.spidernet.io"


@pytest.fixture(scope="module")
def server(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    with running_webhook(plane.kubeconfig, tmp_path_factory.mktemp("webhook"), "--register", "none") as running:
        yield running


@pytest.fixture
async def admission(server: Webhook, kube: KubeClient) -> Webhook:
    """The webhook, registered for one test; `kube` takes the registration away."""
    await register(kube, server)
    return server


async def register(kube: KubeClient, server: Webhook) -> None:
    registration = Registration(target=UrlTarget(server.base), namespace="spiderpool", has_subnets=True)
    for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
        await kube.create(resource, configuration(resource, registration.webhooks(resource, server.ca_bundle)))

    async def is_asked() -> bool:
        try:
            probe = await kube.create(SPIDER_SUBNETS, subnet("probe", subnet="192.0.2.0/24"), dry_run=True)
        except errors.ServerError:
            return False
        return FINALIZER in (probe["metadata"].get("finalizers") or [])

    await eventually(is_asked)


def configuration(resource: Resource, webhooks: list[Object]) -> Object:
    head = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": NAME}}
    return {**head, "webhooks": webhooks}


async def create(kube: KubeClient, obj: Object, **options: Any) -> Object:
    return await kube.create(RESOURCES[obj["kind"]], obj, **options)


async def causes(kube: KubeClient, obj: Object) -> list[tuple[str, str]]:
    """The (reason, field) pairs of the refusal of a create."""
    with pytest.raises(errors.Invalid) as caught:
        await create(kube, obj)
    return [(cause["reason"], cause["field"]) for cause in caught.value.details["causes"]]


POOL = pool("a", subnet="10.20.0.0/16", ips=["10.20.0.12", "10.20.0.10-10.20.0.11"], gateway="10.20.0.1")


@pytest.mark.usefixtures("admission")
async def test_a_pool_is_completed(kube: KubeClient) -> None:
    stored = await create(kube, POOL)
    assert stored["spec"]["ipVersion"] == 4
    assert stored["spec"]["ips"] == ["10.20.0.10-10.20.0.12"]
    assert stored["metadata"]["labels"] == {"ipam.spidernet.io/ippool-cidr": "10-20-0-0-16"}
    assert stored["metadata"]["finalizers"] == [FINALIZER]


@pytest.mark.usefixtures("admission")
async def test_a_dry_run_shows_the_completed_pool_and_keeps_nothing(kube: KubeClient) -> None:
    shown = await create(kube, POOL, dry_run=True)
    assert shown["spec"]["ipVersion"] == 4
    assert await kube.list_all(SPIDER_IP_POOLS) == ([], (await kube.list_all(SPIDER_IP_POOLS))[1])


REFUSED = {
    "reversed range": (pool("p", subnet="10.20.0.0/16", ips=["10.20.0.9-10.20.0.1"]), "Invalid", "spec.ips[0]"),
    "reversed IPv6 range": (pool("p", subnet="fd00::/64", ips=["fd00::9-fd00::1"]), "Invalid", "spec.ips[0]"),
    "outside the subnet": (pool("p", subnet="10.20.0.0/16", ips=["10.21.0.1"]), "Invalid", "spec.ips[0]"),
    "host bits": (pool("p", subnet="10.20.0.1/16"), "Invalid", "spec.subnet"),
    "gateway handed out": (
        pool("p", subnet="10.20.0.0/16", ips=["10.20.0.1-10.20.0.9"], gateway="10.20.0.5"),
        "Invalid",
        "spec.ips[0]",
    ),
    "default route": (
        pool("p", subnet="10.20.0.0/16", routes=[{"dst": "0.0.0.0/0", "gw": "10.20.0.1"}]),
        "Invalid",
        "spec.routes[0].dst",
    ),
    "selector without values": (
        pool("p", subnet="10.20.0.0/16", nodeAffinity={"matchExpressions": [{"key": "a", "operator": "In"}]}),
        "Required",
        "spec.nodeAffinity.matchExpressions[0].values",
    ),
    "subnet: range outside": (subnet("s", subnet="10.20.0.0/16", ips=["10.21.0.1"]), "Invalid", "spec.ips[0]"),
    "reservation of both families": (reservation("r", ips=["10.0.0.1", "fd00::1"]), "Invalid", "spec.ips[1]"),
    "reservation of nothing": (reservation("r", ips=[]), "Invalid", "spec.ipVersion"),
}


@pytest.mark.usefixtures("admission")
@pytest.mark.parametrize(("obj", "reason", "field"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_wrong_is_refused_with_its_field(kube: KubeClient, obj: Object, reason: str, field: str) -> None:
    assert await causes(kube, obj) == [(f"FieldValue{reason}", field)]


@pytest.mark.usefixtures("admission")
async def test_all_problems_come_in_one_answer(kube: KubeClient) -> None:
    await create(kube, POOL)
    wrong = pool("p", subnet="10.20.0.0/16", ips=["10.20.0.12", "x"], gateway="10.9.9.9", podAffinity={})
    fields = [field for _, field in await causes(kube, wrong)]
    assert fields == ["spec.ips[1]", "spec.gateway", "spec.podAffinity"]


@pytest.mark.usefixtures("admission")
async def test_pools_do_not_share_addresses_or_overlap(kube: KubeClient) -> None:
    await create(kube, POOL)
    assert await causes(kube, pool("b", subnet="10.20.0.0/16", ips=["10.20.0.12-10.20.0.20"])) == [
        ("FieldValueForbidden", "spec.ips")
    ]
    assert await causes(kube, pool("b", subnet="10.20.0.0/24")) == [("FieldValueInvalid", "spec.subnet")]
    await create(kube, pool("b", subnet="10.20.0.0/16", ips=["10.20.0.13"]))
    with pytest.raises(errors.Invalid, match='belongs to SpiderIPPool "a"'):
        await kube.patch(SPIDER_IP_POOLS, "b", {"spec": {"ips": ["10.20.0.12-10.20.0.13"]}})


@pytest.mark.usefixtures("admission")
async def test_subnets_do_not_overlap(kube: KubeClient) -> None:
    await create(kube, subnet("s", subnet="10.20.0.0/16"))
    assert await causes(kube, subnet("t", subnet="10.20.0.0/16")) == [("FieldValueInvalid", "spec.subnet")]


@pytest.mark.usefixtures("admission")
async def test_the_same_name_again_is_a_conflict(kube: KubeClient) -> None:
    await create(kube, POOL)
    with pytest.raises(errors.AlreadyExists):
        await create(kube, POOL)


@pytest.mark.usefixtures("admission")
async def test_one_of_many_pools_for_the_same_addresses_wins(kube: KubeClient) -> None:
    async def tried(name: str) -> bool:
        try:
            await create(kube, pool(name, subnet="10.20.0.0/16", ips=["10.20.0.5"]))
        except errors.Invalid:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(tried(f"p{n}")) for n in range(8)]
    assert sorted(task.result() for task in tries) == [False] * 7 + [True]


@pytest.mark.usefixtures("admission")
async def test_a_name_may_be_used_again_at_once(kube: KubeClient) -> None:
    await create(kube, POOL)
    await kube.patch(SPIDER_IP_POOLS, "a", {"metadata": {"finalizers": None}})
    await kube.delete(SPIDER_IP_POOLS, "a")
    await create(kube, pool("b", subnet="10.20.0.0/24", ips=["10.20.0.12"]))


@pytest.mark.usefixtures("admission")
async def test_subnet_and_family_cannot_be_changed(kube: KubeClient) -> None:
    await create(kube, POOL)
    with pytest.raises(errors.Invalid, match="immutable"):
        await kube.patch(SPIDER_IP_POOLS, "a", {"spec": {"subnet": "10.20.0.0/17"}})
    await kube.patch(SPIDER_IP_POOLS, "a", {"spec": {"ipVersion": None}})
    assert (await kube.get(SPIDER_IP_POOLS, "a"))["spec"]["ipVersion"] == 4


@pytest.mark.usefixtures("admission")
async def test_an_address_in_use_cannot_be_taken_away(kube: KubeClient) -> None:
    await create(kube, POOL)
    used = json.dumps({"10.20.0.11": {"pod": "shop/cart-0", "podUid": "u"}})
    await kube.patch(SPIDER_IP_POOLS, "a", {"status": {"allocatedIPs": used}}, subresource="status")
    with pytest.raises(errors.Invalid, match="shop/cart-0"):
        await kube.patch(SPIDER_IP_POOLS, "a", {"spec": {"ips": ["10.20.0.12"]}})


async def test_a_dead_webhook_stops_nothing_but_changes_of_the_spec(plane: Plane, kube: KubeClient) -> None:
    await create(kube, {**POOL, "metadata": {"name": "a", "finalizers": [FINALIZER]}})
    dead = Registration(target=UrlTarget("https://127.0.0.1:9"), namespace="spiderpool", has_subnets=True)
    for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
        await kube.create(resource, configuration(resource, dead.webhooks(resource, "")))

    async def is_refused() -> bool:
        try:
            await kube.patch(SPIDER_IP_POOLS, "a", {"spec": {"disable": True}})
        except errors.ServerError:
            return True
        await kube.patch(SPIDER_IP_POOLS, "a", {"spec": {"disable": False}})
        return False

    await eventually(is_refused)
    await kube.patch(SPIDER_IP_POOLS, "a", {"status": {"allocatedIPCount": 1}}, subresource="status")
    endpoint = {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderEndpoint",
        "metadata": {"name": "e", "namespace": "default"},
        "status": {
            "ownerControllerType": "Pod",
            "ownerControllerName": "e",
            "current": {"uid": "u", "node": "n", "ips": [{"interface": "eth0", "ipv4": "10.20.0.12/16"}]},
        },
    }
    await kube.create(SPIDER_ENDPOINTS, endpoint, namespace="default")
    if plane.real:  # the embedded plane has no CEL, so no matchConditions
        await kube.patch(SPIDER_IP_POOLS, "a", {"metadata": {"labels": {"team": "net"}, "finalizers": None}})


async def test_a_pool_from_before_the_webhook_may_be_labelled_and_deleted(server: Webhook, kube: KubeClient) -> None:
    # A reversed IPv6 range with a dotted end is what the CRD alone does not see.
    await create(kube, pool("old", subnet="fd00::/64", ips=["fd00::0.0.0.9-fd00::0.0.0.1"]))
    await register(kube, server)
    await kube.patch(SPIDER_IP_POOLS, "old", {"metadata": {"labels": {"team": "net"}}})
    with pytest.raises(errors.Invalid, match="reversed"):
        await kube.patch(SPIDER_IP_POOLS, "old", {"spec": {"disable": True}})
    await kube.delete(SPIDER_IP_POOLS, "old")


async def test_pools_that_overlap_already_may_be_mended_but_not_made_worse(server: Webhook, kube: KubeClient) -> None:
    await create(kube, pool("a", subnet="10.20.0.0/16", ipVersion=4, ips=["10.20.0.10-10.20.0.20"]))
    await create(kube, pool("b", subnet="10.20.0.0/16", ipVersion=4, ips=["10.20.0.18-10.20.0.30"]))
    await register(kube, server)

    async def has_learnt() -> bool:
        with contextlib.suppress(errors.Invalid):
            await create(kube, pool("c", subnet="10.20.0.0/16", ips=["10.20.0.10", "10.20.0.30"]), dry_run=True)
            return False
        return True

    await eventually(has_learnt)
    for ips in (["10.20.0.18-10.20.0.31"], ["10.20.0.19-10.20.0.31", "10.20.9.1"]):
        await kube.patch(SPIDER_IP_POOLS, "b", {"spec": {"ips": ips}})
    await kube.patch(SPIDER_IP_POOLS, "b", {"spec": {"disable": True}})
    with pytest.raises(errors.Invalid, match=r"spec\.ips: Forbidden: 10\.20\.0\.17-10\.20\.0\.18 already belongs"):
        await kube.patch(SPIDER_IP_POOLS, "b", {"spec": {"ips": ["10.20.0.17-10.20.0.31"]}})
    # The other one is shrunk to where the overlap ends.
    await kube.patch(SPIDER_IP_POOLS, "a", {"spec": {"excludeIPs": ["10.20.0.19-10.20.0.20"]}})


@pytest.mark.usefixtures("admission")
async def test_what_somebody_takes_off_comes_back_with_the_next_change_of_the_spec(kube: KubeClient) -> None:
    made = await create(kube, POOL)
    off = {"metadata": {"labels": None, "finalizers": None}}
    bare = await kube.patch(SPIDER_IP_POOLS, "a", off)
    # A finalizer that came back at once could never be taken off an object by hand.
    assert not bare["metadata"].get("labels")
    assert not bare["metadata"].get("finalizers")
    changed = await kube.patch(SPIDER_IP_POOLS, "a", {"spec": {"disable": True}})
    for key in ("labels", "finalizers"):
        assert changed["metadata"][key] == made["metadata"][key]


@pytest.mark.usefixtures("admission")
async def test_a_pool_with_users_outside_its_ranges_may_be_switched_off(kube: KubeClient) -> None:
    await create(kube, POOL)
    used = json.dumps({"10.20.0.99": {"pod": "shop/cart-0", "podUid": "u"}})
    await kube.patch(SPIDER_IP_POOLS, "a", {"status": {"allocatedIPs": used}}, subresource="status")
    await kube.patch(SPIDER_IP_POOLS, "a", {"spec": {"disable": True}})
    await kube.patch(SPIDER_IP_POOLS, "a", {"spec": {"ips": ["10.20.0.12"]}})


@pytest.mark.usefixtures("admission")
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"subnet": "172.30.0.0/16", "ips": ["172.30.0.9-172.30.0.1"]},
            'spec.ips[0]: Invalid value: "172.30.0.9-172.30.0.1": is reversed: write "172.30.0.1-172.30.0.9"',
        ),
        (
            {"subnet": "172.30.0.0/16", "ips": ["172.31.0.1"]},
            'spec.ips[0]: Invalid value: "172.31.0.1": lies outside spec.subnet 172.30.0.0/16',
        ),
        (
            {"subnet": "10.20.0.0/16", "ips": ["10.20.0.11-10.20.0.20"]},
            'spec.ips: Forbidden: 10.20.0.11-10.20.0.12 already belongs to SpiderIPPool "a"',
        ),
    ],
    ids=["reversed", "outside", "overlap"],
)
async def test_kubectl_shows_what_to_write_instead(
    kube: KubeClient, kubectl: Kubectl, spec: dict[str, Any], words: str
) -> None:
    await create(kube, POOL)
    out = await kubectl("apply", "-f", "-", stdin=yaml.safe_dump(pool("wrong", **spec)), check=False)
    assert 'The SpiderIPPool "wrong" is invalid' in out
    assert words in out


async def urls(kube: KubeClient, resource: Resource) -> list[str]:
    try:
        return [webhook["clientConfig"]["url"] for webhook in (await kube.get(resource, NAME))["webhooks"]]
    except errors.NotFound:
        return []


async def test_it_registers_itself_puts_drift_right_and_leaves_nothing(
    plane: Plane, kube: KubeClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("registered")
    with running_webhook(plane.kubeconfig, directory, "--register", "url", "--log-level", "debug") as webhook:

        async def is_registered() -> bool:
            found = [*await urls(kube, MUTATING_WEBHOOKS), *await urls(kube, VALIDATING_WEBHOOKS)]
            return len(found) == 8 and all(url.startswith(webhook.base) for url in found)

        await eventually(is_registered)
        for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
            broken = await kube.get(resource, NAME)
            broken["webhooks"][0]["clientConfig"]["caBundle"] = ""
            broken["webhooks"][1]["failurePolicy"] = "Ignore"
            await kube.replace(resource, broken)

        async def is_put_right() -> bool:
            return len(webhook.lines("registration_put_right")) == 2

        await eventually(is_put_right, within_s=10)
        await create(kube, POOL)

        checked = len(webhook.lines("registration_checked"))

        async def is_checked_twice() -> bool:
            return len(webhook.lines("registration_checked")) >= checked + 2

        # The first of the two may have begun before; the second has seen everything, and lets it be.
        await eventually(is_checked_twice)
        assert len(webhook.lines("registration_put_right")) == 2
    assert await urls(kube, MUTATING_WEBHOOKS) == []
    assert await urls(kube, VALIDATING_WEBHOOKS) == []
