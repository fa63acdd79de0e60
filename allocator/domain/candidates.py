"""The pools that serve a pod, ordered, and the reasons why others do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain import errors, filters
from allocator.domain.annotations import Asked, PoolNames, pools_of_namespace, pools_of_pod, problem_of
from allocator.domain.filters import Refusal
from allocator.domain.networks import network_of
from allocator.domain.overlapping import ceded_to
from allocator.domain.patterns import expanded, is_pattern
from allocator.domain.subnet_pools import NO_SUBNETS, SubnetRules, pools_made, subnets_by_interface

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from allocator.domain.addresses import Address, IntervalSet, Version
    from allocator.domain.applications import Application
    from allocator.domain.overlapping import Overlap
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
    """What affinities look at, apart from the pod. `application`: on whose behalf the pod runs."""

    application: Application
    namespace_labels: Mapping[str, str]
    namespace_annotations: Mapping[str, str]
    node_labels: Mapping[str, str]
    # For pools with `multusName`: the namespace of Spiderpool itself, and the cluster's default network.
    own_namespace: str = ""
    cluster_network: str = ""
    subnet_rules: SubnetRules = NO_SUBNETS
    # None when the CNI configuration does not ask for match_master_subnet.
    master: Master | None = None


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
    annotations, the namespace's, the CNI configuration, the cluster's defaults; in each subnets go before pools.
    errors.Invalid for a malformed annotation, errors.NoPool when no source names a pool.
    """
    interface, clean, rules = request.interface.name, request.clean_gateway, around.subnet_rules
    configured = (*request.default_ipv4_pools, *request.default_ipv6_pools)
    subnets = subnets_by_interface(pod.annotations, around.namespace_annotations, rules, configured=configured)
    if interface in subnets:
        return (pools_made(subnets[interface], around.application, pools, rules, clean_gateway=clean),)
    asked = (
        pools_of_pod(pod.annotations, interface, clean_gateway=clean)
        or pools_of_namespace(around.namespace_annotations, interface, clean_gateway=clean)
        or _configured(request)
    )
    if asked:
        return tuple(resolved(each, pools) for each in asked if each.interface not in subnets)
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


def resolved(asked: Asked, pools: Mapping[str, Pool]) -> PoolNames:
    """Patterns become the names of pools of their family, in alphabetical order: the same pod gets the same list.

    errors.NoPool when a name of the short form is not among the pools, so that its family is not known.
    """
    if asked.names:
        by_version = _by_family(_of_short_form(asked, pools), pools)
    else:
        by_version = {version: _expanded(names, version, pools) for version, names in asked.by_version.items()}
    return PoolNames(asked.interface, asked.source, by_version, asked.clean_gateway)


def _expanded(names: Iterable[str], version: Version, pools: Mapping[str, Pool]) -> tuple[str, ...]:
    return expanded(names, (name for name, pool in pools.items() if pool.version == version))


def _of_short_form(asked: Asked, pools: Mapping[str, Pool]) -> tuple[str, ...]:
    names = expanded(asked.names, pools)
    refusals = [unknown(name, "SpiderIPPool") for name in names if name not in pools]
    if refusals:
        # The others may not do: this may be the only pool of its family.
        raise errors.NoPool(f"the {asked.source} cannot be followed: {summary(refusals)}", doubtful(refusals))
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
    overlap: Callable[[Pool], Overlap | None],
) -> tuple[tuple[Pool, ...], tuple[Refusal, ...]]:
    """The pools that serve this pod, in the order to try them, and all reasons why each of the others does not.

    The more a pool is tied to pods, nodes and namespaces, the earlier it is tried; between equals the listed order
    stands, so that the user's list is a fall-back list. `usable` gives what a pool may hand out, taken or not, and
    `overlap` how it stands to pools that it overlaps.
    """
    admitted: list[Pool] = []
    refusals: list[Refusal] = []
    for name in names:
        pool = pools.get(name)
        if pool is None:
            refusals.append(unknown(name, f"IPv{subject.version} SpiderIPPool"))
        elif found := [*_refusals(pool, subject, around)]:
            refusals += found
        elif not usable(pool):
            refusals.append(Refusal(name, "addresses", _why_nothing(pool, overlap(pool))))
        else:
            admitted.append(pool)
    return tuple(sorted(admitted, key=_rank, reverse=True)), tuple(refusals)


def unknown(name: str, kind: str) -> Refusal:
    if is_pattern(name):
        return Refusal(name, "pattern", f"no {kind} has such a name")
    return Refusal(name, "exists", "there is no SpiderIPPool of this name")


def _why_nothing(pool: Pool, overlap: Overlap | None) -> str:
    if not pool.ips:
        return "spec.ips is empty"
    if overlap is not None and overlap.ceded:
        return f"nothing of spec.ips is left: {ceded_to(overlap)}"
    return "spec.excludeIPs, SpiderReservedIPs and the gateway leave no address of spec.ips"


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
    pod = subject.pod
    if pool.problem:
        yield Refusal(pool.name, "readable", pool.problem)
        return
    yield from filters.by_state(pool, subject.version)
    yield from filters.by_node(pool, pod.node, around.node_labels)
    yield from filters.by_namespace(pool, pod.namespace, around.namespace_labels)
    yield from filters.by_pod(pool, pod.labels)
    yield from filters.by_application(pool, around.application, subject.interface)
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
    else:
        yield from filters.by_network(pool, network, subject.interface, own_namespace=around.own_namespace)
