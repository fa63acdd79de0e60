"""A runtime's garbage collection (CNI GC): which attachments of a network this node no longer has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.domain import errors
from allocator.domain.attachments import is_leaked, release_of, too_many

if TYPE_CHECKING:
    from allocator.domain.attachments import Attachments
    from allocator.domain.record import Holder
    from allocator.domain.request import DelRequest, Pod
    from allocator.world import World


async def leaked(attachments: Attachments, world: World) -> tuple[frozenset[DelRequest], tuple[str, ...]]:
    """The releases to make up for, and what could not be found out. Nothing is freed here.

    errors.MassRelease when there are too many to be true.
    """
    of_network = attachments.of_network(world.ledger.known())
    count = len({release_of(record.holder) for record in of_network if record.holder is not None})
    found: set[DelRequest] = set()
    problems: list[str] = []
    pods: dict[tuple[str, str], Pod | None] = {}
    for record in attachments.unlisted(of_network):
        if record.holder is None or _is_seen_alive(record.holder, world):
            continue
        name = record.holder.namespace, record.holder.pod
        try:
            if name not in pods:
                pods[name] = await world.view.read_pod(*name)
        except errors.IpamError as error:
            problems.append(str(error))
            continue
        if is_leaked(record, pods[name], world.clock.now()):
            found.add(release_of(record.holder))
    if too_many(len(found), count):
        raise errors.MassRelease(
            f"{len(found)} of the {count} attachments of network {attachments.network} on this node seem to "
            "be gone at once, so none was freed. If their pods are gone, the controller frees them within a minute; if "
            "they run, the API server does not show them"
        )
    return frozenset(found), tuple(problems)


def _is_seen_alive(holder: Holder, world: World) -> bool:
    """To keep an address the informer's word is enough, however old it is: that costs no read for each running pod."""
    pod = world.view.pod(holder.namespace, holder.pod)
    return pod is not None and pod.uid == holder.pod_uid and pod.alive
