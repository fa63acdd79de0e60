"""The API server's own opinion of an object, no webhook asked: what its CRD refuses, and in which words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from allocator.kube import errors
from allocator.kube.resources import SPIDER_ENDPOINTS, SPIDER_IP_POOLS, SPIDER_RESERVED_IPS, SPIDER_SUBNETS

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object

RESOURCES = {
    resource.kind: resource for resource in (SPIDER_ENDPOINTS, SPIDER_IP_POOLS, SPIDER_RESERVED_IPS, SPIDER_SUBNETS)
}


# The field of the remark that some faults of form keep the API server from looking at the rules.
UNJUDGED = "<nil>"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Every cause that the API server named, as (field, reason, message)."""

    causes: tuple[tuple[str, str, str], ...] = ()

    @property
    def fields(self) -> list[str]:
        return sorted({field for field, _, _ in self.causes})

    @property
    def text(self) -> str:
        return "\n".join(f"{field}: {reason}: {message}" for field, reason, message in self.causes)


async def refusal(kube: KubeClient, obj: Object) -> Refusal:
    """What a create of the object is refused for; nothing is stored."""
    resource = RESOURCES[obj["kind"]]
    place: dict[str, Any] = {"namespace": "default"} if resource.namespaced else {}
    try:
        await kube.create(resource, obj, dry_run=True, **place)
    except errors.Invalid as error:
        causes = (error.details or {})["causes"]
        return Refusal(
            tuple((cause["field"], cause["reason"], cause["message"]) for cause in causes if cause["field"] != UNJUDGED)
        )
    return Refusal()
