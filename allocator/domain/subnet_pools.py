"""Pods that take their addresses from SpiderSubnets: which pools are theirs, and when there is one to wait for.

The pools are the controller's work. It makes one for each application, interface and family, empty at first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.domain.annotations import PoolNames
from allocator.domain.applications import label_value
from allocator.domain.fields import some_of
from allocator.domain.subnet_annotations import subnets_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from allocator.domain.addresses import Version
    from allocator.domain.applications import Application
    from allocator.domain.pool import Pool
    from allocator.domain.subnet_annotations import SubnetNames


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetRules:
    """The cluster's settings. `is_on`: who asks for subnets is heard; `makes_pools`: the controller makes them pools.

    `defaults` are the subnets of pods for which nobody names subnets or pools.
    """

    is_on: bool = False
    makes_pools: bool = False
    defaults: Mapping[Version, tuple[str, ...]] = field(default_factory=dict)


NO_SUBNETS: Final = SubnetRules()


def subnets_by_interface(
    annotations: Mapping[str, str],
    namespace_annotations: Mapping[str, str],
    rules: SubnetRules,
    *,
    configured: Sequence[str],
) -> dict[str, SubnetNames]:
    """What the pod's interfaces take their addresses from; those that are left out ask for none of it.

    `configured` are the pools that the CNI configuration names. errors.Invalid when an annotation is malformed.
    """
    if not rules.is_on:
        return {}
    defaults = rules.defaults if rules.makes_pools and not configured else {}
    return {each.interface: each for each in subnets_for(annotations, namespace_annotations, defaults)}


def pools_made(
    asked: SubnetNames,
    application: Application,
    pools: Mapping[str, Pool],
    rules: SubnetRules,
    *,
    clean_gateway: bool,
) -> PoolNames:
    """The pools that were made of these subnets for this very application, in the order of the subnets.

    Whatever their size: those that a scale-up has not reached yet may have a free address all the same.
    """
    if not rules.makes_pools:
        raise errors.Invalid(
            f"{asked.interface} asks for SpiderSubnets ({asked.source}), and enableAutoPoolForApplication is false in "
            "this cluster, so that no pools are made of them: name pools with the annotation ipam.spidernet.io/ippool"
        )
    theirs = [(pool.purpose, pool.name) for pool in pools.values() if pool.purpose is not None]
    mine = [(purpose, name) for purpose, name in theirs if purpose.serves(application, asked.interface)]
    by_version = {}
    for version, subnets in asked.by_version.items():
        places = {label_value(subnet): place for place, subnet in enumerate(subnets)}
        found = [
            (places[purpose.subnet], name)
            for purpose, name in mine
            if purpose.version == version and purpose.subnet in places
        ]
        by_version[version] = tuple(name for _, name in sorted(found))
    return PoolNames(
        asked.interface, f"SpiderSubnets ({asked.source})", by_version, clean_gateway, subnets=asked.by_version
    )


def is_to_come(pools: Iterable[Pool]) -> bool:
    """Whether none of an interface's pools serves it because the controller has not made it yet, or not filled it."""
    standing = [pool for pool in pools if not pool.edition.terminating]
    return not standing or any(not pool.ips and not pool.problem for pool in standing)


def pending(names: PoolNames, application: Application, whys: Mapping[Version, str]) -> errors.PoolPending:
    """`whys`: what is the matter with the pools of each family that are there; empty when there is none."""
    subnets = {version: names.subnets[version] for version in whys}
    lacking = "; ".join(
        f"no IPv{version} pool with addresses of SpiderSubnet {some_of(subnets[version])} yet ({why or 'none is made'})"
        for version, why in whys.items()
    )
    every = " ".join(dict.fromkeys(name for each in subnets.values() for name in each))
    return errors.PoolPending(
        f"{names.interface} of {application} has {lacking}. What holds it up is told by the events of {application} "
        f"and by the conditions of the subnet: kubectl describe ss {every}",
        application,
        subnets,
    )
