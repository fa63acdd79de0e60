"""Watches: what happened, in order, through selectors, with bookmarks, and 410 when it is too long ago."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from allocator.kube import resources
from allocator.kube.client import KubeClient
from allocator.kube.errors import Gone
from allocator.kube.resources import Resource
from devcluster.plane import Plane
from tests.plane.support import config_map, request, widget

CM = resources.CONFIG_MAPS
Seen = list[tuple[str, str]]


async def collect(kube: KubeClient, resource: Resource, count: int, **options: Any) -> list[tuple[str, dict[str, Any]]]:
    """The first `count` events that are no bookmarks."""
    seen: list[tuple[str, dict[str, Any]]] = []
    async with asyncio.timeout(20), aclosing(kube.watch(resource, **options)) as events:
        async for kind, obj in events:
            if kind != "BOOKMARK":
                seen.append((kind, obj))
            if len(seen) == count:
                break
    return seen


def short(events: list[tuple[str, dict[str, Any]]]) -> Seen:
    return [(kind, obj["metadata"]["name"]) for kind, obj in events]


async def version(kube: KubeClient, resource: Resource, namespace: str) -> str:
    return str((await kube.list(resource, namespace=namespace))["metadata"]["resourceVersion"])


async def test_a_watch_tells_what_came_after_its_version(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    await kube.create(widgets, widget("before", namespace))
    start = await version(kube, widgets, namespace)
    await kube.create(widgets, widget("one", namespace))
    await kube.patch(widgets, "one", {"spec": {"size": 2}}, namespace=namespace)
    await kube.delete(widgets, "one", namespace=namespace)
    seen = await collect(kube, widgets, 3, namespace=namespace, resource_version=start)
    assert short(seen) == [("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one")]
    versions = [int(obj["metadata"]["resourceVersion"]) for _, obj in seen]
    assert versions == sorted(set(versions))


async def test_a_watch_without_a_version_begins_with_what_is_there(
    kube: KubeClient, widgets: Resource, namespace: str
) -> None:
    await kube.create(widgets, widget("one", namespace))
    seen = await collect(kube, widgets, 1, namespace=namespace, resource_version="")
    assert short(seen) == [("ADDED", "one")]


async def test_what_leaves_the_selection_is_deleted_and_what_enters_is_added(kube: KubeClient, namespace: str) -> None:
    start = await version(kube, CM, namespace)
    await kube.create(CM, config_map("one", namespace))
    for value in ("yes", "no", "yes"):
        await kube.patch(CM, "one", {"metadata": {"labels": {"wanted": value}}}, namespace=namespace)
    await kube.patch(CM, "one", {"data": {"a": "b"}}, namespace=namespace)
    seen = await collect(kube, CM, 4, namespace=namespace, resource_version=start, label_selector="wanted=yes")
    assert short(seen) == [("ADDED", "one"), ("DELETED", "one"), ("ADDED", "one"), ("MODIFIED", "one")]


async def test_a_selectable_field_selects_in_a_watch(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    start = await version(kube, widgets, namespace)
    await kube.create(widgets, widget("a", namespace, color="red"))
    await kube.create(widgets, widget("b", namespace, color="green"))
    seen = await collect(
        kube, widgets, 1, namespace=namespace, resource_version=start, field_selector="spec.color=green"
    )
    assert short(seen) == [("ADDED", "b")]


async def test_one_object_is_watched_by_name(kube: KubeClient, namespace: str) -> None:
    start = await version(kube, CM, namespace)
    for name in ("a", "b"):
        await kube.create(CM, config_map(name, namespace))
    seen = await collect(kube, CM, 1, namespace=namespace, resource_version=start, field_selector="metadata.name=b")
    assert short(seen) == [("ADDED", "b")]


async def test_a_watch_of_metadata_carries_metadata(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    await kube.create(widgets, widget("one", namespace))
    seen = await collect(kube, widgets, 1, namespace=namespace, resource_version="", metadata_only=True)
    assert "spec" not in seen[0][1]


async def test_a_quiet_watch_gets_a_bookmark_and_ends_in_time(
    plane: Plane, kube: KubeClient, widgets: Resource, namespace: str
) -> None:
    start = await version(kube, widgets, namespace)
    kinds = []
    watch = kube.watch(widgets, namespace=namespace, resource_version=start, timeout_s=4)
    async with asyncio.timeout(20), aclosing(watch) as events:
        async for kind, obj in events:
            kinds.append(kind)
            assert int(obj["metadata"]["resourceVersion"]) >= int(start)
    # A real server may have nothing to tell: it sends a bookmark once its cache has moved on.
    assert set(kinds) <= {"BOOKMARK"} if plane.real else kinds == ["BOOKMARK"]


async def test_a_version_of_long_ago_is_gone(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    with pytest.raises(Gone, match="too old resource version: 1 "):
        await collect(kube, widgets, 1, namespace=namespace, resource_version="1")


async def test_a_streamed_list_ends_with_a_marked_bookmark(
    plane: Plane, kube: KubeClient, widgets: Resource, namespace: str
) -> None:
    await kube.create(widgets, widget("one", namespace))
    params = {
        "watch": "true",
        "sendInitialEvents": "true",
        "allowWatchBookmarks": "true",
        "resourceVersionMatch": "NotOlderThan",
        "timeoutSeconds": "3",
    }
    _, text, _ = await request(plane, "GET", widgets.path(namespace), params=params)
    assert '"k8s.io/initial-events-end":"true"' in text
    assert text.index('"name":"one"') < text.index("initial-events-end")
