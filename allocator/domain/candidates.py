"""Which pools, in which order, and why not the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.domain.annotations import PoolNames, pools_of_namespace, pools_of_pod
from allocator.domain.networks import network_of, qualified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from allocator.domain.addresses import Address, IntervalSet, Version
    from allocator.domain.pool import Pool
    from allocator.domain.request import AddRequest, Pod


# Filters that look at what a watch of metadata does not show at once: whether there is such a pool, and its status.
DOUBTFUL: Final = frozenset({"exists", "adoption"})


@dataclass(frozen=True, slots=True)
class Master:
    """The node's interface behind the pod's one: its addresses, or why they cannot be told."""

    addresses: tuple[Address, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What affinities look at, apart from the pod."""

    namespace_labels: Mapping[str, str]
    namespace_annotations: Mapping[str, str]
    node_labels: Mapping[str, str]
    # For pools with `multusName`: the namespace of Spiderpool itself, and the cluster's default network.
    own_namespace: str = ""
    cluster_network: str = ""
    # None when the CNI configuration does not ask for match_master_subnet.
    master: Master | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a pool does not serve the pod: the filter's name and a sentence for the user."""

    pool: str
    filter: str
    why: str

    def __str__(self) -> str:
        return f"{self.pool}: {self.why}"


def listed(request: AddRequest, pod: Pod, around: Surroundings, pools: Mapping[str, Pool]) -> tuple[PoolNames, ...]:
    """The pools that the first source with anything to say names; that source is final.

    One item for each interface that this ADD covers, the one that asks among them. In this order: the pod's
    annotations, the namespace's, the CNI configuration, the cluster's default pools. errors.Invalid for a malformed
    annotation, errors.NoPool when no source names a pool.
    """
    interface, clean = request.interface.name, request.clean_gateway
    names = pools_of_pod(pod.annotations, interface, clean_gateway=clean) or pools_of_namespace(
        around.namespace_annotations, interface, clean_gateway=clean
    )
    if names:
        return names
    configured: dict[Version, tuple[str, ...]] = {4: request.default_ipv4_pools, 6: request.default_ipv6_pools}
    if any(configured.values()):
        by_version = {version: listed_pools for version, listed_pools in configured.items() if listed_pools}
        return (PoolNames(interface, "CNI configuration", by_version, clean),)
    defaults: dict[Version, tuple[str, ...]] = {}
    for _, pool in sorted(pools.items()):
        if pool.default:
            defaults[pool.version] = (*defaults.get(pool.version, ()), pool.name)
    if not defaults:
        raise errors.NoPool(
            "no pool is named for this pod: set the annotation ipam.spidernet.io/ippool on the pod, a default on its "
            "namespace or in the CNI configuration, or spec.default: true on a SpiderIPPool"
        )
    return (PoolNames(interface, "cluster default pools", defaults, clean),)


@dataclass(frozen=True, slots=True)
class Subject:
    """What asks: an interface of a pod, of one family."""

    pod: Pod
    interface: str
    version: Version


def sift(
    names: Iterable[str],
    pools: Mapping[str, Pool],
    subject: Subject,
    around: Surroundings,
    *,
    usable: Callable[[Pool], IntervalSet],
) -> tuple[tuple[Pool, ...], tuple[Refusal, ...]]:
    """The pools that serve this pod, in the order to try them, and why each of the others does not.

    `usable` gives what a pool may hand out, taken or not.

    The more a pool is tied to pods, nodes and namespaces, the earlier it is tried; between equals the listed order
    stands, so that the user's list is a fall-back list.
    """
    admitted: list[Pool] = []
    refusals: list[Refusal] = []
    for name in names:
        pool = pools.get(name)
        if pool is None:
            refusals.append(Refusal(name, "exists", "there is no SpiderIPPool of this name"))
        elif refusal := next(_refusals(pool, subject, around), None):
            refusals.append(refusal)
        elif not usable(pool):
            why = "excludeIPs, SpiderReservedIPs and the gateway leave no address of spec.ips"
            refusals.append(Refusal(name, "addresses", why))
        else:
            admitted.append(pool)
    return tuple(sorted(admitted, key=_rank, reverse=True)), tuple(refusals)


def _rank(pool: Pool) -> tuple[bool, ...]:
    # sorted() is stable in reverse as well, so ties keep the listed order.
    return (
        pool.pod_affinity is not None,
        bool(pool.node_names),
        pool.node_affinity is not None,
        bool(pool.namespace_names),
        pool.namespace_affinity is not None,
        bool(pool.multus_names),
    )


def _refusals(pool: Pool, subject: Subject, around: Surroundings) -> Iterator[Refusal]:
    yield from _refused_by_state(pool, subject.version)
    yield from _refused_by_place(pool, subject.pod, around)
    if pool.pod_affinity is not None and not pool.pod_affinity.matches(subject.pod.labels):
        yield Refusal(pool.name, "podAffinity", "the pod's labels do not match spec.podAffinity")
    if pool.multus_names:
        yield from _refused_by_network(pool, subject, around)
    if around.master is not None:
        yield from _refused_by_master(pool, around.master)


def _refused_by_master(pool: Pool, master: Master) -> Iterator[Refusal]:
    if master.problem:
        yield Refusal(pool.name, "matchMasterSubnet", master.problem)
    elif not any(address in pool.subnet for address in master.addresses):
        have = ", ".join(map(str, master.addresses)) or "none"
        why = f"no address of the pod's master interface ({have}) lies in spec.subnet {pool.subnet}"
        yield Refusal(pool.name, "matchMasterSubnet", why)


def _refused_by_network(pool: Pool, subject: Subject, around: Surroundings) -> Iterator[Refusal]:
    """Looked at only where the pool names networks: other pools do not care where Multus is not installed."""
    network = network_of(
        subject.pod.annotations,
        subject.interface,
        pod_namespace=subject.pod.namespace,
        own_namespace=around.own_namespace,
        cluster_network=around.cluster_network,
    )
    if network is None:
        why = f"nothing says which network {subject.interface} belongs to, and spec.multusName asks for one"
        yield Refusal(pool.name, "multusName", why)
    elif network not in {qualified(name, around.own_namespace) for name in pool.multus_names}:
        yield Refusal(pool.name, "multusName", f"network {network} of {subject.interface} is not in spec.multusName")


def _refused_by_state(pool: Pool, version: Version) -> Iterator[Refusal]:
    if pool.edition.terminating:
        yield Refusal(pool.name, "terminating", "the pool is being deleted")
    if pool.disabled:
        yield Refusal(pool.name, "disabled", "the pool is disabled (spec.disable)")
    if pool.unadopted:
        why = "status.allocatedIPs holds records of another Spiderpool, which this one has not taken over"
        yield Refusal(pool.name, "adoption", why)
    if pool.version != version:
        yield Refusal(pool.name, "family", f"the pool is IPv{pool.version}, listed for IPv{version}")


def _refused_by_place(pool: Pool, pod: Pod, around: Surroundings) -> Iterator[Refusal]:
    """Names beat labels: where names are given, the labels are not looked at, as in the original."""
    if pool.node_names:
        if pod.node not in pool.node_names:
            yield Refusal(pool.name, "nodeName", f"node {pod.node} is not in spec.nodeName")
    elif pool.node_affinity is not None and not pool.node_affinity.matches(around.node_labels):
        yield Refusal(pool.name, "nodeAffinity", f"the labels of node {pod.node} do not match spec.nodeAffinity")
    if pool.namespace_names:
        if pod.namespace not in pool.namespace_names:
            yield Refusal(pool.name, "namespaceName", f"namespace {pod.namespace} is not in spec.namespaceName")
    elif pool.namespace_affinity is not None and not pool.namespace_affinity.matches(around.namespace_labels):
        why = f"the labels of namespace {pod.namespace} do not match spec.namespaceAffinity"
        yield Refusal(pool.name, "namespaceAffinity", why)
