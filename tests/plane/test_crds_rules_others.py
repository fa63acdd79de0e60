"""SpiderReservedIP and SpiderEndpoint by their CRDs alone, and what kubectl shows: no webhook is registered here.

The embedded plane has no CEL.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from allocator.kube import errors
from allocator.kube.resources import MUTATING_WEBHOOKS, SPIDER_RESERVED_IPS, VALIDATING_WEBHOOKS
from tests.plane.crds import refusal
from tests.plane.webhooks import API_VERSION, pool, reservation, subnet

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from tests.plane.support import Kubectl

pytestmark = pytest.mark.real_plane

RESERVATIONS: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "right": ({"ips": ["10.0.0.1", "10.0.0.3-10.0.0.9"]}, [], ""),
    "right IPv6": ({"ipVersion": 6, "ips": ["fd00::1-fd00::ffff:ffff"]}, [], ""),
    "none yet": ({"ipVersion": 4}, [], ""),
    "neither family nor addresses": ({}, ["spec.ipVersion"], "cannot be derived"),
    "no addresses, no family": ({"ips": []}, ["spec.ipVersion"], "cannot be derived"),
    "no family": ({"ipVersion": 5}, ["spec.ipVersion"], "supported values"),
    "other family": ({"ipVersion": 6, "ips": ["10.0.0.1"]}, ["spec.ips"], "one SpiderReservedIP for each family"),
    "two families": ({"ips": ["10.0.0.1", "fd00::1"]}, ["spec.ips"], "one SpiderReservedIP for each family"),
    "two families in a range": ({"ips": ["10.0.0.1-fd00::1"]}, ["spec.ips"], "one SpiderReservedIP for each family"),
    "reversed": ({"ips": ["10.0.0.9-10.0.0.1"]}, ["spec.ips[0]"], 'write "10.0.0.1-10.0.0.9"'),
    "reversed IPv6": ({"ips": ["fd00::1", "fd00::1:0-fd00::ffff"]}, ["spec.ips"], "lower address first"),
    "no address": ({"ips": ["10.0.0.1", "router"]}, ["spec.ips[1]"], "neither an address nor a range"),
}


@pytest.mark.parametrize(("spec", "fields", "word"), RESERVATIONS.values(), ids=RESERVATIONS.keys())
async def test_a_reservation_is_judged(kube: KubeClient, spec: dict[str, Any], fields: list[str], word: str) -> None:
    found = await refusal(kube, reservation("r", **spec))
    assert found.fields == fields, found.text
    assert word in found.text


async def test_a_reservation_without_a_spec_is_refused(kube: KubeClient) -> None:
    obj: Object = reservation("r")
    del obj["spec"]
    assert (await refusal(kube, obj)).fields == ["spec"]


@pytest.mark.parametrize(
    "ips",
    [
        [f"10.{n // 256}.{n % 256}.1-10.{n // 256}.{n % 256}.200" for n in range(4096)],
        [f"fd00:1111:2222:3333:4444:5555:{n:x}:1111-fd00:1111:2222:3333:4444:5555:{n:x}:ffff" for n in range(4096)],
        [f"fd00:1111:2222:3333:4444:5555:{n:x}:1111-fd00:1111:2222:3333:4444:5555:{n:x}:ffff" for n in range(1024)],
    ],
    ids=["IPv4", "IPv6", "IPv6 in order"],
)
async def test_the_longest_reservations_are_judged_within_the_cost_limit(kube: KubeClient, ips: list[str]) -> None:
    assert (await refusal(kube, reservation("r", ips=ips))).text == ""


@pytest.mark.parametrize(
    "change",
    [{"ipVersion": 6}, {"ipVersion": 6, "ips": ["fd00::1"]}, {"ipVersion": None, "ips": ["fd00::1"]}],
    ids=["alone", "with addresses", "by its addresses"],
)
async def test_the_family_of_a_reservation_is_immutable(kube: KubeClient, change: dict[str, Any]) -> None:
    await kube.create(SPIDER_RESERVED_IPS, reservation("r", ipVersion=4, ips=["10.0.0.1"]))
    with pytest.raises(errors.Invalid, match="immutable"):
        await kube.patch(SPIDER_RESERVED_IPS, "r", {"spec": change})
    await kube.patch(SPIDER_RESERVED_IPS, "r", {"spec": {"ipVersion": None, "ips": ["10.0.0.2"]}})


def endpoint(**detail: Any) -> Object:
    status = {
        "ownerControllerType": "Pod",
        "ownerControllerName": "e",
        "current": {"uid": "u", "node": "n", "ips": [{"interface": "eth0", **detail}]},
    }
    return {"apiVersion": API_VERSION, "kind": "SpiderEndpoint", "metadata": {"name": "e"}, "status": status}


ENDPOINTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "right": ({"ipv4": "10.20.0.10/16", "ipv4Gateway": "10.20.0.1", "ipv6": "", "ipv6Gateway": ""}, []),
    "right IPv6": ({"ipv6": "fd00::10/64", "ipv6Gateway": "fd00::1"}, []),
    "no prefix length": ({"ipv4": "10.20.0.10"}, ["ipv4"]),
    "the other family": (
        {"ipv4": "fd00::10/64", "ipv4Gateway": "fd00::1", "ipv6": "10.20.0.10/16", "ipv6Gateway": "10.20.0.1"},
        ["ipv4", "ipv4Gateway", "ipv6", "ipv6Gateway"],
    ),
    "words": ({"ipv4": "x", "ipv6Gateway": "y"}, ["ipv4", "ipv6Gateway"]),
    "a netmask": ({"ipv4": "10.20.0.10/255.255.0.0"}, ["ipv4"]),
    "VLAN": ({"vlan": 4095}, ["vlan"]),
}


@pytest.mark.parametrize(("detail", "fields"), ENDPOINTS.values(), ids=ENDPOINTS.keys())
async def test_an_endpoint_is_judged(kube: KubeClient, detail: dict[str, Any], fields: list[str]) -> None:
    found = await refusal(kube, endpoint(**detail))
    assert found.fields == [f"status.current.ips[0].{field}" for field in fields], found.text


SHOWN = {
    "range": (
        pool("p", subnet="10.20.0.0/16", ips=["10.20.0.9-10.20.0.1"]),
        'spec.ips[0]: Invalid value: "10.20.0.9-10.20.0.1": is reversed; write "10.20.0.1-10.20.0.9"',
    ),
    "IPv6 range": (subnet("s", subnet="fd00::/64", ips=["fd00::9-fd00::1"]), "holds a reversed range; write the lower"),
    "gateway": (
        pool("p", subnet="fd00::/64", ips=["fd00::1-fd00::9"], gateway="fd00::5"),
        "must not hand out the gateway fd00::5; take it out, or add it to excludeIPs",
    ),
    "label": (
        pool("p", subnet="10.20.0.0/16", nodeAffinity={"matchLabels": {"a b": "c"}}),
        "spec.nodeAffinity.matchLabels",
    ),
    "reservation": (reservation("r", ips=["10.0.0.1", "fd00::1"]), "make one SpiderReservedIP for each family"),
}


@pytest.mark.parametrize(("obj", "words"), SHOWN.values(), ids=SHOWN.keys())
async def test_kubectl_shows_what_to_write_instead(kube: KubeClient, kubectl: Kubectl, obj: Object, words: str) -> None:
    for kind in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
        assert (await kube.list(kind))["items"] == []
    shown = await kubectl("create", "-f", "-", stdin=json.dumps(obj), check=False)
    assert "is invalid" in shown
    assert words in shown
