"""How many addresses of a pool are free, as the controller last wrote it; for questions, not for decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from allocator.kube.errors import ApiError, Unreachable
from allocator.kube.resources import SPIDER_IP_POOLS

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from allocator.runtime.clock import Clock

# The projection is as much as 5 s behind anyhow.
FRESH_S: Final = 5.0
# The table has the counts only; the pool itself may carry 5,000 records as text.
AS_TABLE: Final = "application/json;as=Table;v=v1;g=meta.k8s.io"
COLUMN: Final = "FREE"


class FreeCounts:
    def __init__(self, client: KubeClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._known: dict[str, tuple[float, int | None]] = {}

    async def of(self, pool: str) -> int | None:
        """None when there is no such pool, or nobody has counted, or it cannot be read now."""
        at, count = self._known.get(pool, (float("-inf"), None))
        if self._clock.monotonic() - at >= FRESH_S:
            count = await self._read(pool)
            self._known[pool] = self._clock.monotonic(), count
        return count

    async def _read(self, pool: str) -> int | None:
        path, params = SPIDER_IP_POOLS.path(None, pool), {"includeObject": "None"}
        try:
            table = await self._client.raw("GET", path, params=params, accept=AS_TABLE)
        except (ApiError, Unreachable):
            return None
        columns = [column["name"].upper() for column in table["columnDefinitions"]]
        (row,) = table["rows"]
        return dict(zip(columns, row["cells"], strict=True)).get(COLUMN)
