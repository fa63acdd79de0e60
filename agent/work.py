"""What the agent does for a request, apart from HTTP: order, events, and whether it is fit to answer."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from agent.order import Turns
    from allocator.domain.endpoint import Assigned
    from allocator.domain.request import AddRequest, DelRequest, Pod
    from allocator.kube.cache import Cache
    from allocator.kube.cluster import NodeView
    from allocator.kube.events import Recorder
    from allocator.service import Allocator

_log = get_logger(__name__)

# API servers send a bookmark about once a minute; a watch that is silent for longer may be half open.
STALE_S: Final = 150.0


class Work:
    def __init__(
        self, allocator: Allocator, view: NodeView, caches: Sequence[Cache], recorder: Recorder, turns: Turns
    ) -> None:
        self._allocator = allocator
        self._view = view
        self._caches = caches
        self._recorder = recorder
        self._turns = turns

    async def add(self, request: AddRequest, *, within_s: float) -> tuple[Assigned, ...]:
        """The interface's addresses. A refusal is told to the pod as an event as well."""
        try:
            async with _deadline(within_s), self._turns.of(_key(request)):
                assigned = await self._allocator.allocate(request)
        except errors.IpamError as error:
            self._tell(request, error)
            raise
        addresses = ", ".join(each.with_prefix for each in assigned)
        _log.info("addresses_assigned", addresses=addresses, pools=", ".join(each.pool for each in assigned))
        return assigned

    async def delete(self, request: DelRequest, *, within_s: float) -> None:
        async with _deadline(within_s), self._turns.of(_key(request)):
            for record in await self._allocator.release(request):
                _log.info("address_given_back", address=str(record.address), pool=record.pool, state=record.state)

    async def endpoint(self, namespace: str, name: str) -> tuple[Pod, tuple[Assigned, ...]] | None:
        """The pod and what its interfaces hold by the ledger; None when it is not on this node or holds nothing."""
        pod = self._view.pod(namespace, name)
        assigned = await self._allocator.held_by(pod) if pod is not None else ()
        return (pod, assigned) if pod is not None and assigned else None

    @property
    def started(self) -> bool:
        return all(cache.synced for cache in self._caches)

    def problem(self) -> str | None:
        """Why the agent should not be asked now, or None."""
        if not self.started:
            return "the caches are not filled yet"
        stale = max(cache.staleness_s() for cache in self._caches)
        return f"nothing heard of the API server for {stale:.0f} s" if stale > STALE_S else None

    def _tell(self, request: AddRequest, error: errors.IpamError) -> None:
        if not request.pod or not request.namespace:
            return  # there is nobody to tell
        regarding = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": request.namespace, "name": request.pod, "uid": request.pod_uid},
        }
        self._recorder.emit(
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


def _key(request: AddRequest | DelRequest) -> str:
    # By name when an old runtime gives no UID: then two pods of one name take turns, which harms nobody.
    return request.pod_uid or f"{request.namespace}/{request.pod}"
