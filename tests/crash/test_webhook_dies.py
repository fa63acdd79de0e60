"""A webhook that is killed at any of its boundaries: started again, it serves, and the API server trusts it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

import pytest

from allocator.kube.errors import ApiError, Unreachable
from allocator.kube.resources import MUTATING_WEBHOOKS, SECRETS, SPIDER_IP_POOLS, VALIDATING_WEBHOOKS
from certs.store import SECRET_NAME
from devcluster.waiting import until
from tests.crash import actors, boundaries
from tests.crash.conftest import running_stage
from tests.crash.stage import NAMESPACE, Stage, on_stage
from tests.plane.controllers import API
from webhook.entries import NAME

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from allocator.kube.resources import Resource
    from tests.crash.planes import Plane
    from tests.crash.stage import Cluster

    Scene = Callable[[Cluster, actors.Actor], Awaitable[None]]

WITHIN_S: Final = 30.0
CONFIGURATIONS: Final = (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS)


async def first_start(cluster: Cluster, webhook: actors.Actor) -> None:
    webhook.start()
    await admitted(cluster)


async def start_on_an_empty_secret(cluster: Cluster, webhook: actors.Actor) -> None:
    """Somebody made it beforehand, for the rights on it."""
    meta = {"name": SECRET_NAME, "namespace": NAMESPACE}
    await cluster.api.create(SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": meta})
    webhook.start()
    await admitted(cluster)


async def start_on_an_edited_registration(cluster: Cluster, webhook: actors.Actor) -> None:
    """Somebody's tool has written it over while no webhook ran."""
    for resource in CONFIGURATIONS:
        head = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": NAME}}
        await cluster.api.create(resource, {**head, "webhooks": []})
    webhook.start()
    await admitted(cluster)


async def stop(cluster: Cluster, webhook: actors.Actor) -> None:
    """It takes its registration back; or dies over it, and comes back to what it left."""
    webhook.start()
    await admitted(cluster)
    await cluster.stage.restart(webhook.name)
    await admitted(cluster)


async def admitted(cluster: Cluster) -> None:
    """A pool is completed, and one that overlaps it is refused."""

    async def is_asked() -> bool:
        try:
            made = await cluster.api.kube.create(SPIDER_IP_POOLS, pool("probe", "10.9.0.0/24"), dry_run=True)
        except (ApiError, Unreachable):
            return False
        return "ipVersion" in made["spec"]

    await until(is_asked, within_s=WITHIN_S, what="the API server to ask the webhook")
    await cluster.api.create(SPIDER_IP_POOLS, pool("stands", "10.8.0.0/24"))

    async def is_refused() -> bool:
        try:
            await cluster.api.kube.create(SPIDER_IP_POOLS, pool("overlaps", "10.8.0.0/24"), dry_run=True)
        except ApiError as error:
            return "stands" in str(error)
        return False

    await until(is_refused, within_s=WITHIN_S, what="a pool that overlaps to be refused")


def pool(name: str, subnet: str) -> dict[str, object]:
    """As a person writes it, without ipVersion."""
    spec = {"subnet": subnet, "ips": [subnet.replace("0/24", "7")]}
    return {"apiVersion": API, "kind": "SpiderIPPool", "metadata": {"name": name}, "spec": spec}


# Where the certificates are: in a Secret, or in a folder.
IN_SECRET, IN_FOLDER = "webhook-secret", "webhook-folder"
SCENES: Final[dict[str, tuple[str, Scene]]] = {
    "create-Secret": (IN_SECRET, first_start),
    "replace-Secret": (IN_SECRET, start_on_an_empty_secret),
    **{f"create-{resource.kind}": (IN_SECRET, first_start) for resource in CONFIGURATIONS},
    **{f"replace-{resource.kind}": (IN_SECRET, start_on_an_edited_registration) for resource in CONFIGURATIONS},
    **{f"delete-{resource.kind}": (IN_SECRET, stop) for resource in CONFIGURATIONS},
    **{f"name-{name}": (IN_FOLDER, first_start) for name in ("ca.key", "ca.crt", "tls.key", "tls.crt")},
}
POINTS = [point for write in SCENES for point in boundaries.failpoints("webhook", [write])]


@pytest.fixture(scope="module")
def stage(crash_plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running_stage(crash_plane, tmp_path_factory.mktemp("stage"), []) as running:
        yield running


def test_every_boundary_of_the_webhook_has_a_scene() -> None:
    assert SCENES.keys() == set(boundaries.WRITES["webhook"])


@pytest.mark.parametrize("point", POINTS)
async def test_a_webhook_that_died_serves_again(stage: Stage, point: str) -> None:
    name, scene = SCENES[point.split(":")[1]]
    certs = stage.folder / "certs"
    kept = ("--cert-dir", str(certs)) if name == IN_FOLDER else ("--namespace", NAMESPACE)
    webhook = actors.webhook(stage.plane.kubeconfig, stage.folder, *kept, name=name)
    stage.actors = {name: webhook}
    async with on_stage(stage) as cluster:
        try:
            webhook.arm(point)
            async with stage.supervised():
                await scene(cluster, webhook)
                await stage.death_of(name, point)
                await admitted(cluster)
            webhook.stop()
        finally:
            webhook.disarm()
            webhook.stop()
            shutil.rmtree(certs, ignore_errors=True)
            await remove_all(cluster)


async def remove_all(cluster: Cluster) -> None:
    """The next test begins as on the first day."""
    removed: tuple[tuple[Resource, dict[str, str]], ...] = (
        (SECRETS, {"name": SECRET_NAME, "namespace": NAMESPACE}),
        *((resource, {"name": NAME}) for resource in CONFIGURATIONS),
    )
    for resource, meta in removed:
        await cluster.api.delete(resource, {"metadata": meta})
