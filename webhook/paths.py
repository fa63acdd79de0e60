"""Which path judges which kind: what the server serves and the registrations name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from allocator.kube.resources import PODS, SPIDER_ENDPOINTS, SPIDER_IP_POOLS, SPIDER_RESERVED_IPS, SPIDER_SUBNETS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from allocator.kube.resources import Resource
    from webhook.review import Request, Verdict

Side: TypeAlias = Literal["mutate", "validate"]

CUSTOM: Final = (SPIDER_SUBNETS, SPIDER_IP_POOLS, SPIDER_RESERVED_IPS, SPIDER_ENDPOINTS)


@dataclass(frozen=True, slots=True)
class Judge:
    """Who answers on a path. `answer` may raise what means "cannot judge now" (see server.py)."""

    resource: Resource
    side: Side
    answer: Callable[[Request], Awaitable[Verdict]]

    @property
    def path(self) -> str:
        return path_of(self.resource, self.side)

    @property
    def timeout_s(self) -> int:
        return timeout_s_of(self.resource)


def path_of(resource: Resource, side: Side) -> str:
    """In the form of the original: `/mutate-spiderpool-spidernet-io-v2beta1-spiderippool`, `/mutate--v1-pod`."""
    return f"/{side}-{resource.group.replace('.', '-')}-{resource.version}-{resource.kind.lower()}"


def timeout_s_of(resource: Resource) -> int:
    """How long the API server waits: a person for kubectl, a pod for nothing that cannot be done later."""
    return 1 if resource == PODS else 2
