"""What the webhook adds to a write: one at a time, and 200 at once, each beside the same with webhooks removed."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from allocator.domain.addresses import parse_network
from allocator.kube.resources import MUTATING_WEBHOOKS, PODS, SPIDER_IP_POOLS, VALIDATING_WEBHOOKS
from tests.bench.cluster import NAMESPACE
from tests.bench.load import PARALLEL, run_all
from tests.bench.report import Table, progress
from tests.bench.sender import Sender
from tests.plane.support import eventually, pod
from tests.plane.webhooks import pool, running_webhook
from webhook.entries import NAME, Registration, UrlTarget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from allocator.kube.resources import Object
    from tests.bench.accounts import Usage
    from tests.bench.cluster import Cluster
    from tests.bench.report import Row
    from tests.bench.sender import Sent
    from tests.plane.webhooks import Webhook

# Of the same network in tens: a new pool is compared with networks and with addresses.
STANDING: Final = 300
ROUNDS: Final = 3
WRITES: Final = 30
# Of those that wait for a live list.
SLOW_WRITES: Final = 10
WARM_UP: Final = 20
AT_ONCE: Final = 200
BURST: Final = 1000
BURSTS: Final = 2
POOLS: Final = SPIDER_IP_POOLS.path()
DRY_RUN: Final = f"{POOLS}?dryRun=All"
PODS_DRY_RUN: Final = f"{PODS.path(NAMESPACE)}?dryRun=All"
CREATES: Final[dict[str, Callable[[int, int], str]]] = {
    "create a /24": lambda number, index: f"100.{number}.{index}.0/24",
    "create a /12": lambda number, index: f"{20 + 2 * number + index // 16}.{index % 16 * 16}.0.0/12",
    "create an IPv6 /64": lambda number, index: f"fd00:1:{number + 1:x}:{index + 1:x}::/64",
}
EDITS: Final[dict[str, Callable[[int, int], Object]]] = {
    "edit": lambda number, _index: {"nodeName": [f"node-{number}"]},
    "edit that takes away": lambda number, index: {"excludeIPs": [f"{_tenth(index)}.{100 + number}"]},
}
SLOW: Final = ("edit that takes away", "delete")
MERGE_PATCH: Final = "application/merge-patch+json"
LIVE: Final = (
    "who takes addresses away has to wait for a live list of those in use: kube-apiserver waits with that for etcd's "
    "next notice, which comes every 100 ms when nobody writes records"
)


@dataclass(slots=True)
class Tally:
    """What all rounds of one kind of write took together."""

    took_ms: list[float] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_s: Counter[str] = field(default_factory=Counter)

    def add(self, sent: Sent, usage: Usage) -> None:
        self.took_ms += sent.took_ms
        self.refusals += sent.refusals
        self.wall_s += usage.wall_s
        self.cpu_s.update(usage.cpu_s)

    @property
    def median_ms(self) -> float:
        return statistics.median(self.took_ms)

    @property
    def per_s(self) -> float:
        return len(self.took_ms) / self.wall_s

    def cpu_ms(self, part: str) -> float:
        return self.cpu_s[part] * 1000 / len(self.took_ms)


@dataclass(frozen=True, slots=True)
class Bench:
    cluster: Cluster
    webhook: Webhook
    single: Sender
    many: Sender

    @asynccontextmanager
    async def registered(self) -> AsyncIterator[None]:
        """Within the block the API server asks the webhook, before and after it does not: it has taken notice."""
        registration = Registration(target=UrlTarget(self.webhook.base), namespace="spiderpool", has_subnets=True)
        for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
            webhooks = registration.webhooks(resource, self.webhook.ca_bundle)
            body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": NAME}}
            await self.cluster.kube.create(resource, {**body, "webhooks": webhooks})
        try:
            await eventually(lambda: self._is_asked(2))
            # What belongs to a configuration is made with its first requests.
            await self.single.send_all([self.single.request("POST", DRY_RUN, _probe())] * WARM_UP)
            yield
        finally:
            for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
                await self.cluster.kube.delete(resource, NAME)
            await eventually(lambda: self._is_asked(0))

    async def _is_asked(self, times: int) -> bool:
        """So often for one create, by the webhook's own log."""
        before = self._answered()
        sent = await self.single.send_all([self.single.request("POST", DRY_RUN, _probe())])
        return not sent.refusals and self._answered() - before == times

    def _answered(self) -> int:
        return self.webhook.log.read_bytes().count(b'"review_answered"')

    async def measure(self, tally: Tally, sender: Sender, requests: Sequence[bytes]) -> None:
        meter = self.cluster.meter(webhook=[self.webhook.process.pid])
        async with meter.measured() as measured:
            sent = await sender.send_all(requests)
        tally.add(sent, measured.result())


async def run(cluster: Cluster) -> Table:
    with running_webhook(cluster.kubeconfig, cluster.folder / "webhook", "--register", "none") as webhook:
        async with Sender.connect(cluster.kubeconfig, 1) as single, Sender.connect(cluster.kubeconfig, AT_ONCE) as many:
            await eventually(lambda: _is_ready(webhook))
            bench = Bench(cluster, webhook, single, many)
            async with bench.registered():
                await _create_all(cluster, map(_standing, range(STANDING)))
            writes = await _one_by_one(bench) | await _at_once(bench)
            await _remove(cluster, "")
    about = f"beside {STANDING} pools; bare: webhooks removed; at once: dry runs; ms: medians; CPU ms are for one write"
    refusals = [refusal for pair in writes.values() for tally in pair for refusal in tally.refusals]
    says = [LIVE]
    if refusals:
        says.append(f"{len(refusals)} refused, the first: {refusals[0]}")
    return Table("admission", about, [_row(what, *tallies) for what, tallies in writes.items()], says)


async def _is_ready(webhook: Webhook) -> bool:
    async with webhook.session() as session, session.get("/webhook-health-check") as answer:
        return answer.status == 200


async def _one_by_one(bench: Bench) -> dict[str, tuple[Tally, Tally]]:
    """Bare and judged by turns, so that both have the same share of what else the machine does."""
    tallies: dict[str, tuple[Tally, Tally]] = {}

    async def half(side: int, number: int) -> None:
        for what, requests in _writes(bench.single, number).items():
            await bench.measure(tallies.setdefault(what, (Tally(), Tally()))[side], bench.single, requests)

    for number in range(0, 2 * ROUNDS, 2):
        await _create_all(
            bench.cluster, [_gone(each, index) for each in (number, number + 1) for index in range(WRITES)]
        )
        await half(0, number)
        async with bench.registered():
            await half(1, number + 1)
        await _remove(bench.cluster, "new-")
        progress(f"admission: one by one, {number // 2 + 1} of {ROUNDS}")
    return tallies


async def _at_once(bench: Bench) -> dict[str, tuple[Tally, Tally]]:
    pools = [_whole(f"burst-{index}", f"172.{16 + index // 256}.{index % 256}.0/24") for index in range(BURST)]
    pods = [_pod(f"burst-{index}", f"standing-{index % STANDING}") for index in range(BURST)]
    bursts = {
        f"create a /24, {AT_ONCE} at once": [bench.many.request("POST", DRY_RUN, body) for body in pools],
        f"create a pod, {AT_ONCE} at once": [bench.many.request("POST", PODS_DRY_RUN, body) for body in pods],
    }
    tallies = {what: (Tally(), Tally()) for what in bursts}
    for number in range(BURSTS):
        for what, requests in bursts.items():
            bare, judged = tallies[what]
            await bench.measure(bare, bench.many, requests)
            async with bench.registered():
                await bench.measure(judged, bench.many, requests)
        progress(f"admission: at once, {number + 1} of {BURSTS}")
    return tallies


def _writes(sender: Sender, number: int) -> dict[str, list[bytes]]:
    """The writes of half a round, each on a name and a network of its own."""
    writes: dict[str, list[bytes]] = {}
    for place, (what, subnet) in enumerate(CREATES.items()):
        bodies = [_whole(f"new-{place}-{number}-{index}", subnet(number, index)) for index in range(WRITES)]
        writes[what] = [sender.request("POST", POOLS, body) for body in bodies]

    for what, spec in EDITS.items():
        bodies = [{"spec": spec(number, index)} for index in range(WRITES)]
        paths = [f"{POOLS}/standing-{index}" for index in range(WRITES)]
        writes[what] = [sender.request("PATCH", *each, MERGE_PATCH) for each in zip(paths, bodies, strict=True)]
    writes["delete"] = [sender.request("DELETE", f"{POOLS}/gone-{number}-{index}") for index in range(WRITES)]
    for what in SLOW:
        writes[what] = writes[what][:SLOW_WRITES]
    return writes


def _standing(index: int) -> Object:
    ips = [f"{_tenth(index)}.1-{_tenth(index)}.200"]
    return pool(f"standing-{index}", subnet=f"10.{index // 10}.0.0/16", ips=ips)


def _tenth(index: int) -> str:
    return f"10.{index // 10}.{index % 10}"


def _gone(number: int, index: int) -> Object:
    return _whole(f"gone-{number}-{index}", f"101.{number}.{index}.0/24")


def _whole(name: str, subnet: str) -> Object:
    """All addresses of a network in one range, as people write it."""
    network = parse_network(subnet)
    first, last = network.network_address + 1, network.broadcast_address - 1
    return pool(name, subnet=subnet, ips=[f"{first}-{last}"], gateway=str(first), excludeIPs=[str(first)])


def _probe() -> Object:
    """Nothing has to be derived, since one side may be asked before the other; of a name that is still to be generated
    both are asked.
    """
    probe = pool("", subnet="192.0.2.0/24", ipVersion=4, ips=["192.0.2.1"])
    return {**probe, "metadata": {"generateName": "probe-"}}


def _pod(name: str, pool_name: str) -> Object:
    body = pod(name, NAMESPACE)
    body["metadata"]["annotations"] = {"ipam.spidernet.io/ippool": json.dumps({"ipv4": [pool_name]})}
    return body


async def _create_all(cluster: Cluster, pools: Iterable[Object]) -> None:
    async def create(body: Object) -> None:
        await cluster.kube.create(SPIDER_IP_POOLS, body)

    await run_all(create, pools, PARALLEL)


async def _remove(cluster: Cluster, prefix: str) -> None:
    """Those whose name begins so. No controller runs that would take the finalizers off."""

    async def remove(name: str) -> None:
        await cluster.kube.patch(SPIDER_IP_POOLS, name, {"metadata": {"finalizers": None}})
        await cluster.kube.delete(SPIDER_IP_POOLS, name)

    names = [each["metadata"]["name"] for each in (await cluster.kube.list(SPIDER_IP_POOLS))["items"]]
    await run_all(remove, [name for name in names if name.startswith(prefix)], PARALLEL)


def _row(what: str, bare: Tally, judged: Tally) -> Row:
    return {
        "what": what,
        "bare ms": bare.median_ms,
        "ms": judged.median_ms,
        "more ms": judged.median_ms - bare.median_ms,
        "bare per s": bare.per_s,
        "per s": judged.per_s,
        "bare apiserver ms": bare.cpu_ms("apiserver"),
        "apiserver ms": judged.cpu_ms("apiserver"),
        "etcd ms": judged.cpu_ms("etcd"),
        "webhook ms": judged.cpu_ms("webhook"),
        "client ms": judged.cpu_ms("client"),
        "refused": len(bare.refusals) + len(judged.refusals),
    }
