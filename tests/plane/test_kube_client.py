"""The client, the cache, the election and the recorder against an API server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from allocator.kube import errors
from allocator.kube.cache import Cache
from allocator.kube.client import KubeClient
from allocator.kube.election import Election
from allocator.kube.events import Recorder
from allocator.kube.resources import CONFIG_MAPS, EVENTS, LEASES, NAMESPACES, Object
from allocator.runtime.clock import SystemClock
from tests.unit.scripted_server import eventually


def config_map(namespace: str, name: str, **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "test"}},
        "data": data,
    }


@asynccontextmanager
async def running(main: Any) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(main)
        yield
        task.cancel()


async def test_an_object_is_created_read_replaced_and_deleted(kube: KubeClient, namespace: str) -> None:
    made = await kube.create(CONFIG_MAPS, config_map(namespace, "a", x="1"))
    assert made["kind"] == "ConfigMap"
    assert await kube.get(CONFIG_MAPS, "a", namespace=namespace) == made
    replaced = await kube.replace(CONFIG_MAPS, {**made, "data": {"x": "2"}})
    assert replaced["data"] == {"x": "2"}
    await kube.delete(CONFIG_MAPS, "a", namespace=namespace, uid=made["metadata"]["uid"])
    with pytest.raises(errors.NotFound):
        await kube.get(CONFIG_MAPS, "a", namespace=namespace)


async def test_a_name_is_given_once(kube: KubeClient, namespace: str) -> None:
    await kube.create(CONFIG_MAPS, config_map(namespace, "a"))
    with pytest.raises(errors.AlreadyExists):
        await kube.create(CONFIG_MAPS, config_map(namespace, "a"))


async def test_an_old_version_and_another_uid_conflict(kube: KubeClient, namespace: str) -> None:
    made = await kube.create(CONFIG_MAPS, config_map(namespace, "a"))
    await kube.replace(CONFIG_MAPS, {**made, "data": {"x": "2"}})
    with pytest.raises(errors.Conflict):
        await kube.replace(CONFIG_MAPS, {**made, "data": {"x": "3"}})
    for precondition in ({"uid": "other"}, {"resource_version": made["metadata"]["resourceVersion"]}):
        with pytest.raises(errors.Conflict):
            await kube.delete(CONFIG_MAPS, "a", namespace=namespace, **precondition)


async def test_a_dry_run_changes_nothing(kube: KubeClient, namespace: str) -> None:
    await kube.create(CONFIG_MAPS, config_map(namespace, "a"), dry_run=True)
    with pytest.raises(errors.NotFound):
        await kube.get(CONFIG_MAPS, "a", namespace=namespace)


async def test_an_invalid_object_is_refused_with_its_causes(kube: KubeClient, namespace: str) -> None:
    with pytest.raises(errors.Invalid) as refused:
        await kube.create(CONFIG_MAPS, config_map(namespace, "No_Good"))
    assert refused.value.details["causes"]


async def test_three_forms_of_patch(kube: KubeClient, namespace: str) -> None:
    await kube.create(CONFIG_MAPS, config_map(namespace, "a", x="1", y="1"))
    merged = await kube.patch(CONFIG_MAPS, "a", {"data": {"x": "2", "y": None}}, namespace=namespace)
    assert merged["data"] == {"x": "2"}
    operations = [{"op": "test", "path": "/data/x", "value": "2"}, {"op": "add", "path": "/data/z", "value": "3"}]
    patched = await kube.patch(CONFIG_MAPS, "a", operations, namespace=namespace, form="json")
    assert patched["data"] == {"x": "2", "z": "3"}
    strategic = await kube.patch(CONFIG_MAPS, "a", {"data": {"z": "4"}}, namespace=namespace, form="strategic")
    assert strategic["data"] == {"x": "2", "z": "4"}


@pytest.mark.real_plane
async def test_writes_are_marked_with_the_name_of_the_program(kube: KubeClient, namespace: str) -> None:
    made = await kube.create(CONFIG_MAPS, config_map(namespace, "a", x="1"))
    assert [entry["manager"] for entry in made["metadata"]["managedFields"]] == ["tests"]


@pytest.mark.real_plane
async def test_server_side_apply_makes_and_changes_an_object(kube: KubeClient, namespace: str) -> None:
    for value in ("1", "2"):
        body = config_map(namespace, "a", x=value)
        applied = await kube.patch(CONFIG_MAPS, "a", body, namespace=namespace, form="apply", field_manager="me")
        assert applied["data"] == {"x": value}


async def test_metadata_only_reads_and_lists_leave_the_rest_out(kube: KubeClient, namespace: str) -> None:
    await kube.create(CONFIG_MAPS, config_map(namespace, "a", x="1"))
    found = await kube.get(CONFIG_MAPS, "a", namespace=namespace, metadata_only=True)
    items, _ = await kube.list_all(CONFIG_MAPS, namespace=namespace, label_selector="app=test", metadata_only=True)
    assert items == [found]
    assert set(found) == {"apiVersion", "kind", "metadata"}
    assert (found["apiVersion"], found["kind"]) == ("v1", "ConfigMap")


async def test_selectors_and_pages_are_the_servers(kube: KubeClient, namespace: str) -> None:
    for name in ("a", "b", "c"):
        await kube.create(CONFIG_MAPS, config_map(namespace, name))
    first = await kube.list(CONFIG_MAPS, namespace=namespace, label_selector="app=test", limit=2)
    assert [item["metadata"]["name"] for item in first["items"]] == ["a", "b"]
    rest = await kube.list(
        CONFIG_MAPS,
        namespace=namespace,
        label_selector="app=test",
        limit=2,
        continue_=first["metadata"]["continue"],
    )
    assert [item["metadata"]["name"] for item in rest["items"]] == ["c"]
    only = await kube.list(CONFIG_MAPS, namespace=namespace, field_selector="metadata.name=b")
    assert [item["metadata"]["name"] for item in only["items"]] == ["b"]


async def test_a_watch_tells_what_happens_after_its_version(kube: KubeClient, namespace: str) -> None:
    _, version = await kube.list_all(CONFIG_MAPS, namespace=namespace)
    made = await kube.create(CONFIG_MAPS, config_map(namespace, "a"))
    await kube.delete(CONFIG_MAPS, "a", namespace=namespace)
    told = []
    events = kube.watch(
        CONFIG_MAPS, namespace=namespace, label_selector="app=test", resource_version=version, timeout_s=20
    )
    async with aclosing(events):
        async for kind, obj in events:
            if kind != "BOOKMARK":
                told.append((kind, obj["metadata"]["uid"]))
            if kind == "DELETED":
                break
    assert told == [("ADDED", made["metadata"]["uid"]), ("DELETED", made["metadata"]["uid"])]


async def test_a_watch_ends_by_itself(kube: KubeClient, namespace: str) -> None:
    _, version = await kube.list_all(CONFIG_MAPS, namespace=namespace)
    events = kube.watch(
        CONFIG_MAPS, namespace=namespace, label_selector="app=none", resource_version=version, timeout_s=1
    )
    async with aclosing(events):
        assert [kind async for kind, _ in events if kind != "BOOKMARK"] == []


async def test_a_cache_follows_and_keeps_what_was_just_written(kube: KubeClient, namespace: str) -> None:
    cache = Cache(kube, CONFIG_MAPS, clock=SystemClock(), namespace=namespace, label_selector="app=test")
    async with running(cache.run()):
        await cache.wait_synced()
        assert cache.items() == []
        made = await kube.create(CONFIG_MAPS, config_map(namespace, "a", x="0"))
        cache.note(made)
        for turn in range(1, 21):
            made = await kube.replace(CONFIG_MAPS, {**made, "data": {"x": str(turn)}})
            cache.note(made)
            shown = cache.get("a", namespace)
            assert shown is not None
            assert shown["data"]["x"] == str(turn)
        other = await kube.replace(CONFIG_MAPS, {**made, "data": {"x": "theirs"}})
        await eventually(lambda: cache.get("a", namespace) == other)
        await kube.delete(CONFIG_MAPS, "a", namespace=namespace)
        cache.note_deleted("a", other["metadata"]["uid"], namespace)
        assert cache.get("a", namespace) is None
        again = await kube.create(CONFIG_MAPS, config_map(namespace, "a"))
        await eventually(lambda: cache.get("a", namespace) == again)
    assert cache.staleness_s() < 60


async def test_a_cache_drops_what_leaves_its_selection(kube: KubeClient, namespace: str) -> None:
    cache = Cache(kube, CONFIG_MAPS, clock=SystemClock(), namespace=namespace, label_selector="app=test")
    async with running(cache.run()):
        await cache.wait_synced()
        made = await kube.create(CONFIG_MAPS, config_map(namespace, "a"))
        await eventually(lambda: cache.get("a", namespace) == made)
        left = await kube.patch(CONFIG_MAPS, "a", {"metadata": {"labels": {"app": "other"}}}, namespace=namespace)
        cache.note(left)
        await eventually(lambda: cache.get("a", namespace) is None)


async def test_a_cache_of_metadata_follows(kube: KubeClient, namespace: str) -> None:
    cache = Cache(kube, NAMESPACES, clock=SystemClock(), metadata_only=True)
    async with running(cache.run()):
        await cache.wait_synced()
        await kube.patch(NAMESPACES, namespace, {"metadata": {"annotations": {"x": "y"}}})

        def is_shown() -> bool:
            found = cache.get(namespace)
            return found is not None and found["metadata"].get("annotations", {}).get("x") == "y"

        await eventually(is_shown)
    assert all("spec" not in item for item in cache.items())


async def test_one_of_two_replicas_leads_and_hands_over(kube: KubeClient, namespace: str) -> None:
    leaders: list[str] = []

    def election(identity: str) -> Election:
        return Election(kube, namespace=namespace, name="controller", identity=identity, clock=SystemClock())

    def lead(identity: str) -> Any:
        async def forever() -> None:
            leaders.append(identity)
            await asyncio.Event().wait()

        return forever

    one, two = election("one"), election("two")
    async with running(one.run(lead("one"))):
        await eventually(lambda: leaders == ["one"])
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(two.run(lead("two")))
            await eventually(lambda: two.holder == one.identity)
            waiting.cancel()
        assert one.is_valid()
    lease = await kube.get(LEASES, "controller", namespace=namespace)
    assert lease["spec"]["holderIdentity"] == ""
    async with running(two.run(lead("two"))):
        await eventually(lambda: leaders == ["one", "two"])


async def test_an_event_is_recorded_and_its_repeats_counted(kube: KubeClient, namespace: str) -> None:
    about = await kube.create(CONFIG_MAPS, config_map(namespace, "a"))
    recorder = Recorder(kube, component="spiderpool-test", clock=SystemClock())
    for _ in range(3):
        recorder.emit(regarding=about, reason="Tested", message="all is well", action="Test")
    seen = Cache(kube, EVENTS, clock=SystemClock(), namespace=namespace)
    async with running(seen.run()), running(recorder.run()):
        await eventually(lambda: len(seen.items()) > 0)
        (event,) = seen.items()
    assert (event["reason"], event["note"], event["series"]["count"]) == ("Tested", "all is well", 3)
    assert event["regarding"]["uid"] == about["metadata"]["uid"]
    assert recorder.dropped == 0
