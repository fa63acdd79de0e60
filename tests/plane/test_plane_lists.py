"""Lists: selectors, pages, forms, and access."""

import base64
import json

import aiohttp
import pytest
import yaml

from allocator.kube import resources
from allocator.kube.client import KubeClient
from allocator.kube.errors import BadRequest, Gone
from allocator.kube.resources import Resource
from devcluster.plane import Plane
from tests.plane.support import config_map, pod, widget

CM = resources.CONFIG_MAPS


def names(found: dict[str, object]) -> list[str]:
    return [item["metadata"]["name"] for item in found["items"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        ("color=red", ["a"]),
        ("color==red", ["a"]),
        ("color!=red,color", ["b"]),
        ("color in (red, green)", ["a", "b"]),
        ("color notin (red),!none", ["b", "c"]),
        ("size", ["a", "c"]),
        ("!color,size", ["c"]),
        ("size>3", ["c"]),
        ("size<9,color in (red)", ["a"]),
    ],
)
async def test_labels_select(kube: KubeClient, namespace: str, selector: str, wanted: list[str]) -> None:
    for name, labels in (("a", {"color": "red", "size": "3"}), ("b", {"color": "green"}), ("c", {"size": "9"})):
        await kube.create(CM, config_map(name, namespace, labels=labels | {"ours": ""}))
    found = await kube.list(CM, namespace=namespace, label_selector=f"{selector},ours")
    assert names(found) == wanted


async def test_a_label_selector_that_does_not_parse_is_refused(kube: KubeClient, namespace: str) -> None:
    with pytest.raises(BadRequest):
        await kube.list(CM, namespace=namespace, label_selector="a=b=c,(")


async def test_pods_are_selected_by_node_and_phase(kube: KubeClient, namespace: str) -> None:
    await kube.create(resources.PODS, pod("a", namespace, nodeName="n1"))
    await kube.create(resources.PODS, pod("b", namespace, schedulerName="nobody"))
    assert names(
        await kube.list(resources.PODS, field_selector=f"spec.nodeName=n1,metadata.namespace={namespace}")
    ) == ["a"]
    found = await kube.list(resources.PODS, namespace=namespace, field_selector="spec.nodeName=,status.phase!=Running")
    assert names(found) == ["b"]


async def test_selectable_fields_select(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    await kube.create(widgets, widget("a", namespace, color="red"))
    await kube.create(widgets, widget("b", namespace, color="green"))
    assert names(await kube.list(widgets, namespace=namespace, field_selector="spec.color=green")) == ["b"]


async def test_other_fields_are_refused(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    with pytest.raises(BadRequest, match=r"field label not supported: spec\.size"):
        await kube.list(widgets, namespace=namespace, field_selector="spec.size=1")


async def test_pages_show_one_moment(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    for at in range(5):
        await kube.create(widgets, widget(f"w{at}", namespace))
    first = await kube.list(widgets, namespace=namespace, limit=2)
    assert names(first) == ["w0", "w1"]
    assert first["metadata"]["remainingItemCount"] == 3
    await kube.delete(widgets, "w3", namespace=namespace)
    await kube.create(widgets, widget("w9", namespace))
    second = await kube.list(widgets, namespace=namespace, limit=2, continue_=first["metadata"]["continue"])
    third = await kube.list(widgets, namespace=namespace, limit=2, continue_=second["metadata"]["continue"])
    assert names(second) + names(third) == ["w2", "w3", "w4"]
    assert third["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert not third["metadata"].get("continue")


async def test_a_broken_continue_token_is_refused(kube: KubeClient, namespace: str) -> None:
    with pytest.raises(BadRequest, match="continue key is not valid"):
        await kube.list(CM, namespace=namespace, limit=1, continue_="nonsense")


async def test_an_expired_continue_token_is_gone(plane: Plane, kube: KubeClient, namespace: str) -> None:
    if plane.real:
        pytest.skip("a real server compacts every five minutes only")
    token = json.dumps({"v": "meta.k8s.io/v1", "rv": 1, "start": [namespace, "a"]}).encode()
    with pytest.raises(Gone):
        await kube.list(CM, namespace=namespace, limit=1, continue_=base64.urlsafe_b64encode(token).decode())


async def test_an_exact_version_shows_the_past(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    await kube.create(widgets, widget("a", namespace))
    then = (await kube.list(widgets, namespace=namespace))["metadata"]["resourceVersion"]
    await kube.create(widgets, widget("b", namespace))
    params = {"resourceVersion": then, "resourceVersionMatch": "Exact"}
    assert names(await kube.raw("GET", widgets.path(namespace), params=params)) == ["a"]


async def test_metadata_alone_can_be_asked_for(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    await kube.create(widgets, widget("one", namespace))
    got = await kube.get(widgets, "one", namespace=namespace, metadata_only=True)
    assert "spec" not in got
    assert got["metadata"]["uid"]
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    listed = await kube.raw("GET", widgets.path(namespace), accept=accept)
    assert (listed["kind"], listed["apiVersion"]) == ("PartialObjectMetadataList", "meta.k8s.io/v1")
    assert [set(item) - {"kind", "apiVersion"} for item in listed["items"]] == [{"metadata"}]


async def test_a_table_has_the_columns_of_the_definition(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    parts = [{"name": "p1"}, {"name": "p2"}]
    await kube.create(widgets, widget("one", namespace, parts=parts, match={"example.com/app-name": "shop"}))
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    table = await kube.raw("GET", widgets.path(namespace), accept=accept)
    columns = [(c["name"], c["type"], c["priority"]) for c in table["columnDefinitions"]]
    assert columns == [
        ("Name", "string", 0),
        ("Color", "string", 0),
        ("Size", "integer", 0),
        ("First", "string", 0),
        ("App", "string", 10),
        ("Age", "date", 0),
    ]
    (row,) = table["rows"]
    assert row["cells"][:5] == ["one", "red", 1, "p1", "shop"]
    assert row["cells"][5].endswith("s")
    assert row["object"]["kind"] == "PartialObjectMetadata"


async def test_a_stranger_is_refused(plane: Plane) -> None:
    config = yaml.safe_load(plane.kubeconfig.read_text())
    server = config["clusters"][0]["cluster"]["server"]
    async with aiohttp.ClientSession() as session:
        headers = {"Authorization": "Bearer wrong"}
        async with session.get(f"{server}/api/v1/namespaces", headers=headers, ssl=False) as response:
            assert response.status == 401
            assert (await response.json())["reason"] == "Unauthorized"
        async with session.get(f"{server}/readyz", ssl=False) as response:
            assert (response.status, await response.text()) == (200, "ok")


def test_the_kubeconfig_is_for_its_owner_only(plane: Plane) -> None:
    if plane.kind == "kubeconfig":
        pytest.skip("the file is the user's")
    assert plane.kubeconfig.stat().st_mode & 0o777 == 0o600
