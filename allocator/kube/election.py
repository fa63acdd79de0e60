"""Leader election by a Lease, as client-go does it: only one replica acts, and it knows when it may no longer.

Nobody's wall clock is compared with anybody else's. A candidate measures on its own monotonic clock how long the
lease has stood still; the leader measures how long ago it *asked for* its last renewal that succeeded. As long as
`renew_deadline_s` is well below `lease_duration_s`, the old leader has stopped before a new one starts.
"""

import asyncio
import math
import random
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime

from allocator.kube.client import KubeClient
from allocator.kube.errors import AlreadyExists, ApiError, Conflict, NotFound, Unreachable
from allocator.kube.resources import LEASES, Object
from allocator.kube.view import Change
from allocator.runtime import logs
from allocator.runtime.clock import Clock

log = logs.get_logger(__name__)

RELEASE_S = 3.0  # a shutdown waits no longer to hand the lease over; without that it runs out by itself
JITTER = 1.2  # client-go's: candidates look every 1 to 2.2 retry periods


class _Lost(Exception):
    """The lease is not ours any more, or we can no longer tell in time."""


class Election:
    """`identity` names the replica in the lease. A suffix makes it unique, so that a replica that was started twice
    under one name does not take its twin for itself; a restarted process waits for its own old lease to run out.

    ValueError unless retry_period_s < renew_deadline_s < lease_duration_s.
    """

    def __init__(  # noqa: PLR0913 - client-go's settings
        self,
        client: KubeClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        clock: Clock,
        lease_duration_s: float = 15,
        renew_deadline_s: float = 10,
        retry_period_s: float = 2,
    ) -> None:
        if not 0 < retry_period_s < renew_deadline_s < lease_duration_s:
            raise ValueError(
                "an election needs retry period < renew deadline < lease duration, not "
                f"{retry_period_s} < {renew_deadline_s} < {lease_duration_s} s"
            )
        self._client = client
        self._namespace = namespace
        self._name = name
        self._clock = clock
        self._lease_duration_s = lease_duration_s
        self._renew_deadline_s = renew_deadline_s
        self._retry_period_s = retry_period_s
        self._jitter = random.SystemRandom()
        self.identity = f"{identity}_{uuid.uuid4()}"
        self._seen: Object | None = None  # the lease, as it came last
        self._is_fresh = False  # nothing has happened since that could have changed it
        self._unchanged_since = 0.0
        self._may_hold = False  # we have tried to write it, with whatever outcome
        self._renewed_at: float | None = None  # None: we do not lead
        self._taken = asyncio.Event()

    @property
    def holder(self) -> str:
        """Who leads, as last seen; "" when nobody does or nothing was seen yet."""
        return _holder(self._seen)

    def is_valid(self) -> bool:
        """True only while less than the renew deadline has passed since the last successful renewal was asked for.
        To be asked right before every write that only a leader may do: a paused process resumes without noticing.
        """
        return self._renewed_at is not None and self._age() < self._renew_deadline_s

    def hear(self, change: Change) -> None:
        """What a watch on the lease, begun in this term, shows. In other hands, or deleted, it is lost at once; without
        this the next renewal would notice, seconds later.
        """
        if self._renewed_at is not None and _holder(change.new) != self.identity:
            self._renewed_at = None
            log.warning("leader_lost", lease=self._name, holder=_holder(change.new))
            self._taken.set()

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Acquire the lease and run `lead()` while it is renewed, again and again until cancelled.

        Returns when `lead` returns, raises what it raises; in both cases, and on cancellation, the lease is released
        first. When the lease is lost, `lead` is cancelled and has ended before the lease is tried for again.
        """
        try:
            while True:
                await self._acquire()
                log.info("leader_elected", lease=self._name, identity=self.identity)
                if await self._lead(lead):
                    return
        finally:
            await self._release()

    async def _acquire(self) -> None:
        while not await self._tried(self._try_acquire):
            await self._clock.sleep(self._retry_period_s * self._jitter.uniform(1.0, 1.0 + JITTER))

    async def _lead(self, lead: Callable[[], Awaitable[None]]) -> bool:
        """True when `lead` returned, False when the lease was lost."""
        self._taken.clear()
        failure: list[Exception] = []

        async def work() -> None:
            try:
                await lead()
            except Exception as error:  # noqa: BLE001 - carried out of the group, raised below as it was
                failure.append(error)

        async with asyncio.TaskGroup() as group:
            working = group.create_task(work(), name="lead")
            keeping = group.create_task(self._keep(), name="keep-lease")
            working.add_done_callback(lambda _: keeping.cancel())
            # Not when everything is being cancelled: a second time would interrupt what `lead` does to clean up.
            keeping.add_done_callback(lambda kept: kept.cancelled() or working.cancel())
        if failure:
            raise failure[0]
        return keeping.cancelled()

    async def _keep(self) -> None:
        """Renew until the lease is lost or overdue, then return."""
        async with asyncio.TaskGroup() as group:
            # The deadline stands apart from the renewal, which may hang in a call just then.
            ends = [
                group.create_task(self._renew(), name="renew-lease"),
                group.create_task(self._wait_until_overdue(), name="lease-deadline"),
                group.create_task(self._taken.wait(), name="lease-taken"),
            ]
            for end in ends:
                end.add_done_callback(lambda _: [each.cancel() for each in ends])
        self._renewed_at = None

    async def _renew(self) -> None:
        while True:
            await self._clock.sleep(self._retry_period_s)
            try:
                await self._tried(self._try_renew)
            except _Lost:
                log.warning("leader_lost", lease=self._name, holder=self.holder)
                return

    async def _wait_until_overdue(self) -> None:
        while self.is_valid():
            await self._clock.sleep(self._renew_deadline_s - self._age())
        log.warning("leader_overdue", lease=self._name, deadline_s=self._renew_deadline_s)

    async def _tried(self, attempt: Callable[[], Awaitable[bool]]) -> bool:
        """Make one attempt; False for whatever another attempt may get over."""
        try:
            return await attempt()
        except (ApiError, Unreachable) as error:
            self._is_fresh = False
            # Conflict: somebody was faster, or our own write had landed; the next attempt reads first.
            if not isinstance(error, Conflict | AlreadyExists):
                log.warning("lease_failed", lease=self._name, error=str(error))
            return False

    async def _try_acquire(self) -> bool:
        asked_at = self._clock.monotonic()
        lease = await self._read()
        if lease is not None and _holder(lease) not in ("", self.identity) and not self._has_run_out(lease):
            return False
        self._may_hold = True
        if lease is None:
            meta = {"name": self._name, "namespace": self._namespace}
            lease = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": meta}
            self._observe(await self._client.create(LEASES, {**lease, "spec": self._held_spec(lease)}))
        else:
            await self._write(lease, self._held_spec(lease))
        self._renewed_at = asked_at
        return True

    async def _try_renew(self) -> bool:
        asked_at = self._clock.monotonic()
        # The write goes out without a read as long as nobody interferes: the resourceVersion is the proof.
        lease = self._seen if self._is_fresh else await self._read()
        if lease is None or _holder(lease) != self.identity:
            raise _Lost
        await self._write(lease, self._held_spec(lease))
        if self._taken.is_set():
            raise _Lost
        self._renewed_at = asked_at
        return True

    async def _release(self) -> None:
        self._renewed_at = None
        if not self._may_hold:
            return
        try:
            async with asyncio.timeout(RELEASE_S):
                lease = await self._read()  # an acquisition that was cancelled half-way may have landed
                if lease is None or _holder(lease) != self.identity:
                    return
                now = _micro_time(self._clock.now())
                spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": now, "renewTime": now}
                await self._write(lease, spec)
        except (ApiError, Unreachable, TimeoutError) as error:
            log.info("lease_not_released", lease=self._name, error=str(error))
        else:
            log.info("lease_released", lease=self._name)

    async def _read(self) -> Object | None:
        try:
            lease = await self._client.get(LEASES, self._name, namespace=self._namespace)
        except NotFound:
            self._seen = None
            return None
        self._observe(lease)
        return lease

    async def _write(self, lease: Object, spec: Object) -> None:
        self._observe(await self._client.replace(LEASES, {**lease, "spec": {**_spec(lease), **spec}}))

    def _observe(self, lease: Object) -> None:
        if self._seen is None or _version(lease) != _version(self._seen):
            self._unchanged_since = self._clock.monotonic()
        self._seen = lease
        self._is_fresh = True

    def _has_run_out(self, lease: Object) -> bool:
        promised_s = _spec(lease).get("leaseDurationSeconds") or self._lease_duration_s
        return self._clock.monotonic() - self._unchanged_since > float(promised_s)

    def _held_spec(self, lease: Object) -> Object:
        """The spec that makes the lease ours, or keeps it so."""
        now = _micro_time(self._clock.now())
        spec: Object = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": math.ceil(self._lease_duration_s),
            "renewTime": now,
        }
        if _holder(lease) != self.identity:
            old = _spec(lease)
            spec["acquireTime"] = now
            spec["leaseTransitions"] = (old.get("leaseTransitions") or 0) + 1 if old else 0
        return spec

    def _age(self) -> float:
        return self._clock.monotonic() - (self._renewed_at or 0.0)


def _spec(lease: Object) -> Object:
    return lease.get("spec") or {}


def _holder(lease: Object | None) -> str:
    return str(_spec(lease).get("holderIdentity") or "") if lease is not None else ""


def _version(lease: Object) -> str:
    return str(lease["metadata"].get("resourceVersion", ""))


def _micro_time(moment: datetime) -> str:
    """metav1.MicroTime: six digits, always."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
