"""What a pod's interface stands on, asked of the kernel: real macvlan and ipvlan interfaces in namespaces."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pyroute2
import pytest
from pyroute2.netlink.exceptions import NetlinkError

from agent import uplink
from devcluster.nodes import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from allocator.domain.candidates import Master

pytestmark = pytest.mark.root

MASTER = "uplink0"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[namespaces.Namespace]:
    """The agent's namespace, with a master that has an address of each family."""
    made = namespaces.create("host", tmp_path)

    def furnish() -> None:
        with pyroute2.IPRoute() as route:
            route.link("add", ifname=MASTER, kind="veth", peer={"ifname": "peer"})
            (index,) = route.link_lookup(ifname=MASTER)
            route.link("set", index=index, state="up")
            for address, length in (("10.20.0.7", 16), ("10.30.0.7", 24), ("fd00:20::7", 64)):
                route.addr("add", index=index, address=address, prefixlen=length)

    namespaces.run_inside(made, furnish)
    yield made
    made.close()


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[namespaces.Namespace]:
    made = namespaces.create("pod", tmp_path)
    yield made
    made.close()


def attach(kind: str, where: namespaces.Namespace, **mode: Any) -> None:
    """An interface of this kind on the master, born in the namespace `where`. For the host's namespace."""
    with pyroute2.IPRoute() as route:
        (index,) = route.link_lookup(ifname=MASTER)
        try:
            route.link("add", ifname="eth0", kind=kind, link=index, net_ns_fd=where.descriptor, **mode)
        except NetlinkError as error:
            pytest.skip(f"this kernel makes no {kind}: {error}")


def ask(agent: namespaces.Namespace, netns: Path, interface: str = "eth0") -> Master:
    return namespaces.run_inside(agent, asyncio.run, uplink.master_of(str(netns), interface))


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        pytest.param("macvlan", {"macvlan_mode": "bridge"}, id="macvlan"),
        pytest.param("ipvlan", {"ipvlan_mode": 0}, id="ipvlan"),
    ],
)
def test_the_masters_addresses_are_those_of_the_hosts_interface_below(
    host: namespaces.Namespace, pod: namespaces.Namespace, kind: str, mode: dict[str, Any]
) -> None:
    namespaces.run_inside(host, attach, kind, pod, **mode)
    found = ask(host, pod.path)
    assert found.problem == ""
    assert {"10.20.0.7", "10.30.0.7", "fd00:20::7"} <= {str(address) for address in found.addresses}


def test_a_master_outside_the_agents_namespace_is_not_taken_for_another_interface_with_its_index(
    host: namespaces.Namespace, pod: namespaces.Namespace, tmp_path: Path
) -> None:
    namespaces.run_inside(host, attach, "macvlan", pod, macvlan_mode="bridge")
    elsewhere = namespaces.create("elsewhere", tmp_path)
    found = ask(elsewhere, pod.path)
    assert (found.addresses, "is not in the agent's network namespace" in found.problem) == ((), True)
    elsewhere.close()


@pytest.mark.parametrize(
    ("path", "interface", "problem"),
    [
        pytest.param("pod", "eth9", "eth9 in", id="no such interface"),
        pytest.param("pod", "lo", "its driver names no device", id="loopback"),
        pytest.param("host", MASTER, "it is of kind veth", id="veth"),
        pytest.param("pod", "x" * 40, "stands on:", id="no name of an interface"),
        pytest.param("gone", "eth0", "No such file or directory", id="no such namespace"),
        pytest.param("", "eth0", "Invalid argument", id="no namespace"),
    ],
)
def test_what_cannot_be_told_is_a_problem_in_words(
    host: namespaces.Namespace, pod: namespaces.Namespace, tmp_path: Path, path: str, interface: str, problem: str
) -> None:
    found = ask(host, tmp_path / path, interface)
    assert found.addresses == ()
    assert problem in found.problem


def test_a_fifo_instead_of_a_namespace_does_not_hold_the_agent(host: namespaces.Namespace, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "Invalid argument" in ask(host, tmp_path / "fifo").problem


def test_asking_leaves_the_agents_thread_in_its_namespace(
    host: namespaces.Namespace, pod: namespaces.Namespace
) -> None:
    namespaces.run_inside(host, attach, "macvlan", pod, macvlan_mode="bridge")

    def asked() -> tuple[Master, bool]:
        found = asyncio.run(uplink.master_of(str(pod.path), "eth0"))
        return found, uplink.OWN_NAMESPACE.samefile(host.path)

    found, is_home = namespaces.run_inside(host, asked)
    assert (found.problem, is_home) == ("", True)
