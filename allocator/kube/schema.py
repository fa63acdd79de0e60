"""Does the API server keep everything that a record says? An older definition of SpiderIPAddress drops, without a word,
the fields that it does not know; then holders look dead, or slots and peers are forgotten, and addresses of the living
are given away. Asked once at start, with a record that has every field and is never stored (dry run).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Final

from allocator.domain.record import Holder, Record, Slot, State
from allocator.kube.codec import encode_record
from allocator.kube.errors import AlreadyExists, ApiError, Unreachable
from allocator.kube.resources import SPIDER_IP_ADDRESSES
from allocator.runtime import backoff, logs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from allocator.kube.client import KubeClient
    from allocator.runtime.clock import Clock

log = logs.get_logger(__name__)

_SOMEBODY: Final = Holder(
    namespace="none", pod="none", pod_uid="none", interface="none", node="none", container_id="none", network="none"
)
# No pool has this address. Held is the state that may have every other field.
EVERY_FIELD: Final = Record(
    address=IPv4Address("0.0.0.0"),  # noqa: S104 - nobody listens there
    pool="none",
    state=State.HELD,
    holder=_SOMEBODY,
    peer=replace(_SOMEBODY, pod="another"),
    slot=Slot(api_version="none", kind="None", namespace="none", name="none", ordinal=0),
    since=datetime(2026, 1, 1, tzinfo=UTC),
    until=datetime(2026, 1, 1, tzinfo=UTC),
)


class Schema:
    """`problem` is what keeps `fits` from returning, None once it has."""

    def __init__(self, client: KubeClient, *, clock: Clock, rng: backoff.Random) -> None:
        self._client = client
        self._clock = clock
        self._rng = rng
        self.problem: str | None = "the definition of SpiderIPAddress has not been checked yet"

    async def fits(self) -> None:
        """Returns when the API server keeps every field; until then it says what is wrong, and asks again."""
        for delay in backoff.delays(base_s=0.5, cap_s=5.0, rng=self._rng):
            before, self.problem = self.problem, await self._ask()
            if self.problem is None:
                return
            if self.problem != before:
                log.error("schema_check_failed", why=self.problem)
            await self._clock.sleep(delay)

    async def _ask(self) -> str | None:
        meant = encode_record(EVERY_FIELD)
        try:
            kept = await self._client.create(SPIDER_IP_ADDRESSES, meant, dry_run=True)
        except AlreadyExists:
            return None  # somebody has made this very address: then they know what they do
        except (ApiError, Unreachable) as error:
            return f"whether the definition of SpiderIPAddress fits cannot be found out: {error}"
        lost = sorted(_lost(meant["spec"], kept.get("spec") or {}, "spec"))
        if not lost:
            return None
        return f"the definition of SpiderIPAddress drops {', '.join(lost)}: apply manifests/crds of this version"


def _lost(meant: Mapping[str, Any], kept: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in meant.items():
        where = f"{path}.{key}"
        if key not in kept:
            yield where
        elif isinstance(value, dict):
            yield from _lost(value, kept[key], where)
