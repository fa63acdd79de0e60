"""What admission makes of a pod: refusals, advice, its short form written out, and nodes where its pools serve.

Only form is refused. What the pools say now may be right tomorrow: it is told, and the pod is let in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from allocator.domain import errors, filters
from allocator.domain.annotations import asked_by_pod
from allocator.domain.candidates import resolved, summary, unknown
from allocator.domain.filters import Refusal
from allocator.domain.json_annotation import PREFIX
from allocator.domain.networks import FIRST_INTERFACE, NETWORKS, network_of
from allocator.domain.node_affinity import names_nodes, restricted
from allocator.domain.patterns import expanded, is_pattern
from allocator.domain.pod_annotations import hints_for, is_left_to_the_scheduler, problems_of
from allocator.domain.subnet_advice import subnet_warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from allocator.domain.addresses import Version
    from allocator.domain.annotations import Asked
    from allocator.domain.errors import FieldError
    from allocator.domain.pool import Pool
    from allocator.domain.subnet_advice import Subnets

Raw: TypeAlias = Mapping[str, Any]

# kube-apiserver shows up to 256 characters of each, and 4,096 in all.
MAX_WARNINGS: Final = 5
WARNING_LIMIT: Final = 256

_ON_HOST: Final = f"the pod has hostNetwork and gets no address: its {PREFIX} annotations mean nothing"
_VERSIONS: Final[tuple[Version, ...]] = (4, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPod:
    """What is looked at of a pod that is being created.

    `selector` is its nodeSelector, and `required` are the node selector terms that it brings along.
    """

    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    is_on_host_network: bool = False
    node: str = ""
    selector: Mapping[str, str] | None = None
    required: Sequence[Raw] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of the cluster. `free` gives a pool's free addresses, None for a namespace or count not known."""

    pools: Mapping[str, Pool]
    free: Callable[[str], int | None]
    namespace_labels: Mapping[str, str] | None
    versions: frozenset[Version]
    own_namespace: str
    subnets: Subnets


@dataclass(frozen=True, slots=True)
class Advice:
    """`problems` refuse the pod. Else the annotation and the terms that change; None for what stays as it is."""

    problems: list[FieldError] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    ippool: str | None = None
    required: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class _Group:
    """The pools of one interface and family: those whose nodes the pod may run on, and why others do not serve it."""

    placing: Sequence[Pool]
    warning: str


def advise(pod: NewPod, seen: Seen) -> Advice:
    if pod.is_on_host_network:
        return Advice(warnings=(_ON_HOST,))
    hints = [*hints_for(pod.annotations)]
    if problems := problems_of(pod.annotations):
        return Advice(problems, _shown(hints))
    hints += subnet_warnings(pod.annotations, seen.subnets, seen.versions)
    groups, warnings = _groups(pod, seen)
    terms = None
    if not _has_its_node(pod) and not is_left_to_the_scheduler(pod.annotations):
        found = restricted(pod.required, [group.placing for group in groups if group.placing], pod.selector)
        terms = found.terms if found.terms != pod.required else None
        if found.problem:
            warnings.append(f"the pod's node affinity stays as it is: {found.problem}")
    return Advice([], _shown([*hints, *warnings]), _written_out(pod.annotations, seen.pools), terms)


def _has_its_node(pod: NewPod) -> bool:
    return bool(pod.node) or names_nodes(pod.required)


def _shown(warnings: Iterable[str]) -> tuple[str, ...]:
    """A handful, none twice and none too long."""
    unique = [*dict.fromkeys(warnings)]
    if len(unique) > MAX_WARNINGS:
        unique[MAX_WARNINGS - 1 :] = [f"and {len(unique) - MAX_WARNINGS + 1} more warnings about this pod's pools"]
    return tuple(text if len(text) <= WARNING_LIMIT else f"{text[: WARNING_LIMIT - 3]}..." for text in unique)


def _groups(pod: NewPod, seen: Seen) -> tuple[list[_Group], list[str]]:
    groups: list[_Group] = []
    warnings: list[str] = []
    for asked in asked_by_pod(pod.annotations):
        try:
            names = resolved(asked, seen.pools)
        except errors.NoPool as error:
            # The families are not known.
            warnings.append(str(error))
            continue
        for version in _VERSIONS:
            listed = names.by_version.get(version)
            if listed and version not in seen.versions:
                pools = ", ".join(listed)
                warnings.append(
                    f"{asked.source}: IPv{version} is switched off in this cluster, so this is not looked at: {pools}"
                )
            elif listed:
                groups.append(_group(listed, asked, version, pod, seen))
    return groups, [*warnings, *(group.warning for group in groups if group.warning)]


def _group(listed: Sequence[str], asked: Asked, version: Version, pod: NewPod, seen: Seen) -> _Group:
    serving: list[Pool] = []
    refusals: list[Refusal] = []
    for name in listed:
        pool = seen.pools.get(name)
        if pool is None:
            refusals.append(unknown(name, f"IPv{version} SpiderIPPool"))
        elif found := [*_refusals(pool, asked.interface, version, pod, seen)]:
            refusals += found
        else:
            serving.append(pool)
    exhausted = [Refusal(pool.name, "exhausted", "no free address") for pool in serving if seen.free(pool.name) == 0]
    refusals += exhausted
    if len(exhausted) == len(serving):
        interface = f"{asked.interface} of this pod" if asked.interface else "this pod"
        return _Group(
            serving or _hoped_for(listed, version, seen),
            f"no IPv{version} pool of the {asked.source} serves {interface} now: {summary(refusals)}",
        )
    # Of those that a pattern stands for, some need not serve.
    typed = (*asked.names, *asked.by_version.get(version, ()))
    told = [refusal for refusal in refusals if refusal.pool in typed]
    return _Group(serving, f"{asked.source}: {summary(told)}" if told else "")


def _hoped_for(listed: Sequence[str], version: Version, seen: Seen) -> Sequence[Pool]:
    """Where no pool serves now, one of those listed may tomorrow (one that is disabled, say): the pod should not be
    found on a node of none of them then. Nothing when it may be one whose nodes are not known.
    """
    pools = [pool for name in listed if (pool := seen.pools.get(name)) is not None]
    may_serve = [pool for pool in pools if pool.version == version and not (pool.problem or pool.edition.terminating)]
    return may_serve if len(may_serve) == len(listed) else []


def _refusals(pool: Pool, interface: str, version: Version, pod: NewPod, seen: Seen) -> Iterator[Refusal]:
    """Why the pool serves the pod on no node, as far as that can be told now."""
    if pool.problem:
        yield Refusal(pool.name, "readable", pool.problem)
        return
    yield from filters.by_state(pool, version)
    if pod.node and pool.node_names:
        yield from filters.by_node(pool, pod.node, {})
    yield from filters.by_namespace(pool, pod.namespace, seen.namespace_labels)
    yield from filters.by_pod(pool, pod.labels)
    if pool.multus_names:
        interface = interface or ("" if NETWORKS in pod.annotations else FIRST_INTERFACE)
        network = _network(interface, pod, seen)
        if network is not None:
            yield from filters.by_network(pool, network, interface, own_namespace=seen.own_namespace)
    if not pool.ips:
        yield Refusal(pool.name, "addresses", "spec.ips is empty")


def _network(interface: str, pod: NewPod, seen: Seen) -> str | None:
    """None where only the agent can tell: it knows the cluster's own network, and which interface asks."""
    try:
        return network_of(
            pod.annotations,
            interface,
            pod_namespace=pod.namespace,
            own_namespace=seen.own_namespace,
            cluster_network="",
        )
    except errors.Invalid:
        return None


def _written_out(annotations: Mapping[str, str], pools: Mapping[str, Pool]) -> str | None:
    """The short form of `ippool` as JSON with the families of its pools; None where there is nothing to write out.

    A pattern is written as one, in each family in which it has pools. A name without a pool leaves all as it is typed.
    """
    by_version: dict[str, list[str]] = {}
    for name in (name for asked in asked_by_pod(annotations) for name in asked.names):
        versions = [version for version in _VERSIONS if _has_pools(name, version, pools)]
        if not versions:
            return None
        for version in versions:
            by_version.setdefault(f"ipv{version}", []).append(name)
    return json.dumps(by_version, separators=(",", ":"), sort_keys=True) if by_version else None


def _has_pools(name: str, version: Version, pools: Mapping[str, Pool]) -> bool:
    if not is_pattern(name):
        pool = pools.get(name)
        return pool is not None and not pool.problem and pool.version == version
    found = expanded((name,), (each.name for each in pools.values() if each.version == version and not each.problem))
    return found != (name,)
