"""What Prometheus sees of this process. No label holds what users choose: a name would make a series of each object."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from certs import authority
from webhook.review import Allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from certs.authority import Material
    from webhook.paths import Judge
    from webhook.review import Request, Verdict

LABELS: Final = ("kind", "operation", "verdict")
# From what a look into memory takes to the time after which the API server stops listening.
BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Metrics:
    def __init__(self, served: Callable[[], Material | None]) -> None:
        self.registry: Final = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_Expiry(served))
        self._requests = Counter(
            "spiderpool_webhook_requests", "Reviews judged; failed: unable to judge.", LABELS, registry=self.registry
        )
        self._duration = Histogram(
            "spiderpool_webhook_request_duration_seconds",
            "How long judging took.",
            LABELS,
            buckets=BUCKETS,
            registry=self.registry,
        )

    def watching(self, judge: Judge) -> Judge:
        """The same judge, whose verdicts are counted."""

        async def answer(request: Request) -> Verdict:
            began, verdict = time.perf_counter(), "failed"
            try:
                given = await judge.answer(request)
                verdict = "allowed" if isinstance(given, Allowed) else "denied"
                return given
            finally:
                labels = (judge.resource.kind, request.operation or "other", verdict)
                self._requests.labels(*labels).inc()
                self._duration.labels(*labels).observe(time.perf_counter() - began)

        return replace(judge, answer=answer)


class _Expiry(Collector):
    """Reads the certificates when it is asked, so that no renewal can be missed."""

    def __init__(self, served: Callable[[], Material | None]) -> None:
        self._served = served

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "spiderpool_tls_cert_not_after_seconds",
            "When the certificate expires, in seconds since 1970.",
            labels=["certificate"],
        )
        material = self._served()
        if material is not None:
            family.add_metric(["ca"], authority.authority_expiry_of(material).timestamp())
            family.add_metric(["serving"], authority.expiry_of(material).timestamp())
        yield family
