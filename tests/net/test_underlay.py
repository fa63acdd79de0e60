from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pyroute2
import pytest

from allocator.runtime.tasks import both
from devcluster.nodes import links, namespaces, network, traffic

if TYPE_CHECKING:
    from devcluster.nodes.network import Underlay

pytestmark = pytest.mark.root


async def pod_on(underlay: Underlay, node: namespaces.Namespace, name: str, last: int) -> traffic.Place:
    sandbox = await underlay.add_sandbox(name)
    await namespaces.inside(node, links.make_macvlan, sandbox.descriptor, "eth0")
    result = {"ips": [{"address": f"10.9.0.{last}/24"}, {"address": f"fd00:9::{last}/64"}], "routes": []}
    await namespaces.inside(sandbox, links.configure, "eth0", result)
    await namespaces.inside(sandbox, links.wait_settled, "eth0", within_s=10.0)
    return traffic.Place(sandbox, ip_address(f"10.9.0.{last}"))


def six(place: traffic.Place) -> traffic.Place:
    last = str(place.address).rsplit(".", maxsplit=1)[1]
    return traffic.Place(place.namespace, ip_address(f"fd00:9::{last}"))


def unplug() -> None:
    with pyroute2.IPRoute() as route:
        route.link("set", index=route.link_lookup(ifname=links.NODE_LINK)[0], state="down")


async def test_pods_on_different_nodes_reach_each_other_over_ipv4_and_ipv6(underlay: Underlay) -> None:
    await underlay.build()
    near, far = await underlay.add_node("node-1"), await underlay.add_node("node-2")
    one, two = await both(pod_on(underlay, near, "pod-1", 1), pod_on(underlay, far, "pod-2", 2))

    assert await traffic.echo(one, two) < traffic.TRIES
    assert await traffic.echo(six(two), six(one)) < traffic.TRIES


async def test_pods_on_one_node_reach_each_other(underlay: Underlay) -> None:
    await underlay.build()
    node = await underlay.add_node("node-1")
    one, two = await both(pod_on(underlay, node, "pod-1", 1), pod_on(underlay, node, "pod-2", 2))

    assert await traffic.echo(one, two) < traffic.TRIES


async def test_an_unplugged_pod_is_reported_as_no_traffic(underlay: Underlay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "TRIES", 1)
    await underlay.build()
    near, far = await underlay.add_node("node-1"), await underlay.add_node("node-2")
    one, two = await both(pod_on(underlay, near, "pod-1", 1), pod_on(underlay, far, "pod-2", 2))
    await namespaces.inside(far, unplug)

    with pytest.raises(traffic.NoTrafficError, match=r"10\.9\.0\.1 to 10\.9\.0\.2"):
        await traffic.echo(one, two)


async def test_a_duplicate_ipv6_address_on_the_underlay_is_found(underlay: Underlay) -> None:
    await underlay.build()
    await pod_on(underlay, await underlay.add_node("node-1"), "pod-1", 1)

    with pytest.raises(links.LinkError, match="someone else on the underlay uses its IPv6 address"):
        await pod_on(underlay, await underlay.add_node("node-2"), "pod-2", 1)


async def test_the_pod_link_is_a_macvlan_with_the_addresses_of_the_result(underlay: Underlay) -> None:
    await underlay.build()
    place = await pod_on(underlay, await underlay.add_node("node-1"), "pod-1", 1)

    assert (await namespaces.inside(place.namespace, links.names))["eth0"] == "macvlan"
    assert await namespaces.inside(place.namespace, links.addresses, "eth0") == ["10.9.0.1/24", "fd00:9::1/64"]


async def test_a_name_opens_as_a_path_in_another_process(underlay: Underlay) -> None:
    await underlay.build()
    node = await underlay.add_node("node-1")
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"import os; print(os.stat({str(node.path)!r}).st_ino)", stdout=subprocess.PIPE
    )
    out, _ = await other.communicate()

    assert int(out) == os.fstat(node.descriptor).st_ino


def test_kill_minus_nine_leaves_no_namespace_mount_or_link(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import asyncio, os, pathlib, signal
        from devcluster.nodes import network
        async def main():
            with network.underlay(pathlib.Path({str(tmp_path)!r})) as underlay:
                await underlay.build()
                node = await underlay.add_node("node-1")
                print(os.fstat(node.descriptor).st_ino, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
        """
    )
    before = links.names()
    dead = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)

    assert dead.returncode == -9, dead.stderr
    assert f"net:[{dead.stdout.strip()}]" not in namespaces_in_use()
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert links.names() == before


def namespaces_in_use() -> set[str]:
    found = set()
    for link in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(str(link.readlink()))
        except OSError:
            continue
    return found


def test_a_closed_namespace_has_no_name(tmp_path: Path) -> None:
    namespace = namespaces.create("gone", tmp_path)
    namespace.close()

    assert not (tmp_path / "gone").is_symlink()


def test_nothing_stands_in_the_way_of_an_underlay_here(tmp_path: Path) -> None:
    before = links.names()

    assert asyncio.run(network.obstacle(tmp_path)) == ""
    assert list(tmp_path.iterdir()) == []
    assert links.names() == before


def test_the_lack_of_a_right_is_told_and_not_raised(tmp_path: Path) -> None:
    script = f"""
        import asyncio, os, pathlib
        from devcluster.nodes import network
        os.setuid(65534)
        print(asyncio.run(network.obstacle(pathlib.Path({str(tmp_path)!r}))))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, capture_output=True, text=True)

    assert done.stdout.strip() == "no right to make network namespaces (not root)", done.stderr
