"""What Prometheus sees of this process. No label holds what users choose: a name would make a series of each object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """The process at the moment of asking; what only a leader knows is nothing for the others.

    `leaks`: the age in seconds of each address that is held for nobody, as known. `staleness_s` by resource.
    """

    is_leader: bool
    candidates: int = 0
    leaks: tuple[float, ...] = ()
    is_braked: bool = False
    disagreeing: int = 0
    conflicts: int = 0
    without_pool: int = 0
    staleness_s: Mapping[str, float] = field(default_factory=dict)


class Metrics:
    """Counters, and on demand the `vitals`."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.released = self._counter("gc_released", "Addresses that reclaim gave back.", "reason")
        self.retained = self._counter("gc_retained", "Addresses that reclaim kept for the successor.", "reason")
        self.parted = self._counter("gc_parted", "Addresses that went to the other end of a migration.", "reason")
        self.voided = self._counter("gc_verdicts_void", "Releases that were not carried out; they are begun anew.")
        self.mended = self._counter("mended", "Endpoints and records of living pods that were put right.", "what")
        # The original's names, which dashboards know.
        self.counts = self._counter("ip_gc_counts", "Addresses that reclaim gave back.")
        self.failures = self._counter("ip_gc_failure_counts", "Releases that were not carried out.")

    def watch(self, vitals: Callable[[], Vitals]) -> None:
        self.registry.register(_Vitals(vitals))

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"spiderpool_{name}", documentation, labels, registry=self.registry)


class _Vitals(Collector):
    def __init__(self, vitals: Callable[[], Vitals]) -> None:
        self._vitals = vitals

    def collect(self) -> Iterator[GaugeMetricFamily]:
        now = self._vitals()
        gauges = (
            ("leader", "1 while this replica leads.", now.is_leader),
            ("gc_candidates", "Holders that were seen gone once, and wait for the second look.", now.candidates),
            ("leaked_ips", "Addresses that are held for nobody, as far as is known.", len(now.leaks)),
            ("oldest_leak_seconds", "Since when the oldest of them is known; 0 for none.", max(now.leaks, default=0)),
            ("gc_braked", "1 while reclaim frees nothing because it would free too many at once.", now.is_braked),
            ("endpoints_disagreeing", "Pods whose endpoint and address objects do not agree.", now.disagreeing),
            ("address_conflicts", "Living pods that use an address which another pod holds.", now.conflicts),
            ("addresses_without_pool", "Addresses in use whose SpiderIPPool is gone.", now.without_pool),
        )
        for name, documentation, value in gauges:
            yield GaugeMetricFamily(f"spiderpool_{name}", documentation, value=float(value))
        staleness = GaugeMetricFamily(
            "spiderpool_watch_staleness_seconds",
            "Since when the API server has not proven that we see everything; about 60 on a quiet watch.",
            labels=["resource"],
        )
        for resource, seconds in now.staleness_s.items():
            staleness.add_metric([resource], seconds)
        yield staleness
