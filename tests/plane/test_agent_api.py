"""The agent's API as its clients speak it: what the original's plugin sends byte by byte, and what it reads."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import jsonschema
import pytest

from allocator.kube.resources import SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS
from devcluster.waiting import until
from tests.plane.agents import Agent, args, make_node, make_pod, make_pool, running_agent
from tests.plane.network import Network, network
from tests.plane.test_agent import ONE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane

JSON = "application/json"
NOBODY = {"containerID": "c", "ifName": "eth0", "netNamespace": "", "podNamespace": "", "podName": "", "podUID": ""}


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        assert self.headers["content-type"].startswith(JSON), self
        return json.loads(self.body)


async def exchange(agent: Agent, method: str, path: str, body: object = None, **options: Any) -> Reply:
    """One connection for one request, closed after it, as the original's client. `sent_as` is the body's media type,
    `raw` what stands in for its JSON; `chunked` sends it without its length.
    """
    content = options.get("raw", b"" if body is None else json.dumps(body).encode())
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", "Accept: application/json", "Connection: close"]
    if content:
        head += [f"Content-Type: {options.get('sent_as', JSON)}"] if options.get("sent_as", JSON) else []
        if options.get("chunked"):
            head, content = [*head, "Transfer-Encoding: chunked"], b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
        else:
            head.append(f"Content-Length: {len(content)}")
    reader, writer = await asyncio.open_unix_connection(str(agent.socket))
    writer.write("\r\n".join([*head, "", ""]).encode() + content)
    answer = await reader.read()
    writer.close()
    first, _, rest = answer.partition(b"\r\n")
    lines, _, payload = rest.partition(b"\r\n\r\n")
    pairs = (line.split(": ", 1) for line in lines.decode().split("\r\n"))
    return Reply(int(first.split()[1]), {name.lower(): value for name, value in pairs}, payload.decode())


@pytest.fixture
async def agent(plane: Plane, kube: KubeClient, tmp_path: Path) -> AsyncIterator[Agent]:
    await make_node(kube, "n1")
    async with running_agent(plane.kubeconfig, "n1", tmp_path) as running:
        yield running


def coded(code: int, message: str) -> dict[str, object]:
    return {"code": code, "message": message}


# What is sent: method, path, body, how. What comes back: status, JSON (None: no body).
Row = tuple[str, str, object, dict[str, Any], int, object]
WITHOUT_UID = {key: value for key, value in NOBODY.items() if key != "podUID"}
UNSUPPORTED = coded(415, 'unsupported media type "application/octet-stream", only [application/json] is taken')
ROWS: dict[str, Row] = {
    "batch assignment does nothing": ("POST", "/v1/ipam/ips", None, {}, 200, None),
    "the coordinator is not there": (
        "GET", "/v1/coordinator/config", {"podName": "p", "podNamespace": "n"}, {}, 501,
        coded(501, "the coordinator is not part of this version: leave its plugin out of the network"),
    ),
    "an unknown path": ("GET", "/v1/ipam/nothing", None, {}, 404, coded(404, "path /v1/ipam/nothing was not found")),
    "another method": (
        "PUT", "/v1/ipam/ip", None, {}, 405, coded(405, "method PUT is not allowed, but [DELETE,POST] are")
    ),
    "a body without a type": ("POST", "/v1/ipam/ip", NOBODY, {"sent_as": ""}, 415, UNSUPPORTED),
    "no body": ("POST", "/v1/ipam/ip", None, {}, 422, coded(602, "IpamAddArgs in body is required")),
    "a missing member": ("POST", "/v1/ipam/ip", WITHOUT_UID, {}, 422, coded(602, "podUID in body is required")),
    "a member that is null": (
        "DELETE", "/v1/ipam/ip", {**NOBODY, "podUID": None}, {}, 422, coded(602, "podUID in body is required")
    ),
    "a member of another type": (
        "DELETE", "/v1/ipam/ip", {**NOBODY, "podUID": 7}, {}, 422,
        coded(601, "Expected `str`, got `int` - at `$.podUID` in body"),
    ),
    "an attachment without interface": (
        "POST", "/v1/ipam/gc", {"networkName": "n", "validAttachments": [{"containerID": "c"}]}, {}, 422,
        coded(602, "validAttachments[0].ifName in body is required"),
    ),
    "no query": ("GET", "/v1/workloadendpoint", None, {}, 422, coded(602, "podNamespace in query is required")),
    "an empty value in the query": (
        "GET", "/v1/workloadendpoint?podNamespace=shop&podName=", None, {}, 422,
        coded(602, "podName in query is required"),
    ),
    "an endpoint that is not there": (
        "GET", "/v1/workloadendpoint?podNamespace=shop&podName=cart", None, {}, 404,
        "pod shop/cart has no address on this node",
    ),
    "empty names are accepted, and find no pod": (
        "POST", "/v1/ipam/ip", {**NOBODY, "defaultIPv4IPPool": None, "cleanGateway": None, "later": [1]}, {}, 500,
        "the runtime names no pod: CNI_ARGS needs K8S_POD_NAMESPACE and K8S_POD_NAME",
    ),
    "a release of nobody's": ("DELETE", "/v1/ipam/ip", {**NOBODY, "netNamespace": None}, {}, 200, None),
    "a body in chunks": ("DELETE", "/v1/ipam/ip", NOBODY, {"chunked": True}, 200, None),
    "a batch release of nobody's": ("DELETE", "/v1/ipam/ips", {**NOBODY, "podName": "gone"}, {}, 200, None),
    "garbage collection of a network without a name": (
        "POST", "/v1/ipam/gc", {"networkName": "", "validAttachments": []}, {}, 200, None
    ),
    "status": ("POST", "/v1/ipam/status", {"defaultIPv4IPPool": None}, {}, 200, None),
    **{
        f"GET {path}": ("GET", path, None, {}, 200, None)
        for path in ("/v1/ipam/healthy", "/v1/runtime/startup", "/v1/runtime/readiness", "/v1/runtime/liveness")
    },
}  # fmt: skip


async def test_every_request_is_answered_in_the_originals_forms(agent: Agent) -> None:
    expected, got = {}, {}
    for name, (method, path, body, how, status, answer) in ROWS.items():
        reply = await exchange(agent, method, path, body, **how)
        got[name] = (reply.status, reply.json if reply.body else None)
        expected[name] = (status, answer)
    assert got == expected


async def test_a_refusal_of_an_operation_is_a_bare_string_and_a_newline_and_a_wrong_method_names_the_right_ones(
    agent: Agent,
) -> None:
    refused = await exchange(agent, "POST", "/v1/ipam/ip", NOBODY)
    assert refused.body.endswith('K8S_POD_NAME"\n')
    wrong = await exchange(agent, "PATCH", "/v1/ipam/ips")
    assert wrong.headers["allow"] == "DELETE,POST"
    malformed = await exchange(agent, "POST", "/v1/ipam/ip", raw=b'{"podUID":')
    assert (malformed.status, malformed.json["code"]) == (400, 400)


@pytest.mark.parametrize("text", ["-1", "nan", "soon", ""])
async def test_a_deadline_that_makes_no_sense_is_none(agent: Agent, text: str) -> None:
    gone = {**NOBODY, "podNamespace": "shop", "podName": "gone"}  # which the API server is asked for
    answer = await agent.call("DELETE", "/v1/ipam/ip", gone, headers={"X-Spiderpool-Deadline-Seconds": text})
    assert answer.status == 200


async def test_the_originals_plugin_adds_reads_and_deletes(agent: Agent, kube: KubeClient, namespace: str) -> None:
    await make_pool(kube, "rack7-v4", "10.20.0.10", gateway="10.20.0.1")
    pod = await make_pod(kube, namespace, "cart-7d9", "n1")
    uid = pod["metadata"]["uid"]
    names = {"podNamespace": namespace, "podName": "cart-7d9", "podUID": uid}
    sandbox = {"containerID": "4f0c", "ifName": "eth0", "netNamespace": "/var/run/netns/cni-1", **names}
    assert (await exchange(agent, "GET", "/v1/ipam/healthy")).status == 200
    body = {**sandbox, "defaultIPv4IPPool": ["rack7-v4"], "defaultIPv6IPPool": None}
    added = await exchange(agent, "POST", "/v1/ipam/ip", body, chunked=True)
    assert (added.status, added.json) == (
        200,
        {
            "ips": [
                {
                    "address": "10.20.0.10/16",
                    "gateway": "10.20.0.1",
                    "ipPool": "rack7-v4",
                    "nic": "eth0",
                    "version": 4,
                }
            ],
            "routes": [{"ifName": "eth0", "dst": "0.0.0.0/0", "gw": "10.20.0.1"}],
            "dns": {},
        },
    )
    query = f"podNamespace={namespace}&podName=cart-7d9"
    found = await exchange(agent, "GET", f"/v1/workloadendpoint?{query}")
    interface = {"interface": "eth0", "ipv4": "10.20.0.10/16", "ipv4Pool": "rack7-v4", "ipv4Gateway": "10.20.0.1"}
    assert found.json == {**names, "node": "n1", "interfaces": [{**interface, "routes": []}]}
    deleted = await exchange(agent, "DELETE", "/v1/ipam/ip", sandbox)
    assert (deleted.status, deleted.body, deleted.headers.get("content-type")) == (200, "", None)


async def test_answers_have_the_forms_that_the_openapi_document_shows(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    document = (await exchange(agent, "GET", "/swagger.json")).json
    assert (document["swagger"], document["basePath"]) == ("2.0", "/v1")
    pools = {"type": "array", "items": {"type": "string"}, "x-nullable": True}
    assert document["definitions"]["IpamAddArgs"]["properties"]["defaultIPv4IPPool"] == pools
    await make_pool(kube, "a", "10.20.0.10", gateway="10.20.0.1", routes=[{"dst": "10.99.0.0/16", "gw": "10.20.0.254"}])
    await make_pool(kube, "six", "fd00::10", "fd00::/64")
    pod = await make_pod(kube, namespace, "cart", "n1", '{"ipv4": ["a"], "ipv6": ["six"]}')
    added = await exchange(agent, "POST", "/v1/ipam/ip", args(pod))
    found = await exchange(agent, "GET", f"/v1/workloadendpoint?podNamespace={namespace}&podName=cart")
    for path, method, answer in (("/ipam/ip", "post", added), ("/workloadendpoint", "get", found)):
        schema = document["paths"][path][method]["responses"]["200"]["schema"]
        jsonschema.validate(answer.json, {**schema, "definitions": document["definitions"]})
        closed = {name: {**each, "additionalProperties": False} for name, each in document["definitions"].items()}
        jsonschema.validate(answer.json, {**schema, "definitions": closed})
    for path, operations in document["paths"].items():
        for method in operations:
            reply = await exchange(agent, method.upper(), f"/v1{path}")
            assert reply.status not in (404, 405), (method, path)
    page = await exchange(agent, "GET", "/v1/docs")
    assert (page.status, page.headers["content-type"], "/v1/ipam/ip" in page.body) == (
        200,
        "text/html; charset=utf-8",
        True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def asked_on_tcp(port: int, path: str, method: str = "GET") -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        session.request(method, path) as response,
    ):
        return response.status, await response.json() if response.content_type == JSON else await response.text()


async def test_the_port_serves_probes_and_says_of_the_rest_that_it_is_elsewhere(
    plane: Plane, kube: KubeClient, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    port = free_port()
    async with running_agent(plane.kubeconfig, "n1", tmp_path, health=f"127.0.0.1:{port}"):
        for probe in ("startup", "readiness", "liveness"):
            assert await asked_on_tcp(port, f"/v1/runtime/{probe}") == (200, "")
        for method, path in (("POST", "/v1/ipam/ip"), ("DELETE", "/v1/ipam/ips"), ("GET", "/v1/coordinator/config")):
            message = f"{method} {path} is served on the agent's unix socket only"
            assert await asked_on_tcp(port, path, method) == (501, coded(501, message))
        assert (await asked_on_tcp(port, "/swagger.json"))[0] == 200
        assert (await asked_on_tcp(port, "/v1/nothing"))[0] == 404


async def test_an_agent_without_api_server_waits_says_so_and_serves_when_it_comes(
    plane: Plane, kube: KubeClient, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    port = free_port()

    async def says_that_it_waits() -> bool:
        try:
            answers = [await asked_on_tcp(port, f"/v1/runtime/{probe}") for probe in ("startup", "readiness")]
        except aiohttp.ClientConnectionError:
            return False
        return answers == [(500, "the caches are not filled yet")] * 2

    async with network(plane.kubeconfig, tmp_path) as wire:
        wire.stall()

        async def heal_once_it_waits() -> None:
            await until(says_that_it_waits, within_s=20, what="the agent to answer its probes")
            assert (await asked_on_tcp(port, "/v1/runtime/liveness"))[0] == 200
            assert not (tmp_path / "n1.sock").exists()
            wire.heal()

        async with asyncio.TaskGroup() as group:
            group.create_task(heal_once_it_waits())
            async with running_agent(wire.kubeconfig, "n1", tmp_path, health=f"127.0.0.1:{port}") as agent:
                assert (await agent.call("GET", "/v1/ipam/healthy")).status == 200


@pytest.fixture
async def wire(plane: Plane, tmp_path: Path) -> AsyncIterator[Network]:
    async with network(plane.kubeconfig, tmp_path) as made:
        yield made


async def test_a_request_that_is_hung_up_while_it_waits_behind_another_of_its_pod_never_runs(
    wire: Network, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await make_node(kube, "n1")
    await make_pool(kube, "a", "10.20.0.10-10.20.0.19")
    async with running_agent(wire.kubeconfig, "n1", tmp_path) as agent:
        pod = await make_pod(kube, namespace, "cart", "n1", ONE)
        wire.stall()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(agent.add(pod, container="c1"))
            await wire.holds.wait()
            hung_up = group.create_task(agent.add(pod, container="c2"))
            assert (await agent.call("GET", "/v1/runtime/liveness")).status == 200
            hung_up.cancel()
            wire.heal()
        # In the pod's order it comes after all that was asked before.
        assert (await agent.delete(pod)).status == 200
    (address,) = first.result().addresses
    record = await kube.get(SPIDER_IP_ADDRESSES, address.removesuffix("/16"))
    assert (record["spec"]["state"], record["spec"]["holder"]["containerID"]) == ("Held", "c1")


async def write_status(kube: KubeClient, pool: str, free: int) -> None:
    status = {"freeIPCount": free, "allocationSource": "Ledger"}
    await kube.patch(SPIDER_IP_POOLS, pool, {"status": status}, subresource="status")


async def test_status_tells_exhausted_pools_and_addresses_in_doubt(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    for name in ("a1", "a2"):
        await make_pool(kube, name, f"10.20.0.1{name[1]}")

    async def status(*pools: str) -> tuple[int, str, str]:
        body = {"defaultIPv4IPPool": list(pools), "defaultIPv6IPPool": []}
        reply = await exchange(agent, "POST", "/v1/ipam/status", body)
        return reply.status, reply.headers.get("x-spiderpool-cni-code", ""), reply.body

    assert (await status("a1", "a2"))[0] == 200
    for name in ("a1", "a2"):
        await write_status(kube, name, 0)
    pod = await make_pod(kube, namespace, "cart", "n1", '{"ipv4": ["a1"]}')
    assert (await agent.add(pod)).status == 200

    async def exhausted() -> tuple[int, str, str] | None:
        # The agent looks at a count once in five seconds.
        found = await status("a*")
        return found if found[0] == 500 else None

    told = await until(exhausted, within_s=15, what="the counts to be read again")
    assert told == (500, "50", '"the IPv4 pools of the network have no free address: a1, a2"\n')
    assert (await status("nowhere"))[0] == 200
    await kube.patch(SPIDER_IP_ADDRESSES, "10.20.0.11", {"spec": {"state": "Conflict"}})

    async def in_doubt() -> tuple[int, str, str] | None:
        found = await status("a*")
        return found if found[1] == "51" else None

    assert "10.20.0.11 (Conflict)" in (await until(in_doubt, within_s=10, what="the watch to show it"))[2]
    assert (await status())[0] == 200


async def test_a_network_that_asks_for_its_masters_subnet_is_told_why_the_master_is_not_found(
    agent: Agent, kube: KubeClient, namespace: str
) -> None:
    await make_pool(kube, "a", "10.20.0.10")
    pod = await make_pod(kube, namespace, "cart", "n1", ONE)
    refused = await agent.add(pod, matchMasterSubnet=True)
    assert refused.status == 500
    assert "a: match_master_subnet cannot find what eth0 in /var/run/netns/none stands on" in refused.json
    assert (await agent.add(pod)).status == 200
