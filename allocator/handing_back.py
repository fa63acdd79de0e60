"""Addresses that an ADD got and hands back, because on the wire they turned out to be somebody else's.

The original's plugin asks for this between the agent's answer and its own failure, in the name of a whole sandbox, and
does not say which interface it was after. The pod lives. What may be freed is what the failing ADD was answered, and
nothing more: the sandbox may have other interfaces, and containers that run, when the interface is plugged into a pod
that has been there for long. CNI ADDs of one sandbox come one after the other, so the answer given last is the one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.domain.attachments import release_of
from allocator.domain.record import State, released

if TYPE_CHECKING:
    from allocator.domain.attachments import Sandbox
    from allocator.domain.record import Record
    from allocator.domain.request import DelRequest, Pod
    from allocator.world import World

# The address comes last for so long. It is not locked away: when a gateway was down, nothing is wrong with it.
HANDED_BACK_DELAY: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """What was freed of a living pod, and what of its sandbox is to be released as after DEL because it is gone."""

    pod: Pod | None = None
    freed: tuple[Record, ...] = ()
    releases: frozenset[DelRequest] = frozenset()


async def hand_back(sandbox: Sandbox, answered: str, world: World) -> Handed:
    """Free what the interface `answered` of the sandbox got ("" when no ADD of it can still be under way).

    A pod that is gone needs no such care. errors.Kept for a static pod, errors.Invalid for a pod that is another one,
    holds nothing, or may be using what it holds. errors.Conflict when somebody else wrote in between.
    """
    if not sandbox.namespace or not sandbox.pod:
        return Handed()
    pod = await world.view.read_pod(sandbox.namespace, sandbox.pod)
    uid = sandbox.pod_uid or ("" if pod is None else pod.uid)
    if not uid:
        return Handed()  # which pod it was is the reclaim loop's to find out
    name = f"{sandbox.namespace}/{sandbox.pod}"
    known = world.ledger.own(uid)
    if not known:
        other = pod is not None and not pod.answers_to(uid)
        raise errors.Invalid(f"pod {name} is now another one" if other else f"pod {name} holds no address of this node")
    held = [record for record in known if record.state is State.HELD and _container(record) == sandbox.container_id]
    if pod is None or not pod.answers_to(uid) or pod.is_over:
        return Handed(releases=frozenset(release_of(record.holder) for record in held if record.holder is not None))
    return Handed(pod=pod, freed=await _free(held, answered, pod, world))


async def _free(held: list[Record], answered: str, pod: Pod, world: World) -> tuple[Record, ...]:
    name = f"{pod.namespace}/{pod.name}"
    if any(record.slot is not None for record in held):
        addresses = ", ".join(str(record.address) for record in held)
        raise errors.Kept(
            f"pod {name} keeps {addresses}: the addresses of its workload are static. Find who else uses them "
            "(spiderpoolctl ip show), or give the workload another pool and delete the pod"
        )
    if held and not answered:
        raise errors.Invalid(
            f"pod {name} keeps its addresses: no ADD of this sandbox has just been answered, so it may be using them. "
            "Delete the pod to free them"
        )
    of_interface = [record for record in held if record.holder is not None and record.holder.interface == answered]
    now = world.clock.now()
    return tuple([await world.ledger.replace(released(record, now, HANDED_BACK_DELAY)) for record in of_interface])


def _container(record: Record) -> str:
    return "" if record.holder is None else record.holder.container_id
