"""How objects end: with their owners, with their namespace."""

import pytest

from allocator.kube import resources
from allocator.kube.client import KubeClient
from allocator.kube.errors import Forbidden
from allocator.kube.resources import Object
from tests.plane.support import config_map, eventually, is_gone

CM = resources.CONFIG_MAPS

pytestmark = pytest.mark.usefixtures("controllers")


def owned_by(*owners: Object, blocks: bool = False) -> list[Object]:
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            **({"blockOwnerDeletion": True} if blocks else {}),
        }
        for owner in owners
    ]


async def wait_gone(kube: KubeClient, name: str, namespace: str) -> None:
    async def gone() -> bool:
        return await is_gone(kube, CM, name, namespace)

    await eventually(gone, within_s=40)


async def test_what_an_object_owns_goes_with_it(kube: KubeClient, namespace: str) -> None:
    owner = await kube.create(CM, config_map("owner", namespace))
    child = await kube.create(CM, config_map("child", namespace, ownerReferences=owned_by(owner)))
    await kube.create(CM, config_map("grandchild", namespace, ownerReferences=owned_by(child)))
    await kube.delete(CM, "owner", namespace=namespace)
    await wait_gone(kube, "child", namespace)
    await wait_gone(kube, "grandchild", namespace)


async def test_what_another_owns_too_stays_and_forgets_the_dead(kube: KubeClient, namespace: str) -> None:
    first = await kube.create(CM, config_map("first", namespace))
    second = await kube.create(CM, config_map("second", namespace))
    await kube.create(CM, config_map("child", namespace, ownerReferences=owned_by(first, second)))
    await kube.delete(CM, "first", namespace=namespace)

    async def one_owner_left() -> bool:
        child = await kube.get(CM, "child", namespace=namespace)
        return [owner["name"] for owner in child["metadata"]["ownerReferences"]] == ["second"]

    await eventually(one_owner_left, within_s=40)


async def test_an_owner_deleted_in_the_foreground_waits_for_what_it_owns(kube: KubeClient, namespace: str) -> None:
    owner = await kube.create(CM, config_map("owner", namespace))
    child = config_map(
        "child", namespace, ownerReferences=owned_by(owner, blocks=True), finalizers=["example.com/wait"]
    )
    await kube.create(CM, child)
    dying = await kube.delete(CM, "owner", namespace=namespace, propagation="Foreground")
    assert dying["metadata"]["finalizers"] == ["foregroundDeletion"]

    async def child_dying() -> bool:
        return "deletionTimestamp" in (await kube.get(CM, "child", namespace=namespace))["metadata"]

    await eventually(child_dying, within_s=40)
    assert not await is_gone(kube, CM, "owner", namespace)
    await kube.patch(CM, "child", {"metadata": {"finalizers": None}}, namespace=namespace)
    await wait_gone(kube, "owner", namespace)


async def test_orphans_stay(kube: KubeClient, namespace: str) -> None:
    owner = await kube.create(CM, config_map("owner", namespace))
    await kube.create(CM, config_map("child", namespace, ownerReferences=owned_by(owner)))
    await kube.delete(CM, "owner", namespace=namespace, propagation="Orphan")
    await wait_gone(kube, "owner", namespace)
    child = await kube.get(CM, "child", namespace=namespace)
    assert "ownerReferences" not in child["metadata"]


async def test_a_namespace_ends_with_all_that_is_in_it(kube: KubeClient, namespace: str) -> None:
    await kube.create(CM, config_map("one", namespace))
    held = config_map("held", namespace, finalizers=["example.com/wait"])
    await kube.create(CM, held)
    dying = await kube.delete(resources.NAMESPACES, namespace)
    assert dying["status"]["phase"] == "Terminating"
    with pytest.raises(Forbidden) as refused:
        await kube.create(CM, config_map("late", namespace))
    assert refused.value.message == (
        f'configmaps "late" is forbidden: unable to create new content in namespace {namespace} '
        "because it is being terminated"
    )
    assert refused.value.details["causes"][0]["reason"] == "NamespaceTerminating"
    await wait_gone(kube, "one", namespace)
    assert not await is_gone(kube, resources.NAMESPACES, namespace)
    await kube.patch(CM, "held", {"metadata": {"finalizers": None}}, namespace=namespace)

    async def gone() -> bool:
        return await is_gone(kube, resources.NAMESPACES, namespace)

    await eventually(gone, within_s=40)
