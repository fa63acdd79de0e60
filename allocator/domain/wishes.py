"""What a pod's annotations ask for beside addresses: routes and name servers of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.domain.dns import NO_DNS, PodDns, dns_of_pod
from allocator.domain.endpoint import recorded
from allocator.domain.routes import routes_of_pod, spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from allocator.domain.endpoint import Assigned
    from allocator.domain.pool import Pool, Route
    from allocator.domain.record import Record


@dataclass(frozen=True, slots=True)
class Wishes:
    routes: tuple[Route, ...] = ()
    dns: PodDns = NO_DNS

    def granted(self, assigned: Iterable[Assigned], *, complete: bool) -> tuple[Assigned, ...]:
        """All that the pod holds, with its routes and name servers.

        `complete`: no other interface of the pod can come; then a route without a place is errors.Invalid.
        """
        return tuple(replace(each, dns=self.dns) for each in spread(self.routes, assigned, complete=complete))


NO_WISHES: Final = Wishes()


def holdings(
    annotations: Mapping[str, str], records: Iterable[Record], pools: Mapping[str, Pool]
) -> tuple[Assigned, ...]:
    """What its records give the pod, as its endpoint shows it. Annotations that have become wrong ask for nothing."""
    try:
        wishes = wishes_of_pod(annotations)
    except errors.Invalid:
        wishes = NO_WISHES
    return wishes.granted(recorded(records, pools), complete=False)


def wishes_of_pod(annotations: Mapping[str, str]) -> Wishes:
    """errors.Invalid with the place and a right example when an annotation is malformed."""
    return Wishes(routes_of_pod(annotations), dns_of_pod(annotations))
