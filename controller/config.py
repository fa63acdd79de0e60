"""Settings of the controller: flags win over the environment, the environment over the file."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from allocator.domain.reclaim import Rules
from allocator.runtime import flags, logs
from allocator.runtime.config import Conf, ConfigError, env_bool, env_float, env_int, env_str, load_conf
from controller.reclaim import PARALLEL, ReclaimConfig

if TYPE_CHECKING:
    from pathlib import Path

_log = logs.get_logger(__name__)

# On all interfaces and both families, as the original's probes expect.
HEALTH: Final = flags.HostPort("", 5720)

# Of the original: what they tune is not there. Who sets one should hear that nothing comes of it.
WITHOUT_EFFECT: Final = {
    "SPIDERPOOL_GC_CHANNEL_BUFFER": "suspects wait in memory, without a bound that could lose one",
    "SPIDERPOOL_GC_MAX_PODENTRY_DB_CAP": "suspects wait in memory, without a bound that could lose one",
    "SPIDERPOOL_GC_TRACE_POD_GAP_DURATION": "the end of a pod is heard from a watch, at once",
    "SPIDERPOOL_GC_SIGNAL_TIMEOUT_DURATION": "nothing waits for a channel",
    "SPIDERPOOL_GC_HTTP_REQUEST_TIME_GAP": "sweeps are SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION apart",
    "SPIDERPOOL_GC_PODENTRY_MAX_RETRIES": "what fails is tried again until it is done",
    "SPIDERPOOL_LEADER_RETRY_GAP": "candidates wait SPIDERPOOL_LEADER_RETRY_PERIOD",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseConfig:
    duration_s: float
    renew_deadline_s: float
    retry_period_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerConfig:
    """`health` and `metrics` are None when nobody wants to ask; `reclaim` is None when it is switched off."""

    kubeconfig: Path | None
    conf: Conf
    log_level: str
    namespace: str
    identity: str
    health: flags.HostPort | None
    metrics: flags.HostPort | None
    lease: LeaseConfig
    reuse_delay: timedelta
    reclaim: ReclaimConfig | None


def _seconds(text: str | float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    # not > rather than <=: NaN passes no comparison
    if not 0 < value < float("inf"):
        raise typer.BadParameter(f"{text}: give a number of seconds above 0")
    return value


def read_config(  # noqa: PLR0913 - the flags
    *,
    kubeconfig: flags.Kubeconfig = None,
    conf_file: flags.ConfFile = None,
    log_level: flags.LogLevel = "info",
    namespace: flags.Namespace,
    identity: Annotated[
        str,
        typer.Option(
            envvar="SPIDERPOOL_POD_NAME",
            default_factory=socket.gethostname,
            show_default=False,
            help="Name of this replica in the Lease; default: the host's.",
        ),
    ],
    health_listen: flags.HealthListen = HEALTH,
    metrics_listen: flags.MetricsListen = None,
    reclaim_grace: Annotated[
        float,
        typer.Option(parser=_seconds, metavar="SECONDS", help="Between the two sightings of a holder that is gone."),
    ] = 20,
    sweep_interval: Annotated[
        float,
        typer.Option(
            parser=_seconds,
            metavar="SECONDS",
            envvar="SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION",
            help="Between two looks at all records.",
        ),
    ] = 20,
    reuse_delay: Annotated[
        float,
        typer.Option(parser=_seconds, metavar="SECONDS", help="How long a released address is not handed out."),
    ] = 30,
) -> ControllerConfig:
    """Give addresses of pods that are gone back, and keep the status of pools. One replica leads."""
    lease = _lease()
    cools = timedelta(seconds=reuse_delay)
    reclaim = ReclaimConfig(
        grace_s=reclaim_grace,
        sweep_interval_s=sweep_interval,
        reuse_delay=cools,
        renew_deadline_s=lease.renew_deadline_s,
        rules=_rules(),
        workers=env_int("SPIDERPOOL_GC_IP_WORKER_NUM", PARALLEL, minimum=1),
    )
    for name, why in WITHOUT_EFFECT.items():
        if env_str(name):
            _log.warning("setting_without_effect", name=name, why=why)
    return ControllerConfig(
        kubeconfig=kubeconfig,
        conf=load_conf(conf_file),
        log_level=log_level,
        namespace=namespace,
        identity=identity,
        health=health_listen,
        metrics=metrics_listen,
        lease=lease,
        reuse_delay=cools,
        reclaim=reclaim if env_bool("SPIDERPOOL_GC_IP_ENABLED", True) else None,
    )


def _lease() -> LeaseConfig:
    lease = LeaseConfig(
        duration_s=env_float("SPIDERPOOL_LEADER_DURATION", 15, minimum=0.1),
        renew_deadline_s=env_float("SPIDERPOOL_LEADER_RENEW_DEADLINE", 10, minimum=0.1),
        retry_period_s=env_float("SPIDERPOOL_LEADER_RETRY_PERIOD", 2, minimum=0.1),
    )
    if not lease.retry_period_s < lease.renew_deadline_s < lease.duration_s:
        raise ConfigError(
            "the leader variables need SPIDERPOOL_LEADER_RETRY_PERIOD < SPIDERPOOL_LEADER_RENEW_DEADLINE < "
            f"SPIDERPOOL_LEADER_DURATION, not {lease.retry_period_s:g} < {lease.renew_deadline_s:g} < "
            f"{lease.duration_s:g}"
        )
    return lease


def _rules() -> Rules:
    return Rules(
        extra_grace=timedelta(seconds=env_float("SPIDERPOOL_GC_ADDITIONAL_GRACE_DELAY", 0, minimum=0)),
        on_ready_node=env_bool("SPIDERPOOL_GC_STATELESS_TERMINATING_POD_ON_READY_NODE_ENABLED", True),
        on_unready_node=env_bool("SPIDERPOOL_GC_STATELESS_TERMINATING_POD_ON_NOT_READY_NODE_ENABLED", True),
        without_ips=env_bool("SPIDERPOOL_GC_ENABLE_STATELESS_RUNNING_POD_ON_EMPTY_POD_STATUS_IPS", False),
    )
