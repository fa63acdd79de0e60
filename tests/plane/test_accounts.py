"""Every process does its whole work with the rights of its own account, and with no more."""

from __future__ import annotations

import copy
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from allocator.kube.client import KubeClient
from allocator.kube.errors import AlreadyExists, ApiError, Forbidden, NotFound
from allocator.kube.resources import (
    EVENTS,
    MACHINE_INSTANCES,
    MACHINES,
    SECRETS,
    SPIDER_IP_POOLS,
    VALIDATING_WEBHOOKS,
    Resource,
)
from devcluster.waiting import until
from tests.plane.agents import make_node, make_pod, make_pool, running_agent
from tests.plane.controllers import running_controller
from tests.plane.test_agent import ONE, kill_pod, make_stateful_set, member, state_of
from tests.plane.test_overlaps import make_subnet, until_subnet
from tests.plane.webhooks import running_webhook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from allocator.kube.resources import Object
    from devcluster.plane import Plane

BASE = Path(__file__).resolve().parents[2] / "manifests" / "base"
NAMESPACE = "spiderpool"

pytestmark = pytest.mark.real_plane


def _resource(obj: Object) -> Resource:
    group, _, version = str(obj["apiVersion"]).rpartition("/")
    kind = str(obj["kind"])
    cluster = kind.startswith("Cluster") or kind == "Namespace"
    return Resource(group, version, f"{kind.lower()}s", kind, namespaced=not cluster)


@pytest.fixture
async def accounts(plane: Plane, kube: KubeClient, tmp_path: Path) -> AsyncIterator[dict[str, Path]]:
    """manifests/base is applied; a kubeconfig for each account in it, with a token of its own."""
    documents = [each for path in sorted(BASE.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())]
    objects = sorted((each for each in documents if "metadata" in each), key=lambda each: each["kind"] != "Namespace")
    for obj in objects:
        with suppress(AlreadyExists):
            await kube.create(_resource(obj), obj)
    admin = yaml.safe_load(plane.kubeconfig.read_text())
    made = {}
    for name in ("agent", "controller", "webhook"):
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/spiderpool-{name}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
        token = (await kube.raw("POST", path, body=body))["status"]["token"]
        config = copy.deepcopy(admin)
        config["users"][0]["user"] = {"token": token}
        made[name] = tmp_path / f"{name}.kubeconfig"
        made[name].write_text(yaml.safe_dump(config))
    yield made
    with suppress(NotFound):
        await kube.delete(SECRETS, "spiderpool-webhook-certs", namespace=NAMESPACE)


async def test_the_whole_path_works_with_the_rights_in_manifests_base(
    accounts: dict[str, Path], kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    with ExitStack() as stack:
        stack.enter_context(
            running_webhook(accounts["webhook"], tmp_path / "webhook", "--register", "url", in_secret=True)
        )
        stack.enter_context(running_controller(accounts["controller"], NAMESPACE, tmp_path))

        async def registered() -> list[Object]:
            return list((await kube.list(VALIDATING_WEBHOOKS))["items"])

        await until(registered, within_s=20, what="the webhook to register itself")
        created = await make_pool(kube, "a", "10.20.0.10-10.20.0.11")
        assert created["metadata"]["finalizers"] == ["spiderpool.spidernet.io"]
        await make_subnet(kube, "racks", "10.99.0.0/16")
        await until_subnet(kube, "racks", "False")
        owner = await make_stateful_set(kube, namespace, replicas=1)
        async with running_agent(accounts["agent"], "n1", tmp_path) as agent:
            pod = await make_pod(kube, namespace, "cart", "n1", ONE)
            static = await member(kube, owner, 0, "n1")
            given = (await agent.add(pod)).addresses[0].removesuffix("/16")
            assert (await agent.add(static)).status == 200
            assert (await agent.add(await make_pod(kube, namespace, "late", "n1", ONE))).status == 500
            await until(_counts(kube, allocated=2), within_s=20, what="the pool's status")
            for gone in (pod, static):
                await kill_pod(kube, gone)
                assert (await agent.delete(gone)).status == 200
            await until(_counts(kube, allocated=1), within_s=20, what="one address back, and one retained")
        assert await state_of(kube, given) == "Cooling"
        reasons = {event["reason"] for event in (await kube.list(EVENTS, namespace=namespace))["items"]}
        assert "PoolExhausted" in reasons
    assert "forbidden" not in _logs(tmp_path)


def _counts(kube: KubeClient, *, allocated: int) -> Callable[[], Awaitable[bool]]:
    async def counted() -> bool:
        status = (await kube.get(SPIDER_IP_POOLS, "a")).get("status") or {}
        return status.get("allocatedIPCount") == allocated

    return counted


def _logs(directory: Path) -> str:
    return "\n".join(path.read_text() for path in directory.rglob("*.log")).lower()


@pytest.mark.parametrize("account", ["agent", "controller", "webhook"])
async def test_no_account_reads_secrets_of_others_or_deletes_pods(
    accounts: dict[str, Path], account: str, kube: KubeClient, namespace: str
) -> None:
    pod = await make_pod(kube, namespace, "cart", "n1")
    async with KubeClient.connect(kubeconfig=accounts[account], user_agent="tests") as client:
        with pytest.raises(Forbidden):
            await client.list(SECRETS)
        with pytest.raises(Forbidden):
            await kill_pod(client, pod)


@pytest.mark.parametrize("account", ["agent", "controller"])
async def test_who_keeps_addresses_of_virtual_machines_may_ask_for_them(
    accounts: dict[str, Path], account: str, namespace: str
) -> None:
    """Where KubeVirt is not installed there is nothing to read, which is another answer than no right to."""
    async with KubeClient.connect(kubeconfig=accounts[account], user_agent="tests") as client:
        for resource in (MACHINES, MACHINE_INSTANCES):
            asked = [client.get(resource, "ledger", namespace=namespace)]
            if account == "controller":
                asked.append(client.list(resource))
            for answer in asked:
                with pytest.raises(ApiError) as refusal:
                    await answer
                assert refusal.value.status == 404
