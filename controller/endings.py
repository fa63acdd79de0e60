"""How long this leader has watched each terminating pod: the second clock by which a pod's grace must be over."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from allocator.domain.reclaim import Ending

if TYPE_CHECKING:
    from allocator.kube.resources import Object
    from allocator.runtime.clock import Clock

# Kubernetes' own default, where the API server gave none.
GRACE_S: Final = 30


class Endings:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first_seen: dict[str, tuple[str, float]] = {}

    def see(self, pod: Object) -> Ending | None:
        """The pod's deletion as of now; None when it is not being deleted. A moved deletionTimestamp starts again."""
        meta = pod["metadata"]
        deleted_at = meta.get("deletionTimestamp")
        if deleted_at is None:
            return None
        now = self._clock.monotonic()
        known = self._first_seen.get(meta["uid"])
        if known is None or known[0] != deleted_at:
            known = self._first_seen[meta["uid"]] = (deleted_at, now)
        grace_s = meta.get("deletionGracePeriodSeconds", GRACE_S)
        return Ending(grace=timedelta(seconds=grace_s), watched=timedelta(seconds=now - known[1]))

    def forget(self, pod_uid: str) -> None:
        self._first_seen.pop(pod_uid, None)
