"""After the last fault: within their bounds the promises must hold, one and all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from allocator.domain.addresses import IntervalSet, parse_address, version_of
from allocator.domain.mending import reported_addresses
from allocator.domain.overlapping import overlaps
from allocator.domain.pool import reserved_of
from allocator.domain.reclaim import MIRROR_ANNOTATION, has_own
from allocator.domain.record import State
from allocator.domain.slots import public_name
from allocator.domain.subnet_annotations import SUBNET
from allocator.kube.codec import decode_endpoint, decode_pod
from devcluster.plane.store import Key
from tests.simulation import lent_calm
from tests.simulation.offers import ENDPOINTS, POOLS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.domain.addresses import Address
    from allocator.domain.record import Record, Slot
    from allocator.domain.request import Pod
    from devcluster.plane.problems import Object
    from tests.simulation.world import World

Finding = tuple[str, str]

# A new leader when the old one has crashed: its lease runs out, somebody looks, and fills the caches.
LEADER_S: Final = 25.0
LEAK_S: Final = 60.0
# The last retry of a kubelet, the last write of a status, the last cooled record.
AFTER_S: Final = 15.0
BACK_S: Final = 80.0
LOOK_EVERY_S: Final = 5.0


async def settle(world: World) -> None:
    """Wait until everything is as it should be, as long as it may take; then say what is not."""
    world.calm()
    deadline = world.loop.time() + LEADER_S + LEAK_S + AFTER_S
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        findings = list(unsettled(world))
        if not findings:
            return
        # An address may be somebody else's, and cool, before it can go back to the pod that uses it.
        findings = [each for each in findings if each[0] != "I5" or world.loop.time() >= deadline + BACK_S]
        if findings and world.loop.time() >= deadline:
            for number, words in findings:
                world.judge.hold(number, False, "%s, though all is calm", words)
            return


def unsettled(world: World) -> Iterator[Finding]:
    yield from _leaks(world)
    yield from _pods_without_address(world)
    yield from _endpoints(world)
    yield from _statuses(world)
    yield from _leaders(world)
    yield from _lost(world)
    yield from _doubles(world)
    yield from lent_calm.unsettled(world)


def _leaks(world: World) -> Iterator[Finding]:
    for address, record in world.judge.records.items():
        if record.state is State.HELD and record.holder is not None and not _stands(world, record):
            yield "L2", f"{address} is held by {record.holder.pod} ({record.holder.pod_uid}), which is gone"
        if record.state is State.RETAINED and record.slot is not None and not _is_wanted(world, record.slot):
            yield "L2", f"{address} is kept for {record.slot}, which nobody wants"
        if record.state is State.COOLING and record.until is not None:
            # Whoever leads since has its own clock to measure by.
            cools_s = (record.until - record.since).total_seconds()
            written_at = world.judge.written_at[address]
            if world.loop.time() > max(written_at, world.leads_since) + cools_s + 5.0:
                yield "L2", f"{address} has cooled for long enough"


def _stands(world: World, record: Record) -> bool:
    """Whether the holder lives. Of a static pod whose mirror came back the old record stands until it has another:
    the ledger cannot tell a mirror made anew from a file that was replaced.
    """
    holder = record.holder
    assert holder is not None
    pod = world.pod_named(holder.namespace, holder.pod)
    if pod is None or not pod.alive:
        return False
    records = world.judge.records.values()
    return pod.uid == holder.pod_uid or (_is_mirror_of(pod, record) and not has_own(pod, record, records))


def _is_wanted(world: World, slot: Slot) -> bool:
    return world.judge.offers.is_wanted(slot, since=world.loop.time())


def _is_mirror_of(pod: Pod, record: Record) -> bool:
    return MIRROR_ANNOTATION in pod.annotations and record.holder is not None and pod.node == record.holder.node


def _pods_without_address(world: World) -> Iterator[Finding]:
    """A pod that lives has its address, if there is one to be had."""
    for _, raw in world.server.store.items("/pods"):
        pod = decode_pod(raw)
        if not pod.alive:
            continue
        kubelet = world.kubelets[pod.node]
        if not any(each.is_running and each.asked and pod.answers_to(each.asked) for each in kubelet.sandboxes):
            free = _free_for(world, pod)
            if free:
                yield "L1", f"{pod.name} ({pod.uid}) has no address, and {', '.join(free)} have free ones"


def _free_for(world: World, pod: Pod) -> list[str]:
    moment = world.judge.offers.moments[-1]
    text = " ".join(pod.annotations.values())
    names = [name for name in ("alpha", "beta") if name in text] or ["alpha"]
    if SUBNET.key in pod.annotations:
        names = lent_calm.names_for(world, pod)
    taken = [record.address for record in world.judge.records.values() if record.state is not State.COOLING]
    found = []
    for name in names:
        pool = moment.pools.get(name)
        if pool is None or pool.disabled or pool.edition.terminating:
            continue
        if pool.node_names and pod.node not in pool.node_names:
            continue
        overlap = overlaps(moment.pools.values()).get(name)
        free = pool.usable(reserved_of(pool.version, moment.reservations))
        free -= IntervalSet.addresses(pool.version, (each for each in taken if version_of(each) == pool.version))
        if overlap is not None:
            free -= overlap.ceded
        # Of two interfaces each needs one.
        if free.size >= (2 if "net1" in text else 1):
            found.append(name)
    return found if "net1" not in text or len(found) == len(names) else []


def _endpoints(world: World) -> Iterator[Finding]:
    """I10: what the records say, the endpoints say."""
    every = {(key.namespace, key.name): _said(raw) for key, raw in world.server.store.items(ENDPOINTS)}
    # One that somebody has emptied says nothing.
    said = {key: each for key, each in every.items() if each[1]}
    held: dict[tuple[str, str], tuple[str, dict[str, set[str]]]] = {}
    untold: set[str] = set()
    for record in world.judge.records.values():
        holder = record.holder
        # Without its pool nobody can say the prefix length of an address.
        is_told = record.pool in world.judge.offers.moments[-1].pools
        if holder is not None and not is_told:
            untold.add(holder.pod_uid)
        if record.state in (State.HELD, State.RETAINED) and holder is not None and is_told:
            key = holder.namespace, public_name(holder.pod, record.slot)
            by_interface = held.setdefault(key, (holder.pod_uid, {}))[1]
            by_interface.setdefault(holder.interface, set()).add(str(record.address))
    for key in said.keys() | held.keys():
        pod = world.pod_named(*key)
        # That of a mirror goes with it, and is made again at the next ADD.
        is_mirrored = pod is not None and MIRROR_ANNOTATION in pod.annotations
        # What somebody else has by now its endpoint goes on to tell of.
        byhand, (uid, texts) = world.judge.byhand, said.get(key, ("", {}))
        if uid in untold:
            continue
        is_taken = any(byhand.has_lost(uid, parse_address(text)) for text in texts.values() if text)
        # Of a slot that is kept an ADD writes it: of a set that subnets do not serve any more there may be none.
        is_of_nobody = world.has_subnets and key not in said and (pod is None or pod.uid != held[key][0])
        if not is_mirrored and not is_taken and not is_of_nobody and not _agree(said.get(key), held.get(key)):
            yield "I10", f"endpoint {key[0]}/{key[1]} says {said.get(key)}, the records {held.get(key)}"


def _agree(said: tuple[str, dict[str, str]] | None, held: tuple[str, dict[str, set[str]]] | None) -> bool:
    """Of two addresses of one interface it says one: where a claim took effect after its caller had given up, the next
    ADD gives one back.
    """
    if said is None or held is None:
        return said is None and held is None
    (uid, texts), (holder, addresses) = said, held
    return uid == holder and texts.keys() == addresses.keys() and all(texts[name] in addresses[name] for name in texts)


def _said(raw: Object) -> tuple[str, dict[str, str]]:
    """Whose endpoint it is, and the address of each interface."""
    current = (raw.get("status") or {}).get("current") or {}
    entries = current.get("ips") or ()
    texts = {entry["interface"]: str(entry.get("ipv4") or "").partition("/")[0] for entry in entries}
    return str(current.get("uid", "")), texts


def _lost(world: World) -> Iterator[Finding]:
    """Two witnesses speak for an address, the node and the endpoint: the pod has it, or is told why not."""
    records = world.judge.records
    for pod, raw in _mendable(world):
        uid, texts = _said(raw) if raw is not None else ("", {})
        for interface, text in texts.items():
            address = parse_address(text)
            has_one = any(each.is_of(pod.uid, interface) for each in records.values())
            is_used = any(pod.answers_to(each.asked) for each in world.running() if address in each.addresses.values())
            if uid != pod.uid or has_one or not is_used or address not in reported_addresses(pod):
                continue
            if _is_held_by_an_older_mirror(world, records.get(address)):
                continue
            if (pod.uid, text) not in world.judge.byhand.told:
                yield "I5", f"{pod.name} ({pod.uid}) uses {address}, of which the record is {records.get(address)}"


def _is_held_by_an_older_mirror(world: World, record: Record | None) -> bool:
    """A gap of the product, and known: the conflict is told only while the holder lives by its UID."""
    holder = None if record is None else record.holder
    pod = None if holder is None else world.pod_named(holder.namespace, holder.pod)
    return record is not None and pod is not None and not record.is_of(pod.uid, "eth0") and _is_mirror_of(pod, record)


def _doubles(world: World) -> Iterator[Finding]:
    """I4: of two addresses the one that the node does not report is given back."""
    for pod, _ in _mendable(world):
        reported = set(reported_addresses(pod))
        held: dict[str, set[Address]] = {}
        for record in world.judge.records.values():
            if record.holder is not None and record.is_of(pod.uid, record.holder.interface):
                held.setdefault(record.holder.interface, set()).add(record.address)
        for interface, addresses in held.items():
            if addresses & reported and addresses - reported:
                yield "I4", f"{pod.name} {interface} has {addresses}, of which it uses {addresses & reported}"


def _mendable(world: World) -> Iterator[tuple[Pod, Object | None]]:
    """Living pods with their endpoints; without a pool nobody can say what an address is worth."""
    store, pools = world.server.store, world.judge.offers.moments[-1].pools
    for key, raw in store.items("/pods"):
        pod = decode_pod(raw)
        endpoint = store.get(Key(ENDPOINTS, key.namespace, public_name(pod.name, pod.slot)))
        shown = [] if endpoint is None else decode_endpoint(endpoint)
        names = {each.pool for each in shown}
        names |= {each.pool for each in world.judge.records.values() if each.holder and each.holder.pod_uid == pod.uid}
        if pod.alive and names <= pools.keys():
            yield pod, endpoint


def _statuses(world: World) -> Iterator[Finding]:
    for key, raw in world.server.store.items(POOLS):
        status, meta = raw.get("status") or {}, raw["metadata"]
        mine = [each for each in world.judge.records.values() if each.pool == key.name]
        in_use = sum(each.state is not State.COOLING for each in mine)
        if status.get("allocatedIPCount", 0) != in_use:
            yield "status", f"pool {key.name} counts {status.get('allocatedIPCount')}, {in_use} are in use"
        if status.get("observedGeneration") != meta.get("generation") and not meta.get("deletionTimestamp"):
            yield "status", f"pool {key.name} is at generation {meta.get('generation')}, its status is not"
        if meta.get("deletionTimestamp") and not mine:
            yield "L2", f"pool {key.name} is empty, being deleted, and still there"


def _leaders(world: World) -> Iterator[Finding]:
    leading = [each.name for each in world.controllers.values() if each.election.is_valid()]
    if len(leading) != 1:
        yield "I12", f"the leaders are {leading}"
