"""Records, pods and pools for tests: only what a test is about is said."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from allocator.domain.addresses import IntervalSet, parse_network, version_of
from allocator.domain.pool import Edition, Pool
from allocator.domain.record import Holder, Record, Slot, State
from allocator.domain.request import Pod

if TYPE_CHECKING:
    from allocator.domain.addresses import Version

NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
SLOT = Slot(api_version="apps/v1", kind="StatefulSet", namespace="shop", name="db", ordinal=0)


def a_pod(**said: Any) -> Pod:
    return Pod(**{"namespace": "shop", "name": "cart", "uid": "uid-1", "node": "node-1", "phase": "Running", **said})


def a_record(address: str = "10.20.0.10", **said: Any) -> Record:
    """Held by pod shop/cart, `pod_uid` uid-1, unless said otherwise."""
    pod_uid, pod = said.pop("pod_uid", "uid-1"), said.pop("pod", "cart")
    holder = Holder(namespace="shop", pod=pod, pod_uid=pod_uid, interface="eth0", node="node-1", container_id="c1")
    record = Record(
        address=ip_address(address),
        pool="a",
        state=State.HELD,
        holder=holder,
        since=NOON,
        uid=f"object-{address}",
        resource_version="1",
    )
    return replace(record, **said)


def cooling(address: str, *, until_s: float) -> Record:
    return a_record(address, state=State.COOLING, until=NOON + timedelta(seconds=until_s))


def a_pool(*items: str, subnet: str = "10.20.0.0/16", excludes: tuple[str, ...] = (), **said: Any) -> Pool:
    network = parse_network(subnet)
    version: Version = version_of(network)
    edition = Edition("pool-uid", said.pop("generation", 1), said.pop("terminating", False))
    return Pool(
        **{
            "name": "a",
            "edition": edition,
            "created": NOON,
            "version": version,
            "subnet": network,
            "ips": IntervalSet.parse(version, items),
            "excludes": IntervalSet.parse(version, excludes),
            **said,
        }
    )
