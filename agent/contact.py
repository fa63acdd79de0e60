"""Whether the API server is within reach: a cheap question while nothing else is heard of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from allocator.kube.errors import ApiError, NotFound, Unreachable
from allocator.kube.resources import NODES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocator.kube.cache import Cache
    from allocator.kube.client import KubeClient
    from allocator.runtime.clock import Clock

# Watches of a quiet node tell something about once a minute only. Three questions without an answer are an outage;
# one may be a packet.
ASK_EVERY_S: Final = 10.0
ANSWER_WITHIN_S: Final = 5.0
SILENCE_S: Final = 30.0
# One watch of several: API servers send a bookmark about once a minute, a silent connection is given up after 90 s,
# and then there is a pause and a list.
STALE_S: Final = 150.0


class Contact:
    """`run` asks for this agent's own node, which takes credentials and the storage behind the API server."""

    def __init__(self, client: KubeClient, node: str, caches: Sequence[Cache], clock: Clock) -> None:
        self._client = client
        self._node = node
        self._caches = caches
        self._clock = clock
        self._heard = clock.monotonic()
        self._why = ""

    async def run(self) -> None:
        while True:
            await self._clock.sleep(ASK_EVERY_S)
            if min(cache.staleness_s() for cache in self._caches) >= ASK_EVERY_S:
                await self._ask()

    def problem(self) -> str | None:
        """Why the agent cannot go by what it knows of the cluster, or None."""
        ages = [cache.staleness_s() for cache in self._caches]
        silence = min(*ages, self._clock.monotonic() - self._heard)
        if silence > SILENCE_S:
            return f"the API server has not answered for {silence:.0f} s: {self._why or 'no connection'}"
        if max(ages) > STALE_S:
            return f"a watch of the API server has told nothing for {max(ages):.0f} s; the agent's log says which"
        return None

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._client.get(NODES, self._node, metadata_only=True)
        except NotFound:
            pass  # it answers, which is all that was asked
        except TimeoutError:
            self._why = f"no answer within {ANSWER_WITHIN_S:.0f} s"
            return
        except (ApiError, Unreachable) as error:
            self._why = str(error)
            return
        self._heard = self._clock.monotonic()
