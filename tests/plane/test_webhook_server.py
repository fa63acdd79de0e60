"""The server process from the outside: what it answers to requests of every kind, on real TLS."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from certs import authority
from certs.store import DirectoryStore
from tests.plane.support import eventually
from tests.plane.webhooks import Webhook, pool, review, running_webhook

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane

MUTATE = "/mutate-spiderpool-spidernet-io-v2beta1-spiderippool"
VALIDATE = "/validate-spiderpool-spidernet-io-v2beta1-spiderippool"
JSON = {"Content-Type": "application/json"}
MIB = 1024 * 1024


async def ready(webhook: Webhook) -> None:
    async def is_ready() -> bool:
        async with webhook.session() as session, session.get("/webhook-health-check") as response:
            return response.status == 200 and await response.read() == b""

    await eventually(is_ready)


async def asked(webhook: Webhook, path: str, body: dict[str, Any]) -> dict[str, Any]:
    async with webhook.session() as session, session.post(path, json=body) as response:
        assert response.status == 200, await response.text()
        answer: dict[str, Any] = (await response.json())["response"]
        return answer


REFUSED = {
    "cut off": (b"{", JSON, 400),
    "empty": (b"", JSON, 400),
    "no review": (b"{}", JSON, 400),
    "no uid": (json.dumps(review(pool("p"), uid="")).encode(), JSON, 400),
    "object null": (json.dumps(review(pool("p"), object=None)).encode(), JSON, 400),
    "unknown kind": (json.dumps(review({**pool("p"), "kind": "Pod"})).encode(), JSON, 400),
    "another version": (json.dumps(review(pool("p")) | {"apiVersion": "v1"}).encode(), JSON, 400),
    "deeply nested": (b'{"a":' * 200_000, JSON, 400),
    "nested in the object": (
        json.dumps(review({**pool("p"), "spec": json.loads('{"a":' * 100 + "1" + "}" * 100)})).encode(),
        JSON,
        400,
    ),
    "text": (b"hello", {"Content-Type": "text/plain"}, 415),
    "yaml": (b"a: b", {"Content-Type": "application/yaml"}, 415),
    "compressed": (gzip.compress(b" " * 50 * MIB), {**JSON, "Content-Encoding": "gzip"}, 415),
}


@pytest.mark.parametrize(("body", "headers", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_no_review_is_refused_in_one_line(
    server: Webhook, body: bytes, headers: dict[str, str], status: int
) -> None:
    await ready(server)
    async with server.session() as session, session.post(VALIDATE, data=body, headers=headers) as response:
        text = await response.text()
    assert response.status == status
    assert "Traceback" not in text
    assert "\n" not in text
    assert not server.lines("request_failed")


@pytest.mark.parametrize("framing", ["Content-Length: 7340033", "Transfer-Encoding: chunked"])
async def test_a_body_over_the_limit_is_refused_before_it_is_whole(server: Webhook, framing: str) -> None:
    tls = ssl.create_default_context(cadata=server.ca_bundle)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls)
    head = f"POST {VALIDATE} HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    writer.write(head.encode())
    if "chunked" in framing:
        # Eight of them, and no last one: only the limit can end this.
        chunk = b" " * MIB
        for _ in range(8):
            writer.write(b"%x\r\n%s\r\n" % (MIB, chunk))
    async with asyncio.timeout(10):
        assert b" 413 " in await reader.readline()
    writer.transport.abort()
    await ready(server)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", VALIDATE, 405), ("POST", "/validate-pods", 404)])
async def test_other_paths_and_methods_are_refused(server: Webhook, method: str, path: str, status: int) -> None:
    async with server.session() as session, session.request(method, path) as response:
        assert response.status == status


async def test_subresources_are_none_of_its_business(server: Webhook) -> None:
    await ready(server)
    assert (await asked(server, VALIDATE, review(pool("p"), subResource="status")))["allowed"] is True


async def test_a_wrong_pool_is_refused_on_both_sides(server: Webhook) -> None:
    await ready(server)
    wrong = pool("p", subnet="10.0.0.0/24", ipVersion=4, ips=["10.0.0.9-10.0.0.1"])
    for path in (MUTATE, VALIDATE):
        answer = await asked(server, path, review(wrong))
        assert (answer["allowed"], answer["status"]["code"]) == (False, 422)
        assert answer["status"]["details"]["causes"][0]["field"] == "spec.ips[0]"


async def test_what_was_just_admitted_counts_but_not_a_dry_run(server: Webhook, kube: KubeClient) -> None:
    await ready(server)
    first, second = (pool(name, subnet="10.7.0.0/24", ipVersion=4, ips=["10.7.0.5"]) for name in ("first", "second"))
    for obj in (first, second):
        assert (await asked(server, VALIDATE, review(obj, dryRun=True)))["allowed"] is True
    assert (await asked(server, VALIDATE, review(first)))["allowed"] is True
    refusal = await asked(server, VALIDATE, review(second))
    assert (refusal["allowed"], refusal["status"]["details"]["causes"][0]["field"]) == (False, "spec.ips")

    async def is_forgotten() -> bool:
        return bool((await asked(server, VALIDATE, review(second, dryRun=True)))["allowed"])

    # The first was never stored, so it stands in nobody's way for long.
    await eventually(is_forgotten)


async def test_nobody_fills_the_log_with_a_review(server: Webhook) -> None:
    await ready(server)
    long = "x" * 100_000
    async with server.session() as session:
        for change in ({"uid": long}, {"name": long}, {"namespace": long}, {"kind": {"kind": long}}):
            await session.post(VALIDATE, json=review(pool("p"), **change))
    assert max(map(len, server.log.read_text().splitlines())) < 10_000


async def test_an_endpoint_whose_uid_a_person_made_up_may_be_deleted(server: Webhook) -> None:
    endpoint = {
        "kind": "SpiderEndpoint",
        "metadata": {"name": "e", "namespace": "default"},
        "status": {"current": {"uid": "a,b=c\\d"}},
    }
    body = review(endpoint, "DELETE", object=None, oldObject=endpoint)
    answer = await asked(server, "/validate-spiderpool-spidernet-io-v2beta1-spiderendpoint", body)
    assert answer == {"uid": "u1", "allowed": True}


async def test_a_delete_with_only_the_old_object_is_answered(server: Webhook) -> None:
    await ready(server)
    body = review(pool("p"), "DELETE", object=None, oldObject=pool("p", subnet="10.0.0.0/24"))
    assert (await asked(server, VALIDATE, body))["allowed"] is True


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_old_tls_is_refused(server: Webhook) -> None:
    context = ssl.create_default_context(cadata=server.ca_bundle)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", server.port, ssl=context)


async def test_plain_http_and_silence_hurt_nobody_else(server: Webhook) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert b"200" not in await reader.read()
    writer.close()
    await ready(server)
    for connection in silent:
        connection.close()


async def test_rotation_under_load_loses_no_handshake(plane: Plane, tmp_path: Path) -> None:
    with running_webhook(plane.kubeconfig, tmp_path / "w", "--register", "none") as webhook:
        await ready(webhook)
        old = webhook.ca_bundle
        store = DirectoryStore(webhook.certs)
        kept = await store.load()
        assert kept is not None
        # Another leaf of the same authority, as a renewal makes it.
        await store.save(
            authority.issued(kept, ["127.0.0.1", "renewed.example"], authority.expiry_of(kept) - authority.LEAF_LIFE)
        )
        context = ssl.create_default_context(cadata=old)
        body = review(pool("p", subnet="10.0.0.0/24", ipVersion=4))
        async with aiohttp.ClientSession(
            webhook.base, connector=aiohttp.TCPConnector(ssl=context, force_close=True)
        ) as session:
            answers = 0

            async def ask() -> None:
                nonlocal answers
                async with session.post(VALIDATE, json=body) as response:
                    assert response.status == 200
                    answers += 1

            async with asyncio.timeout(20):
                while len(webhook.lines("certificate_served")) < 2:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(10):
                            group.create_task(ask())
        assert answers >= 10
        assert not webhook.lines("request_failed")


async def test_without_its_caches_it_answers_503(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    kubeconfig.write_text(
        json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}],
        })
    )  # fmt: skip
    with running_webhook(kubeconfig, tmp_path / "w", "--register", "none") as webhook:
        async with webhook.session() as session:
            async with session.get("/webhook-health-check") as response:
                assert response.status == 503
            async with session.post(VALIDATE, json=review(pool("p", subnet="10.0.0.0/24", ipVersion=4))) as response:
                assert response.status == 503
                assert "not known yet" in await response.text()
