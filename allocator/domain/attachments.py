"""Attachments of a CNI network: which of this node's records a runtime's garbage collection may free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain.reclaim import Act, NodeState, Rules, Sighting, judge
from allocator.domain.record import State
from allocator.domain.request import DelRequest, Interface

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from allocator.domain.record import Holder, Record
    from allocator.domain.request import Pod

# A node loses a handful of DELs between two collections. More, and more than a tenth of what the network has here (a
# full node has 110 pods), is rather an API server that shows no pods: then the controller's reclaim decides, which
# looks twice and sees the whole cluster.
BRAKE_COUNT: Final = 5
BRAKE_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """One sandbox of a pod, with all its interfaces. `pod_uid` is empty when an old runtime does not pass it."""

    namespace: str
    pod: str
    pod_uid: str
    container_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachments:
    """What the runtime knows of a network: container ID and interface of each attachment that stands."""

    network: str
    valid: frozenset[tuple[str, str]]

    def of_network(self, records: Iterable[Record]) -> list[Record]:
        """The records of this network; none for a network without a name, which would be everybody's."""
        return [
            record
            for record in records
            if record.state is State.HELD and record.holder is not None
            if self.network and record.holder.network == self.network
        ]

    def unlisted(self, records: Iterable[Record]) -> list[Record]:
        """Those of the records that the runtime does not know."""
        return [
            record
            for record in records
            if record.holder is not None and (record.holder.container_id, record.holder.interface) not in self.valid
        ]


def release_of(holder: Holder) -> DelRequest:
    """The DEL that the runtime owes for this attachment."""
    return DelRequest(
        namespace=holder.namespace,
        pod=holder.pod,
        pod_uid=holder.pod_uid,
        interface=Interface(container_id=holder.container_id, name=holder.interface),
    )


def is_leaked(record: Record, pod: Pod | None, now: datetime) -> bool:
    """Whether nobody can be using the address of an unlisted record; `pod` is whoever has the holder's name now.

    The list was made before this look. Of a pod that was attached since it knows nothing, and a pod that is only being
    deleted still runs: so what counts is what reclaim counts, that the pod is gone. Two that share an address are
    reclaim's to tell apart.
    """
    if record.peer is not None:
        return False
    sighting = Sighting(record=record, pod=pod, node=NodeState.READY)
    return judge(sighting, Rules(), now).act is Act.RELEASE


def too_many(leaked: int, of: int) -> bool:
    """Whether so many of the network's records here cannot be gone at once."""
    return leaked > max(BRAKE_COUNT, BRAKE_SHARE * of)
