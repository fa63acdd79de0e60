"""Do the books balance? Live lists of pods, records, endpoints and pools, compared with what runtimes were told.

It reads the objects as they are, with nothing of the product's own decoding, so that both cannot be wrong alike.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Final

from allocator.kube.resources import (
    MACHINE_INSTANCES,
    PODS,
    SPIDER_ENDPOINTS,
    SPIDER_IP_ADDRESSES,
    SPIDER_IP_POOLS,
    STATEFUL_SETS,
)
from devcluster.waiting import WaitError, until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from allocator.kube.resources import Object
    from tests.crash.insisting import Insisting
    from tests.crash.runtime import Told

# A leader that was killed, its successor's election, two sightings and the brake in between, on a busy machine.
WITHIN_S: Final = 60.0
FINAL: Final = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Books:
    """Records are listed first and pods after them: who is missing among the pods was gone after the records."""

    records: Sequence[Object]
    pods: Mapping[str, Object]
    endpoints: Sequence[Object]
    pools: Mapping[str, Object]
    stateful_sets: Mapping[tuple[str, str], int]
    machines: frozenset[tuple[str, str]]

    @property
    def held(self) -> list[Object]:
        return [record for record in self.records if record["spec"]["state"] == "Held"]

    def lives(self, pod_uid: str) -> bool:
        pod = self.pods.get(pod_uid)
        return pod is not None and (pod.get("status") or {}).get("phase") not in FINAL

    def orphans(self) -> list[Object]:
        """Records that are held for nobody."""
        return [record for record in self.held if not any(self.lives(each["podUID"]) for each in parties(record))]


async def read(api: Insisting) -> Books:
    records = await api.items(SPIDER_IP_ADDRESSES)
    endpoints = await api.items(SPIDER_ENDPOINTS)
    pools = await api.items(SPIDER_IP_POOLS)
    sets = await api.items(STATEFUL_SETS)
    machines = await api.items(MACHINE_INSTANCES)
    return Books(
        records=records,
        pods={pod["metadata"]["uid"]: pod for pod in await api.items(PODS)},
        endpoints=endpoints,
        pools={pool["metadata"]["name"]: pool for pool in pools},
        stateful_sets={key(each): int(each["spec"].get("replicas", 1)) for each in sets},
        machines=frozenset(map(key, machines)),
    )


async def balanced(
    api: Insisting, told: Mapping[str, Told], *, counts: bool = False, within_s: float = WITHIN_S
) -> Books:
    """The books, as soon as they balance; AssertionError with what does not at the deadline.

    `counts`: the pools' status too, which the controller writes every few seconds only.
    """
    last: list[str] = []

    async def look() -> Books | None:
        books = await read(api)
        last[:] = [*problems(books, told), *(miscounted(books) if counts else ())]
        return None if last else books

    try:
        return await until(look, within_s=within_s, what="the books to balance")
    except WaitError:
        raise AssertionError("the books do not balance:\n" + "\n".join(last[:20])) from None


def problems(books: Books, told: Mapping[str, Told]) -> list[str]:
    """What is wrong in a cluster at rest, as sentences."""
    return [
        *unheld(books, told),
        *shared(books),
        *(f"{address(record)} is held for nobody: {holder(record)}" for record in books.orphans()),
        *(f"{address(record)} is kept for nobody: {record['spec'].get('slot')}" for record in unwanted(books)),
        *disagreeing(books),
        *doubted(books),
    ]


def doubted(books: Books) -> list[str]:
    """Addresses of which the product itself cannot say whose they are: nothing here gives it reason to."""
    states = ((address(record), record["spec"]["state"]) for record in books.records)
    return [f"{text} is {state}" for text, state in states if state in ("Quarantined", "Conflict")]


def unheld(books: Books, told: Mapping[str, Told]) -> list[str]:
    """Addresses that a living pod was told, and that it does not hold (I3, I5)."""
    holders = {address(record): record for record in books.held}
    found = []
    for uid, each in told.items():
        for interface, addresses in each.addresses.items():
            for text in addresses:
                record = holders.get(text)
                if record is None or (uid, interface) not in {(p["podUID"], p["interface"]) for p in parties(record)}:
                    has = "nobody has it" if record is None else f"it is of {holder(record)}"
                    found.append(f"pod {name(each.pod)} ({uid}) was told {text} for {interface}: {has}")
    return found


def shared(books: Books) -> list[str]:
    """Interfaces with two addresses of a family, and addresses with two objects (I1, I4)."""
    interfaces = Counter(
        (record["spec"]["holder"]["podUID"], record["spec"]["holder"]["interface"], record["spec"]["ipVersion"])
        for record in books.held
    )
    addresses = Counter(ip_address(address(record)) for record in books.records)
    return [
        *(
            f"{uid}/{interface} has {count} IPv{v} addresses"
            for (uid, interface, v), count in interfaces.items()
            if count > 1
        ),
        *(f"{each} stands {count} times in the ledger" for each, count in addresses.items() if count > 1),
    ]


def disagreeing(books: Books) -> list[str]:
    """Endpoints that do not say what the records say, are missing, or are of nobody (I10)."""
    wanted: dict[str, set[str]] = {}
    for record in books.records:
        if record["spec"]["state"] in ("Held", "Retained") and books.lives(record["spec"]["holder"]["podUID"]):
            wanted.setdefault(record["spec"]["holder"]["podUID"], set()).add(address(record))
    kept = {address(record) for record in books.records if record["spec"]["state"] in ("Held", "Retained")}
    having = {party["podUID"] for record in books.records for party in parties(record)}
    found, shown = [], set()
    for endpoint in books.endpoints:
        uid, says = _current(endpoint)
        shown.add(uid)
        if uid in wanted:
            if says != wanted[uid]:
                found.append(f"endpoint {name(endpoint)} says {sorted(says)}, the ledger {sorted(wanted[uid])}")
        elif books.lives(uid):
            if says and uid not in having:
                found.append(f"endpoint {name(endpoint)} shows {sorted(says)} of pod {uid}, which holds nothing")
        elif not says & kept:
            found.append(f"endpoint {name(endpoint)} shows {sorted(says)} of pod {uid}, which is gone")
    return found + [f"pod {name(books.pods[uid])} has no endpoint" for uid in wanted.keys() - shown]


def miscounted(books: Books) -> list[str]:
    """Pools whose status does not say what the records say."""
    in_use: dict[str, set[str]] = {pool: set() for pool in books.pools}
    for record in books.records:
        if record["spec"]["state"] != "Cooling":
            in_use.setdefault(record["spec"]["pool"], set()).add(address(record))
    found = []
    for pool, addresses in in_use.items():
        status = (books.pools.get(pool) or {}).get("status") or {}
        said = set(json.loads(status.get("allocatedIPs") or "{}"))
        if status.get("allocatedIPCount") != len(addresses) or said != addresses:
            counted = f"{status.get('allocatedIPCount')} ({len(said)} in the text)"
            found.append(f"pool {pool} says {counted}, the ledger {len(addresses)}")
    return found


def unwanted(books: Books) -> Iterable[Object]:
    for record in books.records:
        if record["spec"]["state"] == "Retained":
            slot = record["spec"].get("slot") or {}
            place = str(slot.get("namespace")), str(slot.get("name"))
            if slot.get("kind") == "StatefulSet":
                is_wanted = slot["ordinal"] < books.stateful_sets.get(place, 0)
            else:
                is_wanted = place in books.machines
            if not is_wanted:
                yield record


def _current(endpoint: Object) -> tuple[str, set[str]]:
    current = (endpoint.get("status") or {}).get("current") or {}
    texts = (entry[family] for entry in current.get("ips") or () for family in ("ipv4", "ipv6") if entry.get(family))
    return str(current.get("uid", "")), {str(ip_interface(text).ip) for text in texts}


def parties(record: Object) -> list[Object]:
    return [party for party in (record["spec"].get("holder"), record["spec"].get("peer")) if party]


def address(record: Object) -> str:
    return str(record["spec"]["address"])


def holder(record: Object) -> str:
    who = record["spec"].get("holder") or {}
    return f"{who.get('namespace')}/{who.get('pod')} ({who.get('podUID')}) on {who.get('node')}"


def key(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def name(obj: Object) -> str:
    return "/".join(key(obj))
