"""One term of leadership: caches, then the loops that act on them, all ended together when the lease is lost."""

from __future__ import annotations

import asyncio
import gc
import random
from typing import TYPE_CHECKING, Final

from allocator.domain import slots
from allocator.kube.cache import Cache
from allocator.kube.events import Recorder
from allocator.kube.fences import leaders
from allocator.kube.ledger import KubeLedger
from allocator.kube.owners import Owners
from allocator.kube.resources import LEASES
from allocator.kube.schema import Schema
from allocator.kube.slots import Slots
from allocator.kube.stores import KubeEndpoints
from allocator.runtime.logs import get_logger
from controller.applications import Applications, Rules
from controller.auto_pools import AutoPools
from controller.books import Books
from controller.drift import Drift
from controller.lending import Lending
from controller.mending import Mending
from controller.metrics import Metrics, Vitals
from controller.projection import Cadence, Projection
from controller.receipts import Receipts
from controller.reclaim import Hands, Reclaim
from controller.subnets import Subnets
from controller.tidy import GRACE_S, Cooled, OrphanEndpoints
from controller.witness import Witness

if TYPE_CHECKING:
    from allocator.domain.addresses import Version
    from allocator.domain.slots import Workload
    from allocator.kube.client import KubeClient
    from allocator.kube.election import Election
    from allocator.runtime.clock import Clock
    from controller.config import ControllerConfig

_log = get_logger(__name__)

# The original's name: while one is replaced by the other, only one of them reclaims.
LEASE: Final = "spiderpool-controller-leases"
# A reclaim turn that takes longer than this hangs: a mass release takes seconds, each call has a deadline.
TURN_LIMIT_S: Final = 300.0


class Leading:
    def __init__(
        self,
        config: ControllerConfig,
        client: KubeClient,
        election: Election,
        *,
        clock: Clock,
        cadence: Cadence | None = None,
    ) -> None:
        self._config = config
        self._client = client
        self._election = election
        self._clock = clock
        self._cadence = cadence or Cadence()
        self._books: Books | None = None
        self._reclaim: Reclaim | None = None
        self._mending: Mending | None = None
        self._schema = Schema(client, clock=clock, rng=random.SystemRandom())
        self.metrics = Metrics()
        self.metrics.watch(self.vitals)

    async def lead(self) -> None:
        """Runs until cancelled. Each term starts from nothing: what an earlier one suspected no longer counts."""
        # The caches of an earlier term refer to one another in circles, and have become old: Python would look for them
        # hours later.
        gc.collect()
        conf = self._config.conf
        kept = slots.kept(stateful_sets=conf.enable_stateful_set, machines=conf.enable_kubevirt_static_ip)
        books = Books(self._client, clock=self._clock, kept=kept)
        recorder = Recorder(self._client, component="spiderpool-controller", clock=self._clock)
        hands = self._hands(books, recorder, kept)
        projection = Projection(
            books, self._client, may_act=self._election.is_valid, clock=self._clock, cadence=self._cadence
        )
        fence = leaders(self._election.is_valid)
        lending = Lending(books, recorder, may_act=self._election.is_valid, clock=self._clock)
        subnets = Subnets(
            books,
            self._client,
            identity=self._config.identity,
            clock=self._clock,
            on_change=lending.on_subnet,
            fence=fence,
        )
        pools = AutoPools(books, self._client, clock=self._clock, on_change=lending.on_pool, fence=fence)
        applications = self._applications(books, lending)
        lending.attach(subnets, pools, applications)
        drift = Drift(books, subnets.cache, self._client, may_act=self._election.is_valid, clock=self._clock)
        drift.on_drift.append(projection.on_drift)
        grace_s = self._config.reclaim.grace_s if self._config.reclaim else GRACE_S
        cooled = Cooled(books, hands, reuse_delay=self._config.reuse_delay, grace_s=grace_s)
        self._books = books
        try:
            async with asyncio.TaskGroup() as group:
                for name, cache in books.caches.items():
                    group.create_task(cache.run(), name=f"cache-{name}")
                group.create_task(books.machines.run(), name="machines")
                group.create_task(recorder.run(), name="events")
                group.create_task(self._lease().run(), name="cache-lease")
                group.create_task(subnets.cache.run(), name="cache-subnets")
                for name, cache in ({} if applications is None else applications.caches).items():
                    group.create_task(cache.run(), name=f"cache-{name}")
                if applications is not None:
                    group.create_task(applications.third_party.run(), name="third-party")
                group.create_task(lending.run(), name="lending")
                # Reclaim hears of pods from the first list on, and judges only once all lists are complete.
                reclaim = self._make_reclaim(books, hands)
                await books.wait_synced()
                # A record that loses its slot or peer on the way makes living holders look gone.
                await self._schema.fits()
                _log.info("leading", records=len(books.keys()), pools=len(books.pools.items()))
                group.create_task(projection.run(), name="projection")
                group.create_task(drift.run(), name="drift")
                group.create_task(cooled.run(), name="cooled")
                if reclaim is not None and self._config.reclaim is not None:
                    settings = reclaim.config
                    pace = {"grace_s": settings.grace_s, "sweep_interval_s": settings.sweep_interval_s}
                    orphans = OrphanEndpoints(books, hands, **pace)
                    owners = Owners(self._client, clock=self._clock, rng=random.SystemRandom())
                    self._mending = Mending(books, hands, owners, **pace, renew_deadline_s=settings.renew_deadline_s)
                    reclaim.on_brake.append(projection.on_brake)
                    group.create_task(reclaim.run(), name="reclaim")
                    group.create_task(orphans.run(), name="orphan-endpoints")
                    group.create_task(self._mending.run(), name="mending")
        finally:
            self._books = self._reclaim = self._mending = None

    def readiness(self) -> str:
        """A standby is ready when it knows of a leader; the leader when its picture of the cluster is complete."""
        if self._books is not None:
            return (self._schema.problem or "") if self._books.synced else "the leader's caches are not complete yet"
        return "" if self._election.holder else "no leader is known: is the API server there, and may we read Leases?"

    def liveness(self) -> str:
        if self._reclaim is None or self._books is None or not self._books.synced:
            return ""
        idle_s = self._clock.monotonic() - self._reclaim.turned_at
        return "" if idle_s <= TURN_LIMIT_S else f"the reclaim loop has not turned for {idle_s:.0f} s"

    def vitals(self) -> Vitals:
        books, reclaim, mending = self._books, self._reclaim, self._mending
        if books is None:
            return Vitals(is_leader=False)
        return Vitals(
            is_leader=self._election.is_valid(),
            candidates=reclaim.candidates if reclaim else 0,
            leaks=tuple(reclaim.leaks()) if reclaim else (),
            is_braked=reclaim is not None and reclaim.is_braked,
            disagreeing=mending.disagreeing if mending else 0,
            conflicts=sum(map(len, mending.conflicts.values())) if mending else 0,
            without_pool=books.without_pool(),
            staleness_s={name: cache.staleness_s() for name, cache in books.caches.items()},
        )

    def _lease(self) -> Cache:
        return Cache(
            self._client,
            LEASES,
            clock=self._clock,
            namespace=self._config.namespace,
            field_selector=f"metadata.name={LEASE}",
            on_change=self._election.hear,
        )

    def _applications(self, books: Books, lending: Lending) -> Applications | None:
        conf = self._config.conf
        if not (conf.enable_spider_subnet and conf.enable_auto_pool_for_application):
            return None
        switches: dict[Version, bool] = {4: conf.enable_ipv4, 6: conf.enable_ipv6}
        listed: dict[Version, tuple[str, ...]] = {
            4: conf.cluster_default_ipv4_subnet,
            6: conf.cluster_default_ipv6_subnet,
        }
        rules = Rules(
            versions=frozenset(version for version, is_on in switches.items() if is_on),
            spare=conf.cluster_subnet_auto_pool_default_redundant_ip_number,
            defaults={version: names for version, names in listed.items() if names},
            kinds=conf.subnet_application_kinds,
        )
        return Applications(self._client, books, rules, clock=self._clock, on_change=lending.on_application)

    def _hands(self, books: Books, recorder: Recorder, kept: frozenset[Workload]) -> Hands:
        rng = random.SystemRandom()
        client, clock = self._client, self._clock
        fence = leaders(self._election.is_valid)
        ledger = KubeLedger(client, books.addresses, clock=clock, rng=rng, fence=fence)
        wanted = Slots(client, kept, clock=clock, rng=rng)
        return Hands(
            ledger=ledger,
            witness=Witness(client, books, wanted, ledger, clock=clock, rng=rng),
            endpoints=KubeEndpoints(client, clock=clock, rng=rng, fence=fence),
            receipts=Receipts(recorder, self.metrics, namespace=self._config.namespace, lease=LEASE),
            may_act=self._election.is_valid,
            clock=clock,
        )

    def _make_reclaim(self, books: Books, hands: Hands) -> Reclaim | None:
        if self._config.reclaim is None:
            _log.warning("reclaim_off", why="SPIDERPOOL_GC_IP_ENABLED is false: addresses of dead pods are not freed")
            return None
        self._reclaim = Reclaim(books, hands, self._config.reclaim)
        return self._reclaim
