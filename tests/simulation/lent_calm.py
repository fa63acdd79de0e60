"""When all is calm: every application has what it asks for or is told why not, and no address of a subnet is orphaned.

S5  accounts and pools agree: no entry without its pool, nothing lent that the pool does not offer unless a pod has it,
    `freeIPCount` is what nobody has, and pools made by hand are alone on their addresses
L3  each living application has a pool of the size that it asks for, or the condition of a subnet names it; what goes
    with an application is gone with it
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from allocator.domain.addresses import IntervalSet, parse_address
from allocator.domain.lending import decode_accounts, lent
from allocator.domain.overlap import extent_of
from allocator.domain.pool import reserved_of
from allocator.domain.record import State
from devcluster.plane.store import Key
from tests.simulation.offers import POOLS, SUBNETS
from tests.simulation.tenants import APPLICATIONS, NAMESPACE, PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from allocator.domain.overlap import Extent
    from allocator.domain.request import Pod
    from devcluster.plane.problems import Object
    from tests.simulation.lent import Standing
    from tests.simulation.world import World

Finding = tuple[str, str]


def unsettled(world: World) -> Iterator[Finding]:
    for key, raw in world.server.store.items(SUBNETS):
        extent = extent_of({**raw, "kind": "SpiderSubnet"})
        assert extent is not None, key
        yield from _accounts(world, raw, extent)
    applications = [*_applications(world)]
    for application in applications:
        yield from _served(world, application)
    yield from _leftovers(world, {application["metadata"]["uid"] for application in applications})


def pools_of(world: World, uid: str) -> list[Standing]:
    """Of the application with this UID, those that are not being deleted."""
    found = [each for each in world.judge.lent.pools.values() if each.purpose and each.purpose.application.uid == uid]
    return [each for each in found if not _is_terminating(world, each.name)]


def _is_terminating(world: World, pool: str) -> bool:
    raw = world.server.store.get(Key(POOLS, "", pool))
    return raw is None or bool(raw["metadata"].get("deletionTimestamp"))


def names_for(world: World, pod: Pod) -> list[str]:
    """The pools that a pod has of the SpiderSubnets that it lists."""
    uid = pod.controller.uid if pod.controller is not None else pod.uid
    subnets = json.loads(pod.annotations[PREFIX + "subnet"])["ipv4"]
    return [each.name for each in pools_of(world, uid) if each.purpose and each.purpose.subnet in subnets]


def _accounts(world: World, raw: Object, extent: Extent) -> Iterator[Finding]:
    status, name = raw.get("status") or {}, extent.name
    accounts = decode_accounts(status, 4)
    neighbours = [each for each in world.judge.lent.pools.values() if each.extent.subnet == extent.subnet]
    by_name = {each.name: each for each in neighbours}
    for pool, loan in accounts.items():
        if pool not in by_name:
            yield "S5", f"{name} lends {loan.ips.texts()} to {pool}, which is not there"
        # What is being deleted takes its entry with it.
        elif not _is_terminating(world, pool) and (idle := loan.ips - by_name[pool].extent.ips - _used(world, pool)):
            yield "S5", f"{name} lends {idle.texts()} to {pool}, which neither offers nor uses it"
    for each in neighbours:
        if each.purpose is None:
            yield from _made_by_hand(each, neighbours)
            beyond = (each.extent.ips & extent.ips) - lent(accounts, 4)
            if beyond and not raw["metadata"].get("deletionTimestamp"):
                yield "S5", f"{name} has no entry for {beyond.texts()} of {each.name}"
    offered = IntervalSet.of(4, (span for each in neighbours for span in each.extent.ips.spans))
    free = extent.ips - offered - lent(accounts, 4) - _withheld(world, raw)
    if status.get("freeIPCount") != free.size:
        yield "S5", f"{name} says that {status.get('freeIPCount')} are free, and {free.texts()} are"
    allocated = sum(loan.ips.size for loan in accounts.values())
    if status.get("allocatedIPCount", 0) != allocated:
        yield "S5", f"{name} says that {status.get('allocatedIPCount')} are lent, and {allocated} are"


def _made_by_hand(pool: Standing, neighbours: Iterable[Standing]) -> Iterator[Finding]:
    for other in neighbours:
        if other.purpose is not None and (shared := pool.extent.ips & other.extent.ips):
            yield "S1", f"{pool.name} and {other.name} both offer {shared.texts()}"


def _withheld(world: World, raw: Object) -> IntervalSet:
    gateway = IntervalSet.addresses(4, [parse_address(raw["spec"]["gateway"])])
    return reserved_of(4, world.judge.offers.moments[-1].reservations) | gateway


def _applications(world: World) -> Iterator[Object]:
    """The living ones, bare pods among them."""
    store = world.server.store
    found = [store.get(Key(collection, NAMESPACE, name)) for name, (collection, _) in APPLICATIONS.items()]
    found += [raw for _, raw in store.items("/pods") if not raw["metadata"].get("ownerReferences")]
    for raw in found:
        if raw is not None and not raw["metadata"].get("deletionTimestamp") and PREFIX + "subnet" in _annotations(raw):
            yield raw


def _served(world: World, raw: Object) -> Iterator[Finding]:
    title, size = f"{raw['kind']} {raw['metadata']['namespace']}/{raw['metadata']['name']}", _size(raw)
    subnets = json.loads(_annotations(raw)[PREFIX + "subnet"])["ipv4"]
    places = {name: place for place, name in enumerate(subnets)}
    pools = [each for each in pools_of(world, raw["metadata"]["uid"]) if each.purpose and each.purpose.subnet in places]
    has = sum(each.extent.ips.size for each in pools)
    if has == size or any(_names(world, name, title) for name in subnets):
        return
    if not any(_lends(world, name) for name in subnets):
        return
    rest = size
    for pool in sorted(pools, key=lambda each: places[each.purpose.subnet] if each.purpose else 0):
        share = min(pool.extent.ips.size, rest)
        rest -= share
        if _used(world, pool.name).size > share:
            return  # more than it asks for, and pods have it
    yield "L3", f"{title} has {has} addresses in {[each.name for each in pools]}, and asks for {size}"


def _leftovers(world: World, living: set[str]) -> Iterator[Finding]:
    """What waits for its last record may take its time: that is in quarantine after its node was lost, or kept for a
    slot that the next set of the same name counts.
    """
    for pool in world.judge.lent.pools.values():
        purpose = pool.purpose
        if purpose is None or not purpose.is_reclaimed or purpose.application.uid in living:
            continue
        if _is_terminating(world, pool.name) and any(each.pool == pool.name for each in world.judge.records.values()):
            continue
        if purpose.application.kind != "Pod" or not _is_over(world, purpose.application.uid):
            yield "L3", f"{pool.name} is still there, and {purpose.application} is gone"


def _is_over(world: World, uid: str) -> bool:
    """A bare pod that has ended keeps its pool, empty, until it is deleted."""
    return any(raw["metadata"]["uid"] == uid for _, raw in world.server.store.items("/pods"))


def _size(raw: Object) -> int:
    spec, number = raw.get("spec") or {}, _annotations(raw).get(PREFIX + "ippool-ip-number", "+1")
    status = raw.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed") or (raw["kind"] == "Job" and status.get("conditions")):
        return 0
    replicas = 1 if raw["kind"] == "Pod" else int(spec.get("replicas", spec.get("completions", 0)))
    return replicas + int(number) if number.startswith("+") else int(number)


def _annotations(raw: Object) -> dict[str, str]:
    source = raw if raw["kind"] == "Pod" else raw["spec"]["template"]
    found: dict[str, str] = source["metadata"].get("annotations") or {}
    return found


def _names(world: World, subnet: str, title: str) -> bool:
    """Whether the subnet's condition says that the application waits."""
    raw = world.server.store.get(Key(SUBNETS, "", subnet)) or {}
    conditions = (raw.get("status") or {}).get("conditions") or ()
    found = [each for each in conditions if (each["type"], each["status"]) == ("ApplicationsUnserved", "True")]
    return any(f"{title}: " in each["message"] for each in found)


def _lends(world: World, subnet: str) -> bool:
    """Without a subnet there is nowhere to say that somebody waits for it."""
    raw = world.server.store.get(Key(SUBNETS, "", subnet))
    return raw is not None and not raw["metadata"].get("deletionTimestamp")


def _used(world: World, pool: str) -> IntervalSet:
    records = world.judge.records.values()
    return IntervalSet.addresses(
        4, (each.address for each in records if each.pool == pool and each.state is not State.COOLING)
    )
