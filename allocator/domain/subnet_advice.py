"""What a new pod is told that asks for addresses of SpiderSubnets, as far as it is certain when the pod is created."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from allocator.domain.annotations import IPPOOL, IPPOOLS
from allocator.domain.candidates import summary
from allocator.domain.filters import Refusal
from allocator.domain.subnet_annotations import IP_NUMBER, RECLAIM, SUBNET, SUBNETS, ip_number, subnets_of_pod

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from allocator.domain.addresses import Version


@dataclass(frozen=True, slots=True)
class KnownSubnet:
    """`version` is None where it is not known."""

    version: Version | None
    is_leaving: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnets:
    """The SpiderSubnets of the cluster by name, and the two switches of conf.yml.

    `find` gives None for one that there is not, and is None where nobody knows which there are.
    """

    find: Callable[[str], KnownSubnet | None] | None = None
    is_on: bool = True
    makes_pools: bool = True


def subnet_warnings(annotations: Mapping[str, str], subnets: Subnets, versions: Collection[Version]) -> Iterator[str]:
    """The annotations are well-formed; errors.Invalid when they are not."""
    key = next((annotation.key for annotation in (SUBNETS, SUBNET) if annotation.key in annotations), "")
    if not key:
        yield from _beside_pools(annotations)
    elif not subnets.is_on:
        yield f"annotation {key} is not looked at: enableSpiderSubnet is false in this cluster"
    elif not subnets.makes_pools:
        yield (
            f"annotation {key} will be refused when the pod asks for its address: "
            "enableAutoPoolForApplication is false in this cluster, so no application gets a pool"
        )
    else:
        yield from _about(key, annotations, subnets, versions)


def _beside_pools(annotations: Mapping[str, str]) -> Iterator[str]:
    pools = next((annotation.key for annotation in (IPPOOLS, IPPOOL) if annotation.key in annotations), "")
    for annotation in (IP_NUMBER, RECLAIM):
        if pools and annotation.key in annotations:
            yield f"annotation {annotation.key} means nothing beside {pools}: no pool is made for this pod"


def _about(key: str, annotations: Mapping[str, str], subnets: Subnets, versions: Collection[Version]) -> Iterator[str]:
    number = ip_number(annotations)
    if number is not None and not number.is_surplus and not number.number:
        yield f'annotation {IP_NUMBER.key} is "0": a pool without addresses serves no pod'
    for asked in subnets_of_pod(annotations):
        for version, names in asked.by_version.items():
            if version not in versions:
                yield (
                    f"annotation {key}: IPv{version} is switched off in this cluster, so this is not looked at: "
                    f"{', '.join(names)}"
                )
            elif refusals := _refusals(names, version, subnets):
                is_any_left = len(refusals) < len(names)
                nobody = (
                    f"no IPv{version} SpiderSubnet of the annotation {key} serves {asked.interface} of this pod now"
                )
                yield f"{f'annotation {key}' if is_any_left else nobody}: {summary(refusals)}"


def _refusals(names: Sequence[str], version: Version, subnets: Subnets) -> list[Refusal]:
    if subnets.find is None:
        return []
    return [Refusal(name, "subnet", why) for name in names if (why := _why_not(subnets.find(name), version))]


def _why_not(subnet: KnownSubnet | None, version: Version) -> str:
    if subnet is None:
        return "there is no SpiderSubnet of this name"
    if subnet.version not in (version, None):
        return f"the subnet is IPv{subnet.version}, listed for IPv{version}"
    return "the subnet is being deleted" if subnet.is_leaving else ""
