"""A runtime's garbage collection (CNI GC): which attachments of a network this node no longer has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.domain import errors
from allocator.domain.attachments import is_leaked, release_of, too_many

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from allocator.domain.attachments import Attachments
    from allocator.domain.record import Holder
    from allocator.domain.request import DelRequest, Pod
    from allocator.world import World


async def collect(attachments: Attachments, world: World, release: Callable[[DelRequest], Awaitable[None]]) -> None:
    """Carry out the releases that were missed. All are tried; errors.Unavailable names those that failed.

    errors.MassRelease when there are too many to be true: then none is.
    """
    releases, problems = await _missed(attachments, world)
    for request in releases:
        try:
            await release(request)
        except errors.IpamError as error:
            problems.append(str(error))
    if problems:
        raise errors.Unavailable(f"not everything could be collected; the next try may: {'; '.join(problems)}")


async def _missed(attachments: Attachments, world: World) -> tuple[set[DelRequest], list[str]]:
    """The releases to make up for, and what could not be found out."""
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
    return found, problems


def _is_seen_alive(holder: Holder, world: World) -> bool:
    """To keep an address the informer's word is enough, however old it is: that costs no read for each running pod."""
    pod = world.view.pod(holder.namespace, holder.pod)
    return pod is not None and pod.uid == holder.pod_uid and pod.alive
