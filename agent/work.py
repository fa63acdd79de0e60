"""What the agent does for a request, apart from HTTP: order, events, and whether it is fit to answer."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator import collecting
from allocator.domain import errors
from allocator.domain.slots import public_name
from allocator.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from agent.api import Detection
    from agent.order import Turns
    from agent.recent import Recent
    from agent.status import Status
    from allocator.domain.addresses import Version
    from allocator.domain.attachments import Attachments, Sandbox
    from allocator.domain.endpoint import Assigned
    from allocator.domain.record import Record
    from allocator.domain.request import AddRequest, DelRequest, Pod
    from allocator.kube.events import Recorder
    from allocator.service import Allocator
    from allocator.world import World

_log = get_logger(__name__)

HAND_BACK_SWITCH: Final = "SPIDERPOOL_ENABLED_RELEASE_CONFLICT_IPS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`hands_back`: whether an ADD may hand back what it got, the operator's switch."""

    allocator: Allocator
    world: World
    recorder: Recorder
    status: Status
    turns: Turns
    recent: Recent
    hands_back: bool = True
    detection: Detection

    async def add(self, request: AddRequest, *, within_s: float) -> tuple[Assigned, ...]:
        """The interface's addresses. A refusal is told to the pod as an event as well."""
        deadline = self.world.clock.monotonic() + within_s
        try:
            async with _deadline(within_s), self.turns.of(_key(request)):
                assigned = await self.allocator.allocate(request, deadline=deadline)
                self.recent.note(request)
        except errors.IpamError as error:
            self._tell(request, error)
            if request.pod:
                error.name_pod(f"{request.namespace}/{request.pod}")
            raise
        addresses = ", ".join(each.with_prefix for each in assigned)
        _log.info("addresses_assigned", addresses=addresses, pools=", ".join(each.pool for each in assigned))
        return assigned

    async def delete(self, request: DelRequest, *, within_s: float) -> None:
        async with _deadline(within_s):
            await self._release(request)

    async def _release(self, request: DelRequest) -> None:
        async with self.turns.of(_key(request)):
            _tell_released(await self.allocator.release(request))

    async def hand_back(self, sandbox: Sandbox, *, within_s: float) -> None:
        """Free what the last ADD of the sandbox got, because its plugin has found that others use it."""
        if not self.hands_back:
            raise errors.SwitchedOff(f"{HAND_BACK_SWITCH} is false: the addresses stay with pod {sandbox.pod}")
        async with _deadline(within_s), self.turns.of(_key(sandbox)):
            _tell_released(await self.allocator.hand_back(sandbox, self.recent.interface(sandbox)))

    async def collect(self, attachments: Attachments, *, within_s: float) -> None:
        """Release what of the network's attachments here is gone."""
        async with _deadline(within_s):
            await collecting.collect(attachments, self.world, self._release)

    async def check_status(self, listed: Mapping[Version, tuple[str, ...]], *, within_s: float) -> None:
        """errors.NotServing when an ADD of a network with these default pools could not be served now."""
        try:
            async with _deadline(within_s):
                await self.status.check(listed)
        except (errors.Unavailable, errors.DeadlineExceeded) as error:
            raise errors.NotServing(str(error)) from error

    async def endpoint(self, namespace: str, name: str, *, within_s: float) -> tuple[Pod, tuple[Assigned, ...]] | None:
        """The pod and what its interfaces hold by the ledger; None when it is not on this node or holds nothing."""
        pod = self.world.view.pod(namespace, name) or self._pod_of_machine(namespace, name)
        async with _deadline(within_s):
            assigned = await self.allocator.held_by(pod) if pod is not None else ()
        return (pod, assigned) if pod is not None and assigned else None

    def _pod_of_machine(self, namespace: str, name: str) -> Pod | None:
        """A virtual machine is known by its own name, whatever the pod is called that it runs in."""
        for record in self.world.ledger.known():
            for party in record.parties:
                if (party.namespace, public_name(party.pod, record.slot)) == (namespace, name):
                    pod = self.world.view.pod(namespace, party.pod)
                    if pod is not None and pod.uid == party.pod_uid and pod.alive:
                        return pod
        return None

    def _tell(self, request: AddRequest, error: errors.IpamError) -> None:
        if not request.pod or not request.namespace:
            return  # there is nobody to tell
        regarding = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": request.namespace, "name": request.pod, "uid": request.pod_uid},
        }
        self.recorder.emit(
            regarding=regarding, reason=error.reason, message=str(error), type="Warning", action="AllocateAddress"
        )


@asynccontextmanager
async def _deadline(within_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(within_s):
            yield
    except TimeoutError:
        raise errors.DeadlineExceeded(
            f"not done within {within_s:.0f} s: the API server is slow, or others keep changing the same objects; "
            "the runtime tries again, and the agent's log at level debug says what it waited for"
        ) from None


def _tell_released(records: Iterable[Record]) -> None:
    for record in records:
        _log.info("address_given_back", address=str(record.address), pool=record.pool, state=record.state)


def _key(request: AddRequest | DelRequest | Sandbox) -> str:
    # By name, since an old runtime gives no UID: two ADDs of one pod must not meet, whatever each says of it. That two
    # pods of one name take turns harms nobody.
    return f"{request.namespace}/{request.pod}" if request.pod else request.pod_uid
