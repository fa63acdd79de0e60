"""Pods on the underlay by the real macvlan plugin and by netlink; addresses come from a plugin of a few lines."""

from __future__ import annotations

import sys
import textwrap
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from allocator.runtime.tasks import both
from devcluster.nodes import attach, cni, links, namespaces, traffic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devcluster.nodes.network import Underlay

pytestmark = pytest.mark.root

# The last number of the addresses is the pod's name.
PLUGIN = """
    import json, os, sys
    json.load(sys.stdin)
    number = dict(pair.split("=") for pair in os.environ["CNI_ARGS"].split(";"))["K8S_POD_NAME"]
    if os.environ["CNI_COMMAND"] == "ADD":
        ips = [{"address": f"10.7.0.{number}/24", "gateway": "10.7.0.254"}, {"address": f"fd00:7::{number}/64"}]
        routes = [{"dst": "0.0.0.0/0", "gw": "10.7.0.254"}]
        print(json.dumps({"cniVersion": "1.0.0", "ips": ips, "routes": routes, "dns": {}}))
"""


@pytest.fixture(params=["plugins", "netlink"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[namespaces.Namespace], attach.Attacher]:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / attach.IPAM_PLUGIN).write_text(f"#!{sys.executable} -IS\n{textwrap.dedent(PLUGIN)}")
    (folder / attach.IPAM_PLUGIN).chmod(0o755)
    folders, ipam = (folder, *cni.SYSTEM_FOLDERS), {"type": attach.IPAM_PLUGIN}
    if request.param == "netlink":
        return lambda node: attach.Netlink(attach.Plugins(attach.alone(ipam), folders, None), node)
    if cni.find(attach.MAIN_PLUGIN, folders) is None:
        pytest.skip("needs the macvlan CNI plugin (Debian: containernetworking-plugins)")
    return lambda node: attach.Plugins(attach.chained(ipam), folders, node)


async def sandbox(underlay: Underlay, number: int) -> tuple[cni.Attachment, attach.Sandbox, namespaces.Namespace]:
    namespace = await underlay.add_sandbox(f"pod-{number}")
    args = {"IgnoreUnknown": "1", "K8S_POD_NAME": str(number)}
    attachment = cni.Attachment(container_id=f"c{number}", netns=namespace.path, interface="eth0", args=args)
    return attachment, attach.Sandbox(namespace.path, namespace), namespace


async def test_add_makes_a_macvlan_with_the_addresses_and_routes_of_the_result(
    underlay: Underlay, make: Callable[[namespaces.Namespace], attach.Attacher]
) -> None:
    await underlay.build()
    attachment, pod, namespace = await sandbox(underlay, 1)
    result = await make(await underlay.add_node("node-1")).add(attachment, pod)

    assert {ip["address"] for ip in result["ips"]} == {"10.7.0.1/24", "fd00:7::1/64"}
    assert (await namespaces.inside(namespace, links.names))["eth0"] == "macvlan"
    assert await namespaces.inside(namespace, links.addresses, "eth0") == ["10.7.0.1/24", "fd00:7::1/64"]
    assert await namespaces.inside(namespace, links.gateways) == ["10.7.0.254"]


async def test_pods_on_two_nodes_reach_each_other(
    underlay: Underlay, make: Callable[[namespaces.Namespace], attach.Attacher]
) -> None:
    await underlay.build()

    async def start(number: int) -> namespaces.Namespace:
        attachment, pod, namespace = await sandbox(underlay, number)
        await make(await underlay.add_node(f"node-{number}")).add(attachment, pod)
        await namespaces.inside(namespace, links.wait_settled, "eth0", within_s=10)
        return namespace

    places = await both(start(1), start(2))
    for family in ("10.7.0.{}", "fd00:7::{}"):
        one, two = (traffic.Place(place, ip_address(family.format(n))) for n, place in enumerate(places, 1))
        assert await traffic.echo(one, two) < traffic.TRIES


async def test_delete_removes_the_interface_and_may_be_repeated(
    underlay: Underlay, make: Callable[[namespaces.Namespace], attach.Attacher]
) -> None:
    await underlay.build()
    attacher = make(await underlay.add_node("node-1"))
    attachment, pod, namespace = await sandbox(underlay, 1)
    result = await attacher.add(attachment, pod)
    await attacher.delete(attachment, pod, result)
    await attacher.delete(attachment, pod, result)

    assert set(await namespaces.inside(namespace, links.names)) == {"lo"}
