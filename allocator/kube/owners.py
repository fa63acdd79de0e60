"""Who stands behind a pod: the Deployment of its ReplicaSet, the CronJob of its Job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from allocator.domain.request import Owner
from allocator.kube.codec import decode_controller
from allocator.kube.errors import NotFound
from allocator.kube.patience import patiently
from allocator.kube.resources import JOBS, REPLICA_SETS

if TYPE_CHECKING:
    import random

    from allocator.domain.request import Pod
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from allocator.runtime.clock import Clock

# Controllers that another controller may stand behind.
_MIDDLEMEN: Final = {("apps/v1", "ReplicaSet"): REPLICA_SETS, ("batch/v1", "Job"): JOBS}
# Top controllers remembered by the uid of the middleman. Not for long: a Deployment that is made again takes up the
# ReplicaSets that the one before has left.
REMEMBERED: Final = 1000
REMEMBERED_S: Final = 30.0


class Owners:
    def __init__(self, client: KubeClient, *, clock: Clock, rng: random.Random) -> None:
        self._client = client
        self._clock = clock
        self._rng = rng
        self._owners: dict[str, tuple[Owner, float]] = {}

    async def of(self, pod: Pod) -> Owner:
        """The pod's top controller, or the pod itself. errors.Unavailable: no answer, try later."""
        controller = pod.controller
        if controller is None:
            return Owner("v1", "Pod", pod.name, pod.uid)
        resource = _MIDDLEMEN.get((controller.api_version, controller.kind))
        if resource is None:
            return controller
        now = self._clock.monotonic()
        known = self._owners.get(controller.uid)
        if known is None or now - known[1] > REMEMBERED_S:

            async def attempt() -> Object | None:
                try:
                    return await self._client.get(resource, controller.name, namespace=pod.namespace)
                except NotFound:
                    return None

            what = f"read {resource.kind} {controller.name}"
            raw = await patiently(what, attempt, clock=self._clock, rng=self._rng)
            top = None if raw is None else decode_controller(raw)
            if raw is None:
                return controller
            if len(self._owners) >= REMEMBERED:
                self._owners.clear()
            known = top or controller, now
            self._owners[controller.uid] = known
        return known[0]
