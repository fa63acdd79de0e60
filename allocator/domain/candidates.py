"""The pools that serve a pod, ordered, and the reasons why others do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.domain.annotations import Asked, PoolNames, pools_of_namespace, pools_of_pod, problem_of
from allocator.domain.networks import network_of, qualified
from allocator.domain.patterns import PatternError, expanded, is_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from allocator.domain.addresses import Address, IntervalSet, Version
    from allocator.domain.pool import Pool
    from allocator.domain.request import AddRequest, Pod


# Filters that look at what a watch of metadata does not show at once: whether there is such a pool, and its status.
DOUBTFUL: Final = frozenset({"exists", "adoption"})
# Pools that a refusal spells out: what fits an event (1,024 characters), and what a person reads.
SHOWN: Final = 10


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
    """Why a pool does not serve the pod: the filter's name and a sentence for the user. `pool` may be a pattern."""

    pool: str
    filter: str
    why: str

    def __str__(self) -> str:
        return f"{self.pool}: {self.why}"


def summary(refusals: Iterable[Refusal]) -> str:
    """All refusals in one line: pools that share their reasons stand together, and few are spelled out."""
    whys: dict[str, list[str]] = {}
    for refusal in refusals:
        whys.setdefault(refusal.pool, []).append(refusal.why)
    pools: dict[str, list[str]] = {}
    for pool, reasons in [*whys.items()][:SHOWN]:
        pools.setdefault(" and ".join(reasons), []).append(pool)
    lines = [f"{', '.join(names)}: {why}" for why, names in pools.items()]
    if len(whys) > SHOWN:
        lines.append(f"and {len(whys) - SHOWN} more")
    return "; ".join(lines)


def doubtful(refusals: Iterable[Refusal]) -> tuple[str, ...]:
    """The pools among them of which a watch may not have heard the latest."""
    return tuple(refusal.pool for refusal in refusals if refusal.filter in DOUBTFUL)


def listed(request: AddRequest, pod: Pod, around: Surroundings, pools: Mapping[str, Pool]) -> tuple[PoolNames, ...]:
    """The pools that the first source with anything to say names; that source is final.

    One item for each interface that this ADD covers, the one that asks among them. In this order: the pod's
    annotations, the namespace's, the CNI configuration, the cluster's default pools. errors.Invalid for a malformed
    annotation, errors.NoPool when no source names a pool.
    """
    interface, clean = request.interface.name, request.clean_gateway
    asked = (
        pools_of_pod(pod.annotations, interface, clean_gateway=clean)
        or pools_of_namespace(around.namespace_annotations, interface, clean_gateway=clean)
        or _configured(request)
    )
    if asked:
        return tuple(_resolved(each, pools) for each in asked)
    by_version = _by_family(sorted(name for name, pool in pools.items() if pool.default), pools)
    if not by_version:
        raise errors.NoPool(
            "no pool is named for this pod: set the annotation ipam.spidernet.io/ippool on the pod, a default on its "
            "namespace or in the CNI configuration, or spec.default: true on a SpiderIPPool"
        )
    return (PoolNames(interface, "cluster default pools", by_version, clean),)


def _configured(request: AddRequest) -> tuple[Asked, ...]:
    by_version: dict[Version, tuple[str, ...]] = {}
    for version, names in ((4, request.default_ipv4_pools), (6, request.default_ipv6_pools)):
        if problem := problem_of(names):
            raise errors.Invalid(f"default_ipv{version}_ippool of the CNI configuration {problem}")
        if names:
            by_version[4 if version == 4 else 6] = names
    source = "CNI configuration"
    return (Asked(request.interface.name, source, by_version, request.clean_gateway),) if by_version else ()


def _resolved(asked: Asked, pools: Mapping[str, Pool]) -> PoolNames:
    """Patterns become the names of pools of their family, in alphabetical order: the same pod gets the same list."""
    try:
        if asked.names:
            by_version = _by_family(_of_short_form(asked, pools), pools)
        else:
            by_version = {version: _expanded(names, version, pools) for version, names in asked.by_version.items()}
    except PatternError as error:
        raise errors.Invalid(f"the {asked.source} is malformed: {error}") from None
    return PoolNames(asked.interface, asked.source, by_version, asked.clean_gateway)


def _expanded(names: Iterable[str], version: Version, pools: Mapping[str, Pool]) -> tuple[str, ...]:
    return expanded(names, (name for name, pool in pools.items() if pool.version == version))


def _of_short_form(asked: Asked, pools: Mapping[str, Pool]) -> tuple[str, ...]:
    names = expanded(asked.names, pools)
    unknown = [_unknown(name, "SpiderIPPool") for name in names if name not in pools]
    if unknown:
        # The others may not do: this may be the only pool of its family.
        raise errors.NoPool(f"the {asked.source} cannot be followed: {summary(unknown)}", doubtful(unknown))
    return names


def _by_family(names: Iterable[str], pools: Mapping[str, Pool]) -> Mapping[Version, tuple[str, ...]]:
    by_version: dict[Version, list[str]] = {}
    for name in names:
        by_version.setdefault(pools[name].version, []).append(name)
    return {version: tuple(found) for version, found in by_version.items()}


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
    """The pools that serve this pod, in the order to try them, and all reasons why each of the others does not.

    The more a pool is tied to pods, nodes and namespaces, the earlier it is tried; between equals the listed order
    stands, so that the user's list is a fall-back list. `usable` gives what a pool may hand out, taken or not.
    """
    admitted: list[Pool] = []
    refusals: list[Refusal] = []
    for name in names:
        pool = pools.get(name)
        if pool is None:
            refusals.append(_unknown(name, f"IPv{subject.version} SpiderIPPool"))
        elif found := [*_refusals(pool, subject, around)]:
            refusals += found
        elif not usable(pool):
            why = "spec.excludeIPs, SpiderReservedIPs and the gateway leave no address of spec.ips"
            refusals.append(Refusal(name, "addresses", why if pool.ips else "spec.ips is empty"))
        else:
            admitted.append(pool)
    return tuple(sorted(admitted, key=_rank, reverse=True)), tuple(refusals)


def _unknown(name: str, kind: str) -> Refusal:
    if is_pattern(name):
        return Refusal(name, "pattern", f"no {kind} has such a name")
    return Refusal(name, "exists", "there is no SpiderIPPool of this name")


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
    if pool.problem:
        yield Refusal(pool.name, "readable", pool.problem)
        return
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
    try:
        network = network_of(
            subject.pod.annotations,
            subject.interface,
            pod_namespace=subject.pod.namespace,
            own_namespace=around.own_namespace,
            cluster_network=around.cluster_network,
        )
    except errors.Invalid as error:
        yield Refusal(pool.name, "multusName", str(error))
        return
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
