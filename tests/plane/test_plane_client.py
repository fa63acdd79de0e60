"""The `kubernetes` client with its typed models, as programs of others use it."""

import importlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from devcluster.plane import Plane
from tests.plane.support import pod

# Its annotations ask for model objects where dicts are as good, and say Optional of all that comes back.
client: Any = importlib.import_module("kubernetes.aio.client")
config: Any = importlib.import_module("kubernetes.aio.config")


@pytest.fixture
async def api(plane: Plane) -> AsyncIterator[Any]:
    await config.load_kube_config(str(plane.kubeconfig))
    async with client.ApiClient() as connected:
        yield connected


async def test_typed_objects_come_and_go(api: Any, namespace: str) -> None:
    core = client.CoreV1Api(api)
    made = await core.create_namespaced_pod(namespace, pod("one", namespace, schedulerName="nobody"))
    assert (made.status.phase, made.spec.containers[0].name) == ("Pending", "main")
    listed = await core.list_namespaced_pod(namespace, field_selector="status.phase=Pending")
    assert [item.metadata.name for item in listed.items] == ["one"]
    patched = await core.patch_namespaced_pod("one", namespace, {"metadata": {"labels": {"a": "b"}}})
    assert patched.metadata.labels == {"a": "b"}
    await core.delete_namespaced_pod("one", namespace)
    with pytest.raises(client.ApiException) as refused:
        await core.read_namespaced_pod("one", namespace)
    assert refused.value.status == 404


async def test_scales_and_custom_objects_are_understood(api: Any, namespace: str) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    apps = client.AppsV1Api(api)
    await apps.create_namespaced_deployment(namespace, {"metadata": {"name": "one"}, "spec": spec})
    assert (await apps.read_namespaced_deployment_scale("one", namespace)).spec.replicas == 2
    custom = client.CustomObjectsApi(api)
    pools = await custom.list_cluster_custom_object("spiderpool.spidernet.io", "v2beta1", "spiderippools")
    assert pools["kind"] == "SpiderIPPoolList"
    assert (await client.VersionApi(api).get_code()).major == "1"
