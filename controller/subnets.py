"""Lets SpiderSubnets go: the webhook puts our finalizer on them, so that none goes while pools have ranges of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from allocator.kube.cache import Cache
from allocator.kube.errors import ApiError, Conflict, NotFound, Unreachable
from allocator.kube.resources import SPIDER_SUBNETS
from allocator.runtime.logs import get_logger
from controller import marks

if TYPE_CHECKING:
    from collections.abc import Callable

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from allocator.runtime.clock import Clock

_log = get_logger(__name__)

TICK_S: Final = 1.0
# After a refusal.
RETRY_S: Final = 30.0


class Subnets:
    """One term of leadership. Its cache is its own: where nobody installed the kind, everything else goes on."""

    def __init__(self, client: KubeClient, *, may_act: Callable[[], bool], clock: Clock) -> None:
        self._client = client
        self._may_act = may_act
        self._clock = clock
        self.cache = Cache(client, SPIDER_SUBNETS, clock=clock)

    async def run(self) -> None:
        while True:
            done = False
            try:
                done = await self.turn()
            except Exception:  # noqa: BLE001 - the border of the loop
                _log.exception("subnets_turn_failed")
            await self._clock.sleep(TICK_S if done else RETRY_S)

    async def turn(self) -> bool:
        """Whether nothing was refused."""
        going = [raw for raw in self.cache.items() if _may_go(raw)]
        return all([await self._let_go(raw) for raw in going if self._may_act()])

    async def _let_go(self, raw: Object) -> bool:
        try:
            await marks.remove_finalizer(self._client, SPIDER_SUBNETS, raw)
        except (Conflict, NotFound):
            # Changed, or gone: the watch brings it. What a pool took meanwhile keeps it.
            return True
        except (ApiError, Unreachable) as error:
            _log.warning(
                "finalizer_not_removed", kind=SPIDER_SUBNETS.kind, name=raw["metadata"]["name"], why=str(error)
            )
            return False
        return True


def _may_go(raw: Object) -> bool:
    lent = (raw.get("status") or {}).get("controlledIPPools")
    # The original writes no text when no pool is left; an empty one says the same.
    return bool(raw["metadata"].get("deletionTimestamp")) and marks.has_finalizer(raw) and lent in (None, "", "{}")
