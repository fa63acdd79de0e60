"""Who plays in a soak: four agents, two controllers, two webhooks behind one port; one of each is never killed."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.kube.client import KubeClient
from allocator.kube.errors import AlreadyExists
from allocator.kube.resources import MUTATING_WEBHOOKS, SECRETS, VALIDATING_WEBHOOKS
from certs.store import CA, SECRET_NAME
from tests.crash import actors
from tests.crash.stage import NAMESPACE
from tests.plane.webhooks import configuration
from tests.soak.watching import REPAIRED_WITHIN_S
from webhook.entries import Registration, UrlTarget

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.crash.stage import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds. `settle_s`: from the loss of a leader to the first thing that its successor does."""

    reclaim: Sequence[str]
    lease: Mapping[str, str]
    settle_s: float
    repaired_within_s: float
    small_pause_s: tuple[float, float]
    great_pause_s: tuple[float, float]
    # Longer than a lease lasts, at times: that is how a leader that is spared loses it.
    pauses_s: tuple[float, float]


# The defaults of the product. Reclaim needs a leader that lasts for its two sightings.
REAL: Final = Times(
    reclaim=(),
    lease={},
    settle_s=20,
    repaired_within_s=REPAIRED_WITHIN_S,
    small_pause_s=(1, 6),
    great_pause_s=(40, 140),
    pauses_s=(1, 25),
)
SHORT: Final = Times(
    reclaim=("--reclaim-grace", "3", "--sweep-interval", "3", "--reuse-delay", "5"),
    lease={
        "SPIDERPOOL_LEADER_DURATION": "4",
        "SPIDERPOOL_LEADER_RENEW_DEADLINE": "3",
        "SPIDERPOOL_LEADER_RETRY_PERIOD": "0.5",
    },
    settle_s=8,
    # Grace and two sweeps are a sixth of the real ones; a busy machine is no faster for it.
    repaired_within_s=20,
    small_pause_s=(1, 4),
    great_pause_s=(8, 25),
    pauses_s=(0.5, 6),
)
SHORT_MINUTES: Final = 10


def times_for(minutes: float) -> Times:
    return SHORT if minutes < SHORT_MINUTES else REAL


async def cast(stage: Stage, nodes: Sequence[str], times: Times) -> frozenset[str]:
    """All of them, serving; the names of those that no fault may end."""
    kubeconfig, folder = stage.plane.kubeconfig, stage.folder
    for node in nodes:
        stage.add(actors.agent(kubeconfig, node, folder))
    for identity in ("one", "two"):
        controller = stage.add(actors.controller(kubeconfig, NAMESPACE, folder, identity, *times.reclaim))
        controller.environ = times.lease
    ports = [actors.free_port(), actors.free_port()]
    for port, name in zip(ports, ("webhook-one", "webhook-two"), strict=True):
        own = ("--namespace", NAMESPACE)
        stage.add(actors.webhook(kubeconfig, folder, *own, name=name, register="none", port=port))
    service = actors.free_port()
    stage.add(actors.Actor("balancer", ["-m", "tests.soak.balancer", *map(str, (service, *ports))], folder))
    await stage.start()
    await _register(stage, service)
    return frozenset({f"agent-{nodes[0]}", "controller-one", "webhook-one"})


async def _register(stage: Stage, port: int) -> None:
    """As the replicas do for a Service; here a port stands for that."""
    async with KubeClient.connect(kubeconfig=stage.plane.kubeconfig, user_agent="soak") as kube:
        secret = await kube.get(SECRETS, SECRET_NAME, namespace=NAMESPACE)
        bundle = base64.b64decode(secret["data"][CA]).decode()
        target = UrlTarget(f"https://127.0.0.1:{port}")
        registration = Registration(target=target, namespace=NAMESPACE, has_subnets=True)
        for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
            try:
                await kube.create(resource, configuration(resource, registration.webhooks(resource, bundle)))
            except AlreadyExists:
                continue
