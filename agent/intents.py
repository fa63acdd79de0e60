"""DELs that the plugin could not deliver while the agent was away: kept as files, carried out as soon as it is back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from agent import bodies
from allocator.domain import errors
from allocator.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from allocator.domain.request import DelRequest
    from allocator.runtime.clock import Clock

_log = get_logger(__name__)

# The plugin keeps an intent as well when the agent answered a DEL with an error: look again now and then.
REPLAY_EVERY_S: Final = 10.0
REPLAY_DEADLINE_S: Final = 30.0


class Intents:
    """The files of one folder, each the body of a `DELETE /v1/ipam/ip` (the plugin writes them, see cni/intents.py)."""

    def __init__(self, folder: Path, release: Callable[[DelRequest], Awaitable[object]], clock: Clock) -> None:
        self._folder = folder
        self._release = release
        self._clock = clock

    async def run(self) -> None:
        while True:
            await self.replay()
            await self._clock.sleep(REPLAY_EVERY_S)

    async def replay(self) -> None:
        """Carry out every intent once. What fails stays for the next time; what cannot be read goes.

        In any order, and however late: each speaks of one sandbox, so it never meets the addresses of a newer one, and
        a pod that lives keeps its own. Then there is nothing to do later either: a sandbox that replaces this one gets
        a DEL of its own, and when none does, reclaim finds the pod gone.
        """
        for path in await asyncio.to_thread(lambda: sorted(self._folder.glob("*.json"))):
            try:
                await self._carry_out(path)
            except (errors.IpamError, OSError) as error:
                _log.warning("intent_kept", file=path.name, why=str(error))
            except Exception:  # noqa: BLE001 - the border of the loop: one intent must not end the agent
                _log.exception("intent_failed", file=path.name)

    async def _carry_out(self, path: Path) -> None:
        try:
            request = bodies.read(bodies.IpamDelArgs, await asyncio.to_thread(path.read_bytes)).request()
        except bodies.BadRequest as error:
            # A torn file of a node that lost power. The pod is gone with the power: reclaim frees its address.
            _log.warning("intent_unreadable", file=path.name, why=str(error))
        else:
            await self._release(request)
            _log.info("intent_done", pod=f"{request.namespace}/{request.pod}", container=request.interface.container_id)
        await asyncio.to_thread(path.unlink, missing_ok=True)
