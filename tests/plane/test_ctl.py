"""`spiderpoolctl ip show` as a process, against an API server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from allocator.domain.addresses import object_name, parse_address
from allocator.kube.resources import SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS, SPIDER_RESERVED_IPS
from tests.plane.commands import ctl

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane

API = "spiderpool.spidernet.io/v2beta1"
HOLDER = {
    "namespace": "shop",
    "pod": "cart-7d9",
    "podUID": "9e0c6a52",
    "interface": "eth0",
    "node": "node-1",
    "containerID": "4f0c",
}


async def make_pool(kube: KubeClient, name: str, **spec: Any) -> None:
    body = {"ipVersion": 4, "subnet": "10.20.0.0/16", "ips": ["10.20.0.10-10.20.0.20"], **spec}
    await kube.create(
        SPIDER_IP_POOLS, {"apiVersion": API, "kind": "SpiderIPPool", "metadata": {"name": name}, "spec": body}
    )


async def make_record(kube: KubeClient, address: str, state: str = "Held", **spec: Any) -> None:
    parsed = parse_address(address)
    body = {
        "address": str(parsed),
        "ipVersion": parsed.version,
        "pool": "rack7",
        "state": state,
        "holder": HOLDER,
        "since": "2026-11-22T20:00:00Z",
        **spec,
    }
    meta = {"name": object_name(parsed)}
    await kube.create(
        SPIDER_IP_ADDRESSES, {"apiVersion": API, "kind": "SpiderIPAddress", "metadata": meta, "spec": body}
    )


def lines(text: str) -> dict[str, str]:
    """The table for people as label -> value."""
    pairs = [line.split(None, 1) if not line.startswith("Last") else line.split("   ", 1) for line in text.splitlines()]
    return {label: value.strip() for label, value in pairs}


async def test_a_held_address_shows_its_pod(kube: KubeClient, plane: Plane) -> None:
    await make_record(kube, "10.20.0.10")
    outcome = await ctl("ip", "show", "10.20.0.10", "--kubeconfig", str(plane.kubeconfig))
    assert outcome.status == 0, outcome.stderr
    shown = lines(outcome.stdout)
    assert shown["Pod"] == "shop/cart-7d9 (UID 9e0c6a52)"
    assert shown["State"].startswith("Held")
    assert (shown["Pool"], shown["Node"], shown["Interface"]) == ("rack7", "node-1", "eth0")
    assert shown["Since"].startswith("2026-11-22T20:00:00")


@pytest.mark.parametrize("written", ["fd00::a", "FD00:0:0::a", "fd00:0000:0000:0000:0000:0000:0000:000a"])
async def test_an_ipv6_address_is_found_however_it_is_written(kube: KubeClient, plane: Plane, written: str) -> None:
    await make_record(kube, "fd00::a")
    outcome = await ctl("ip", "show", written, "-o", "json", "--kubeconfig", str(plane.kubeconfig))
    assert outcome.status == 0, outcome.stderr
    assert json.loads(outcome.stdout)["address"] == "fd00::a"


async def test_json_and_yaml_say_the_same_under_a_version(kube: KubeClient, plane: Plane) -> None:
    slot = {"apiVersion": "apps/v1", "kind": "StatefulSet", "namespace": "shop", "name": "db", "ordinal": 1}
    await make_record(kube, "10.20.0.10", slot=slot)
    arguments = ("ip", "show", "10.20.0.10", "--kubeconfig", str(plane.kubeconfig), "-o")
    as_json, as_yaml = await ctl(*arguments, "json"), await ctl(*arguments, "yaml")
    assert json.loads(as_json.stdout) == yaml.safe_load(as_yaml.stdout)
    found = json.loads(as_json.stdout)
    assert found.pop("since").startswith("2026-11-22T20:00:00")
    assert found == {
        "apiVersion": "spiderpoolctl/v1",
        "kind": "AddressReport",
        "address": "10.20.0.10",
        "allocated": True,
        "state": "Held",
        "pool": "rack7",
        "holder": HOLDER,
        "slot": slot,
    }


async def test_a_cooling_address_shows_its_last_pod_and_until_when(kube: KubeClient, plane: Plane) -> None:
    await make_record(kube, "10.20.0.10", "Cooling", until="2026-11-22T20:00:30Z")
    arguments = ("ip", "show", "10.20.0.10", "--kubeconfig", str(plane.kubeconfig))
    outcome = await ctl(*arguments)
    assert outcome.status == 1, outcome.stderr
    shown = lines(outcome.stdout)
    assert shown["Last pod"].startswith("shop/cart-7d9")
    assert "free again" in shown["State"]
    assert shown["Until"].startswith("2026-11-22T20:00:30")
    as_json = await ctl(*arguments, "-o", "json")
    found = json.loads(as_json.stdout)
    assert (as_json.status, found["allocated"], found["state"]) == (1, False, "Cooling")


async def test_a_kept_address_is_allocated(kube: KubeClient, plane: Plane) -> None:
    slot = {"apiVersion": "apps/v1", "kind": "StatefulSet", "namespace": "shop", "name": "db", "ordinal": 1}
    await make_record(kube, "10.20.0.10", "Retained", slot=slot)
    outcome = await ctl("ip", "show", "10.20.0.10", "-o", "json", "--kubeconfig", str(plane.kubeconfig))
    assert (outcome.status, json.loads(outcome.stdout)["allocated"]) == (0, True)


async def test_an_address_that_nobody_holds_shows_what_each_pool_does_with_it(kube: KubeClient, plane: Plane) -> None:
    await make_pool(kube, "rack7")
    await make_pool(kube, "rack8", excludeIPs=["10.20.0.12"])
    await make_pool(kube, "rack9", ips=["10.20.9.1-10.20.9.9"])
    arguments = ("ip", "show", "10.20.0.12", "--kubeconfig", str(plane.kubeconfig))
    outcome = await ctl(*arguments, "-o", "json")
    assert outcome.status == 1
    assert json.loads(outcome.stdout) == {
        "apiVersion": "spiderpoolctl/v1",
        "kind": "AddressReport",
        "address": "10.20.0.12",
        "allocated": False,
        "pools": [
            {"pool": "rack7", "free": True, "reason": "free"},
            {"pool": "rack8", "free": False, "reason": "excluded by spec.excludeIPs of the pool"},
        ],
    }
    table = await ctl(*arguments)
    assert table.status == 1
    assert table.stdout.splitlines()[0] == "10.20.0.12 is not allocated."
    assert [line.split()[0] for line in table.stdout.splitlines()[1:]] == ["POOL", "rack7", "rack8"]


async def test_a_reserved_address_names_the_reservation(kube: KubeClient, plane: Plane) -> None:
    await make_pool(kube, "rack7")
    spec = {"ipVersion": 4, "ips": ["10.20.0.12"]}
    reservation = {"apiVersion": API, "kind": "SpiderReservedIP", "metadata": {"name": "printers"}, "spec": spec}
    await kube.create(SPIDER_RESERVED_IPS, reservation)
    outcome = await ctl("ip", "show", "10.20.0.12", "--kubeconfig", str(plane.kubeconfig))
    assert outcome.status == 1
    assert "reserved by SpiderReservedIP printers" in outcome.stdout


async def test_a_reservation_that_cannot_be_read_is_said_and_hides_nothing(kube: KubeClient, plane: Plane) -> None:
    await make_pool(kube, "rack7")
    for name, spec in {
        "printers": {"ipVersion": 4, "ips": ["10.20.0.12"]},
        "reversed": {"ipVersion": 6, "ips": ["fd00::0.0.0.9-fd00::0.0.0.1"]},
    }.items():
        reservation = {"apiVersion": API, "kind": "SpiderReservedIP", "metadata": {"name": name}, "spec": spec}
        await kube.create(SPIDER_RESERVED_IPS, reservation)
    outcome = await ctl("ip", "show", "10.20.0.12", "-o", "json", "--kubeconfig", str(plane.kubeconfig))
    assert outcome.status == 1, outcome.stderr
    found = json.loads(outcome.stdout)
    assert [standing["reason"] for standing in found["pools"]] == ["reserved by SpiderReservedIP printers"]
    assert "SpiderReservedIP reversed" in found["warnings"][0]
    assert "SpiderReservedIP reversed" in outcome.stderr


@dataclass(frozen=True, slots=True)
class Answering:
    """A server that answers everything alike."""

    status: int
    body: bytes
    content_type: str = "application/json"

    async def handle(self, _request: web.Request) -> web.Response:
        return web.Response(status=self.status, body=self.body, content_type=self.content_type)


RECORD = {"metadata": {"name": "10.20.0.1", "uid": "u", "resourceVersion": "1"}, "spec": {"state": "Lent"}}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(Answering(200, json.dumps(RECORD).encode()), "10.20.0.1 cannot be read", id="unknown state"),
        pytest.param(Answering(200, b'{"metadata": {"name": "x"}}'), "SpiderIPAddress x", id="unreadable name"),
        pytest.param(Answering(200, b'{"metadata": 7}'), "the question failed", id="nonsense"),
        pytest.param(Answering(404, b"<html>", "text/html"), "404", id="page of a proxy"),
        pytest.param(Answering(500, b"{}"), "refused", id="internal error"),
        pytest.param(Answering(401, b"{}"), "refused", id="no credentials"),
    ],
)
async def test_trouble_is_never_the_exit_code_of_a_free_address(tmp_path: Path, answer: Answering, words: str) -> None:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer.handle)
    async with TestServer(app) as server:
        cluster = {"name": "c", "cluster": {"server": str(server.make_url(""))}}
        context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
        document = {"apiVersion": "v1", "kind": "Config", "current-context": "x", "clusters": [cluster]}
        settings = tmp_path / "kubeconfig"
        settings.write_text(yaml.safe_dump(document | {"contexts": [context], "users": [{"name": "u", "user": {}}]}))
        outcome = await ctl("ip", "show", "10.20.0.1", "--kubeconfig", str(settings))
    assert (outcome.status, outcome.stdout) == (3, "")
    assert words in outcome.stderr
    assert "Traceback" not in outcome.stderr


async def test_an_address_outside_all_pools_is_said_to_be_so(kube: KubeClient, plane: Plane) -> None:
    await make_pool(kube, "rack7")
    outcome = await ctl("ip", "show", "192.0.2.1", "--kubeconfig", str(plane.kubeconfig))
    assert outcome.status == 1
    assert outcome.stdout == "192.0.2.1 is not allocated, and no SpiderIPPool contains it.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["ip", "show"], id="no address"),
        pytest.param(["ip", "show", "10.20.0.300"], id="no octet"),
        pytest.param(["ip", "show", "10.20.0.0/16"], id="a network"),
        pytest.param(["ip", "show", "10.20.0.1", "-o", "xml"], id="unknown form"),
        pytest.param(["ip", "show", "10.20.0.1", "--kubeconfig", "/nonexistent"], id="no such file"),
        pytest.param(["ip", "lose", "10.20.0.1"], id="unknown command"),
    ],
)
async def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    outcome = await ctl(*arguments)
    assert (outcome.status, outcome.stdout) == (2, "")
    assert "Traceback" not in outcome.stderr


async def test_no_cluster_is_exit_code_3_and_says_how_to_name_one() -> None:
    outcome = await ctl("ip", "show", "10.20.0.1")
    assert outcome.status == 3
    assert "--kubeconfig" in outcome.stderr


async def test_a_server_that_does_not_answer_is_exit_code_3(plane: Plane, tmp_path: Path) -> None:
    settings = yaml.safe_load(plane.kubeconfig.read_text())
    settings["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(settings))
    outcome = await ctl("ip", "show", "10.20.0.1", environ={"KUBECONFIG": str(tmp_path / "kubeconfig")})
    assert outcome.status == 3
    assert "does not answer" in outcome.stderr
    assert "Traceback" not in outcome.stderr
