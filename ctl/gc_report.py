"""What reclaim would free right now, and why: one look at everything, which the controller would follow by a second.

The verdicts are those of the controller with its default switches. It also waits for the second look, for its brake,
and for a pod that is being deleted to have been watched for its whole grace.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from allocator.domain.reclaim import Act, Ending, Rules, Sighting, judge
from allocator.domain.slots import KNOWN
from allocator.kube.codec import Malformed, decode_node_state, decode_pod, decode_record, encode_time
from allocator.kube.resources import NODES, PODS, SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS
from allocator.kube.slots import Slots
from allocator.runtime.clock import SystemClock
from ctl.address_report import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from allocator.domain.reclaim import Verdict
    from allocator.domain.record import Holder, Record
    from allocator.domain.request import Pod
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource

NEEDED_RIGHTS: Final = "spideripaddresses and spiderippools (spiderpool.spidernet.io), pods, nodes and statefulsets"
_SEEN: Final = Ending(grace=timedelta(0), watched=timedelta(0))


@dataclass(frozen=True, slots=True)
class Finding:
    record: Record
    verdict: Verdict


async def asked(client: KubeClient) -> list[Finding]:
    """Right now, with the workloads that keep their addresses by default."""
    clock = SystemClock()
    return await findings(client, Slots(client, KNOWN, clock=clock, rng=random.SystemRandom()), clock.now())


async def findings(client: KubeClient, slots: Slots, now: datetime) -> list[Finding]:
    """In the order of addresses. ApiError, Unreachable and errors.Unavailable come through."""
    # Addresses first: the pods of those that are claimed meanwhile are then among the pods.
    raws, _ = await client.list_all(SPIDER_IP_ADDRESSES)
    pods = {(each["metadata"]["namespace"], each["metadata"]["name"]): each for each in await _all(client, PODS)}
    nodes = {each["metadata"]["name"]: each for each in await _all(client, NODES)}
    pools = {each["metadata"]["name"] for each in await _all(client, SPIDER_IP_POOLS)}

    def pod_of(holder: Holder | None) -> Pod | None:
        raw = pods.get((holder.namespace, holder.pod)) if holder is not None else None
        return None if raw is None else decode_pod(raw, slots.kept)

    found = []
    for record in _readable(raws):
        seen = Sighting(
            record=record,
            pod=pod_of(record.holder),
            peer_pod=pod_of(record.peer),
            node=decode_node_state(nodes.get(record.holder.node if record.holder else "")),
            ending=_SEEN,
            pool_gone=record.pool not in pools,
        )
        verdict = judge(await _with_slot(seen, slots, now), Rules(), now)
        if verdict.act is not Act.KEEP:
            found.append(Finding(record, verdict))
    return sorted(found, key=lambda each: (each.record.address.version, int(each.record.address)))


async def _with_slot(seen: Sighting, slots: Slots, now: datetime) -> Sighting:
    """Workloads are asked only where it depends on them."""
    slot = seen.record.slot
    if slot is None or seen.pool_gone or judge(seen, Rules(), now).act is Act.KEEP:
        return seen
    return replace(seen, slot_wanted=await slots.is_wanted(slot))


async def _all(client: KubeClient, resource: Resource) -> list[Object]:
    return (await client.list_all(resource))[0]


def _readable(raws: list[Object]) -> Iterator[Record]:
    for raw in raws:
        try:
            yield decode_record(raw)
        except Malformed:
            # Its name is no address: it blocks none, and nothing frees it.
            continue


def document(found: list[Finding]) -> dict[str, Any]:
    """The findings for machines."""
    return {"apiVersion": API_VERSION, "kind": "GarbageReport", "items": [_item(each) for each in found]}


def _item(finding: Finding) -> dict[str, Any]:
    record, verdict = finding.record, finding.verdict
    holder = record.holder
    return {
        "address": str(record.address),
        "pool": record.pool,
        "action": verdict.act.value,
        "reason": verdict.why.value,
        "namespace": holder.namespace if holder else "",
        "pod": holder.pod if holder else "",
        "podUID": holder.pod_uid if holder else "",
        "node": holder.node if holder else "",
        "since": encode_time(record.since),
        "resourceVersion": record.resource_version,
    }


def rows(found: list[Finding]) -> Iterator[tuple[str, ...]]:
    """For people: address, pool, pod, node, what would happen, why."""
    for item in map(_item, found):
        pod = f"{item['namespace']}/{item['pod']}"
        yield item["address"], item["pool"], pod, item["node"], item["action"], item["reason"]
