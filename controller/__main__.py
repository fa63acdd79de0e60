"""spiderpool-controller: the composition root."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.kube.client import KubeClient
from allocator.kube.election import Election
from allocator.runtime import flags, logs
from allocator.runtime.clock import SystemClock
from allocator.runtime.metrics import application
from controller.config import read_config
from controller.health import Health, listening
from controller.leading import LEASE, Leading

if TYPE_CHECKING:
    from controller.config import ControllerConfig

_log = logs.get_logger(__name__)


def main() -> None:
    flags.main("spiderpool-controller", read_config, serve)


async def serve(config: ControllerConfig) -> None:
    """Stand for election and lead when elected, until cancelled."""
    clock = SystemClock()
    async with KubeClient.connect(kubeconfig=config.kubeconfig, user_agent="spiderpool-controller") as client:
        election = Election(
            client,
            namespace=config.namespace,
            name=LEASE,
            identity=config.identity,
            clock=clock,
            lease_duration_s=config.lease.duration_s,
            renew_deadline_s=config.lease.renew_deadline_s,
            retry_period_s=config.lease.retry_period_s,
        )
        leading = Leading(config, client, election, clock=clock)
        health = Health(readiness=leading.readiness, liveness=leading.liveness)
        if config.reclaim is not None:
            _log.info(
                "reclaim_bound",
                # The sweep finds a leak, the grace passes, a tick and the reads follow.
                leak_lives_at_most_s=config.reclaim.sweep_interval_s + config.reclaim.grace_s + 5,
            )
        async with (
            listening(health.application(), config.health, "health_listening"),
            listening(application(leading.metrics.registry), config.metrics, "metrics_listening"),
        ):
            await election.run(leading.lead)


if __name__ == "__main__":
    main()
