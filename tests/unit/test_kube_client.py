import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from allocator.kube import errors
from allocator.kube.client import CALLS_AT_ONCE, KubeClient
from allocator.kube.resources import NODES, PODS, SPIDER_IP_POOLS, Object
from tests.unit.scripted_server import (
    ScriptedServer,
    Stream,
    connected,
    cuts,
    eventually,
    hangs,
    kubeconfig,
    refuses,
    says,
    says_text,
    serve,
)

Pair = tuple[ScriptedServer, KubeClient]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with connected(tmp_path) as both:
        yield both


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[Pair]:
    """A client whose deadline a test can wait for."""
    async with connected(tmp_path, timeout_s=0.2) as both:
        yield both


def node(name: str, version: str = "1", **more: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": version, **more},
    }


def page(names: list[str], *, continue_: str = "", version: str = "7") -> Object:
    items = [{"metadata": {"name": name}} for name in names]
    return {
        "apiVersion": "v1",
        "kind": "NodeList",
        "metadata": {"continue": continue_, "resourceVersion": version},
        "items": items,
    }


async def test_a_read_object_keeps_fields_that_nobody_here_knows(pair: Pair) -> None:
    server, client = pair
    server.then(says({**node("a"), "future": {"of": ["kubernetes"]}}))
    assert (await client.get(NODES, "a"))["future"] == {"of": ["kubernetes"]}
    assert server.asked[0].path == "/api/v1/nodes/a"
    assert server.asked[0].headers["User-Agent"] == "spiderpool-test/1"


async def test_a_refusal_comes_out_as_its_class(pair: Pair) -> None:
    server, client = pair
    server.then(refuses(404, "NotFound", 'nodes "a" not found'))
    with pytest.raises(errors.NotFound, match='nodes "a" not found'):
        await client.get(NODES, "a")


async def test_too_many_requests_say_how_long_to_wait(pair: Pair) -> None:
    server, client = pair
    server.then(refuses(429, "TooManyRequests", retry_after=4))
    with pytest.raises(errors.TooManyRequests) as refused:
        await client.create(NODES, node("a"))
    assert refused.value.retry_after == 4.0


async def test_a_connection_cut_after_the_request_leaves_the_outcome_unknown(pair: Pair) -> None:
    server, client = pair
    server.then(cuts())
    with pytest.raises(errors.Unreachable, match="POST /api/v1/nodes"):
        await client.create(NODES, node("a"))
    assert server.asked[0].body["metadata"]["name"] == "a"  # it did arrive


async def test_a_broken_write_is_not_sent_again_and_a_broken_read_is(pair: Pair) -> None:
    server, client = pair
    server.then(cuts(), cuts(), cuts(), says(node("a")))
    with pytest.raises(errors.Unreachable, match="PUT /api/v1/nodes/a"):
        await client.replace(NODES, node("a"))
    with pytest.raises(errors.Unreachable, match="DELETE /api/v1/nodes/a"):
        await client.delete(NODES, "a")
    await client.get(NODES, "a")
    assert [asked.method for asked in server.asked] == ["PUT", "DELETE", "GET", "GET"]


async def test_a_body_cut_short_leaves_the_outcome_unknown(pair: Pair) -> None:
    server, client = pair
    server.then(cuts(b'{"kind":"Node","metad', announced=500))
    with pytest.raises(errors.Unreachable):
        await client.get(NODES, "a")


async def test_truncated_json_leaves_the_outcome_unknown(pair: Pair) -> None:
    server, client = pair
    server.then(says_text('{"kind":"Node","metad', content_type="application/json"))
    with pytest.raises(errors.Unreachable, match="not whole"):
        await client.get(NODES, "a")


async def test_a_login_page_in_between_is_no_answer(pair: Pair) -> None:
    server, client = pair
    server.then(says_text("<html>please log in</html>", content_type="text/html"))
    with pytest.raises(errors.Unreachable):
        await client.get(NODES, "a")


async def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    async with serve() as server:
        gone = server.url
    async with KubeClient.connect(kubeconfig=kubeconfig(tmp_path, gone), user_agent="spiderpool-test/1") as client:
        with pytest.raises(errors.Unreachable, match="GET /api/v1/nodes/a"):
            await client.get(NODES, "a")


async def test_a_failed_call_leaves_nothing_behind_that_only_a_search_for_cycles_would_find(tmp_path: Path) -> None:
    async with serve() as server:
        gone = server.url
    async with KubeClient.connect(kubeconfig=kubeconfig(tmp_path, gone), user_agent="spiderpool-test/1") as client:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                with pytest.raises(errors.Unreachable):
                    await client.get(NODES, "a")
            await asyncio.sleep(0)  # the loop itself remembers what it did last
            refusals = aiohttp.ClientConnectorError, ConnectionError
            left = [each for each in gc.get_objects() if isinstance(each, refusals)]
        finally:
            gc.enable()
    assert left == []


async def test_no_answer_within_the_deadline_is_unreachable(hasty: Pair) -> None:
    server, client = hasty
    server.then(hangs(server))
    with pytest.raises(errors.Unreachable, match="no answer in time"):
        await client.get(NODES, "a")


async def test_a_deadline_of_the_caller_stays_the_callers(pair: Pair) -> None:
    server, client = pair
    server.then(hangs(server))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.get(NODES, "a")


async def test_a_burst_waits_in_line_and_the_wait_is_no_part_of_a_calls_deadline(hasty: Pair) -> None:
    server, client = hasty
    server.then(*[hangs(server)] * CALLS_AT_ONCE)
    server.otherwise = says(node("a"))

    async def ask() -> str:
        try:
            return str((await client.get(NODES, "a"))["metadata"]["name"])
        except errors.Unreachable:
            return "none"

    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(ask()) for _ in range(CALLS_AT_ONCE + 4)]
        await eventually(lambda: len(server.asked) == CALLS_AT_ONCE)
    assert sorted(call.result() for call in calls) == ["a"] * 4 + ["none"] * CALLS_AT_ONCE


async def test_a_watch_needs_no_place_among_the_calls(pair: Pair) -> None:
    server, client = pair
    server.then(*[hangs(server)] * CALLS_AT_ONCE)
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(client.get(NODES, "a")) for _ in range(CALLS_AT_ONCE)]
        await eventually(lambda: len(server.asked) == CALLS_AT_ONCE)
        stream = Stream()
        server.then(stream)
        stream.event("ADDED", node("a"))
        stream.end()
        assert await seen(client) == [("ADDED", "a")]
        for call in calls:
            call.cancel()


async def test_a_cancelled_call_ends_at_once(pair: Pair) -> None:
    server, client = pair
    server.then(hangs(server))
    async with asyncio.TaskGroup() as group:
        call = group.create_task(client.get(NODES, "a"))
        await eventually(lambda: len(server.asked) == 1)
        call.cancel()
    assert call.cancelled()


async def test_metadata_only_asks_for_it_and_restores_the_kind(pair: Pair) -> None:
    server, client = pair
    partial = {
        "apiVersion": "meta.k8s.io/v1",
        "kind": "PartialObjectMetadata",
        "metadata": {"name": "v4", "generation": 2},
    }
    server.then(says(partial))
    assert await client.get(SPIDER_IP_POOLS, "v4", metadata_only=True) == {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderIPPool",
        "metadata": {"name": "v4", "generation": 2},
    }
    assert server.asked[0].headers["Accept"] == (
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
    )


async def test_metadata_only_of_a_server_that_cannot_is_cut_here(pair: Pair) -> None:
    server, client = pair
    server.then(says({**page([]), "items": [{**node("a"), "spec": {"podCIDR": "10.0.0.0/24"}}]}))
    listed = await client.list(NODES, metadata_only=True)
    assert [set(item) for item in listed["items"]] == [{"apiVersion", "kind", "metadata"}]
    assert "as=PartialObjectMetadataList;" in server.asked[0].headers["Accept"]


async def test_items_of_a_list_get_kind_and_api_version(pair: Pair) -> None:
    server, client = pair
    server.then(says(page(["a"])))
    (item,) = (await client.list(NODES))["items"]
    assert (item["apiVersion"], item["kind"]) == ("v1", "Node")


async def test_an_empty_list_of_a_go_server_may_be_null(pair: Pair) -> None:
    server, client = pair
    server.then(says({**page([]), "items": None}))
    assert await client.list_all(NODES) == ([], "7")


async def test_selectors_and_limits_go_to_the_server(pair: Pair) -> None:
    server, client = pair
    server.then(says(page([])))
    await client.list(
        PODS,
        namespace="default",
        label_selector="app=web",
        field_selector="spec.nodeName=n1",
        limit=5,
        continue_="c",
        resource_version="0",
    )
    assert server.asked[0].path == "/api/v1/namespaces/default/pods"
    assert server.asked[0].query == {
        "labelSelector": "app=web",
        "fieldSelector": "spec.nodeName=n1",
        "limit": "5",
        "continue": "c",
        "resourceVersion": "0",
    }


async def test_list_all_follows_the_pages(pair: Pair) -> None:
    server, client = pair
    server.then(says(page(["a", "b"], continue_="next")), says(page(["c"])))
    items, version = await client.list_all(NODES)
    assert [item["metadata"]["name"] for item in items] == ["a", "b", "c"]
    assert version == "7"
    assert [asked.query.get("continue") for asked in server.asked] == [None, "next"]
    assert {asked.query["limit"] for asked in server.asked} == {"500"}


async def test_an_expired_page_begins_the_list_again_without_doubles(pair: Pair) -> None:
    server, client = pair
    server.then(
        says(page(["a"], continue_="next")),
        refuses(410, "Expired"),
        says(page(["a"], continue_="next")),
        says(page(["b"], version="9")),
    )
    items, version = await client.list_all(NODES)
    assert [item["metadata"]["name"] for item in items] == ["a", "b"]
    assert version == "9"


async def test_pages_that_always_expire_end_in_one_list_without_pages(pair: Pair) -> None:
    server, client = pair
    expiring = (says(page(["a"], continue_="next")), refuses(410, "Expired"))
    server.then(*expiring, *expiring, says(page(["a", "b"])))
    items, _ = await client.list_all(NODES)
    assert len(items) == 2
    assert "limit" not in server.asked[-1].query


async def test_writes_name_their_manager(pair: Pair) -> None:
    server, client = pair
    server.then(says(node("a")), says(node("a")), says(node("a")))
    await client.create(NODES, node("a"), dry_run=True)
    await client.replace(NODES, node("a"), subresource="status")
    await client.patch(NODES, "a", {"metadata": {"labels": {"x": "y"}}})
    assert [(asked.method, asked.path) for asked in server.asked] == [
        ("POST", "/api/v1/nodes"),
        ("PUT", "/api/v1/nodes/a/status"),
        ("PATCH", "/api/v1/nodes/a"),
    ]
    assert [asked.query for asked in server.asked] == [
        {"fieldManager": "spiderpool-test", "dryRun": "All"},
        {"fieldManager": "spiderpool-test"},
        {"fieldManager": "spiderpool-test"},
    ]


@pytest.mark.parametrize(
    ("form", "content_type"),
    [
        ("json", "application/json-patch+json"),
        ("merge", "application/merge-patch+json"),
        ("strategic", "application/strategic-merge-patch+json"),
        ("apply", "application/apply-patch+yaml"),
    ],
)
async def test_each_form_of_patch_has_its_content_type(pair: Pair, form: Any, content_type: str) -> None:
    server, client = pair
    server.then(says(node("a")))
    await client.patch(NODES, "a", {}, form=form, field_manager="someone")
    assert server.asked[0].headers["Content-Type"] == content_type
    assert server.asked[0].query["fieldManager"] == "someone"
    assert server.asked[0].query.get("force") == ("true" if form == "apply" else None)


async def test_a_delete_sends_its_preconditions(pair: Pair) -> None:
    server, client = pair
    server.then(says({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
    await client.delete(
        PODS,
        "web-0",
        namespace="default",
        uid="u1",
        resource_version="5",
        grace_period_s=0,
        propagation="Background",
    )
    assert server.asked[0].body == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": "u1", "resourceVersion": "5"},
        "gracePeriodSeconds": 0,
        "propagationPolicy": "Background",
    }


async def test_a_delete_without_preconditions_sends_none(pair: Pair) -> None:
    server, client = pair
    server.then(says(node("a")))
    await client.delete(NODES, "a")
    assert server.asked[0].body == {"apiVersion": "v1", "kind": "DeleteOptions"}


async def test_raw_returns_text_where_the_answer_is_no_json(pair: Pair) -> None:
    server, client = pair
    server.then(says_text("ok"), says({"major": "1"}))
    assert await client.raw("GET", "/readyz", params={"verbose": ""}) == "ok"
    assert await client.raw("GET", "/version") == {"major": "1"}


async def seen(client: KubeClient, **more: Any) -> list[tuple[str, str]]:
    found = []
    async with aclosing(client.watch(NODES, resource_version="5", **more)) as events:
        async for kind, obj in events:
            found.append((kind, obj["metadata"].get("name", "")))
    return found


async def test_a_watch_tells_events_and_ends_with_the_servers_end(pair: Pair) -> None:
    server, client = pair
    stream = Stream()
    server.then(stream)
    stream.event("ADDED", node("a"))
    stream.event("BOOKMARK", {"kind": "Node", "metadata": {"resourceVersion": "9"}})
    stream.end()
    assert await seen(client, timeout_s=60) == [("ADDED", "a"), ("BOOKMARK", "")]
    assert server.asked[0].query == {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "60",
        "resourceVersion": "5",
    }


async def test_an_event_of_two_megabytes_arrives_whole(pair: Pair) -> None:
    server, client = pair
    stream = Stream()
    server.then(stream)
    stream.event("ADDED", node("big", annotations={"x": "y" * 2_000_000}))
    stream.event("ADDED", node("small"))
    stream.end()
    assert await seen(client) == [("ADDED", "big"), ("ADDED", "small")]


async def test_an_error_event_is_raised_as_its_class(pair: Pair) -> None:
    server, client = pair
    stream = Stream()
    server.then(stream)
    stream.event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
    with pytest.raises(errors.Gone, match="too old"):
        await seen(client)


async def test_a_watch_that_is_refused_raises(pair: Pair) -> None:
    server, client = pair
    server.then(refuses(429, "TooManyRequests", "storage is (re)initializing", retry_after=1))
    with pytest.raises(errors.TooManyRequests) as refused:
        await seen(client)
    assert refused.value.retry_after == 1.0


async def test_a_silent_watch_is_given_up(pair: Pair) -> None:
    server, client = pair
    server.then(Stream())
    with pytest.raises(errors.Unreachable):
        await seen(client, idle_s=0.2)


async def test_a_watch_cut_inside_an_event_is_unreachable(pair: Pair) -> None:
    server, client = pair
    stream = Stream()
    server.then(stream)
    stream.write(b'{"type":"ADDED","object":{"kind"')
    stream.end()
    with pytest.raises(errors.Unreachable, match="cut inside an event"):
        await seen(client)


async def test_a_watch_without_an_answer_to_its_request_is_given_up(hasty: Pair) -> None:
    server, client = hasty
    server.then(hangs(server))
    with pytest.raises(errors.Unreachable, match="no answer in time"):
        await seen(client)


async def test_a_watch_of_metadata_shows_nothing_else(pair: Pair) -> None:
    server, client = pair
    stream = Stream()
    server.then(stream)
    stream.event("ADDED", {**node("a"), "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"})
    stream.end()
    async with aclosing(client.watch(NODES, resource_version="5", metadata_only=True)) as events:
        found = [obj async for _, obj in events]
    assert found == [node("a")]
