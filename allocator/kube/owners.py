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
# Top controllers remembered by the uid of the middleman, which never changes its owner for another pod's sake.
REMEMBERED: Final = 1000


class Owners:
    def __init__(self, client: KubeClient, *, clock: Clock, rng: random.Random) -> None:
        self._client = client
        self._clock = clock
        self._rng = rng
        self._owners: dict[str, Owner] = {}

    async def of(self, pod: Pod) -> Owner:
        """The pod's top controller, or the pod itself. errors.Unavailable: no answer, try later."""
        controller = pod.controller
        if controller is None:
            return Owner("v1", "Pod", pod.name, pod.uid)
        resource = _MIDDLEMEN.get((controller.api_version, controller.kind))
        if resource is None:
            return controller
        if controller.uid not in self._owners:

            async def attempt() -> Object | None:
                try:
                    return await self._client.get(resource, controller.name, namespace=pod.namespace)
                except NotFound:
                    return None

            what = f"read {resource.kind} {controller.name}"
            raw = await patiently(what, attempt, clock=self._clock, rng=self._rng)
            top = None if raw is None else decode_controller(raw)
            if len(self._owners) >= REMEMBERED:
                self._owners.clear()
            self._owners[controller.uid] = top or controller
        return self._owners[controller.uid]
