"""Settings of the controller: flags win over the environment, the environment over the file."""

from __future__ import annotations

import argparse
import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from allocator.domain.reclaim import Rules
from allocator.runtime.config import Conf, ConfigError, env_bool, env_float, env_str, load_conf
from controller.reclaim import ReclaimConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_HEALTH_PORT: Final = "5720"
DEFAULT_GRACE_S: Final = 20.0
DEFAULT_SWEEP_S: Final = 20.0
DEFAULT_REUSE_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseConfig:
    duration_s: float
    renew_deadline_s: float
    retry_period_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerConfig:
    """`health` is None when nobody wants to ask; `reclaim` is None when it is switched off."""

    kubeconfig: Path | None
    conf: Conf
    log_level: str
    namespace: str
    identity: str
    health: tuple[str, int] | None
    lease: LeaseConfig
    reuse_delay: timedelta
    reclaim: ReclaimConfig | None


def read_config(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> ControllerConfig:
    """The settings of this process. ConfigError names a value that cannot be used; argparse exits on wrong flags."""
    flags = _parser().parse_args(arguments)
    lease = LeaseConfig(
        duration_s=env_float("SPIDERPOOL_LEADER_DURATION", 15, minimum=0.1, environ=environ),
        renew_deadline_s=env_float("SPIDERPOOL_LEADER_RENEW_DEADLINE", 10, minimum=0.1, environ=environ),
        retry_period_s=env_float("SPIDERPOOL_LEADER_RETRY_PERIOD", 2, minimum=0.1, environ=environ),
    )
    if not lease.retry_period_s < lease.renew_deadline_s < lease.duration_s:
        raise ConfigError(
            "the leader variables need SPIDERPOOL_LEADER_RETRY_PERIOD < SPIDERPOOL_LEADER_RENEW_DEADLINE < "
            f"SPIDERPOOL_LEADER_DURATION, not {lease.retry_period_s:g} < {lease.renew_deadline_s:g} < "
            f"{lease.duration_s:g}"
        )
    namespace = flags.namespace or env_str("SPIDERPOOL_POD_NAMESPACE", environ=environ)
    if not namespace:
        raise ConfigError("give --namespace, or set SPIDERPOOL_POD_NAMESPACE: the Lease of the leader lives there")
    reuse_delay = timedelta(seconds=_positive("--reuse-delay", flags.reuse_delay, DEFAULT_REUSE_S))
    return ControllerConfig(
        kubeconfig=flags.kubeconfig,
        conf=load_conf(flags.config),
        log_level=flags.log_level or env_str("SPIDERPOOL_LOG_LEVEL", "info", environ=environ),
        namespace=namespace,
        identity=flags.identity or env_str("SPIDERPOOL_POD_NAME", socket.gethostname(), environ=environ),
        health=_health(flags.health_listen, environ),
        lease=lease,
        reuse_delay=reuse_delay,
        reclaim=_reclaim(flags, environ, lease, reuse_delay),
    )


def _reclaim(
    flags: argparse.Namespace, environ: Mapping[str, str], lease: LeaseConfig, reuse_delay: timedelta
) -> ReclaimConfig | None:
    if not env_bool("SPIDERPOOL_GC_IP_ENABLED", True, environ=environ):
        return None
    sweep_s = env_float("SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION", DEFAULT_SWEEP_S, minimum=0.1, environ=environ)
    extra_s = env_float("SPIDERPOOL_GC_ADDITIONAL_GRACE_DELAY", 0, minimum=0, environ=environ)
    return ReclaimConfig(
        grace_s=_positive("--reclaim-grace", flags.reclaim_grace, DEFAULT_GRACE_S),
        sweep_interval_s=_positive("--sweep-interval", flags.sweep_interval, sweep_s),
        reuse_delay=reuse_delay,
        renew_deadline_s=lease.renew_deadline_s,
        rules=Rules(
            extra_grace=timedelta(seconds=extra_s),
            on_ready_node=env_bool(
                "SPIDERPOOL_GC_STATELESS_TERMINATING_POD_ON_READY_NODE_ENABLED", True, environ=environ
            ),
            on_unready_node=env_bool(
                "SPIDERPOOL_GC_STATELESS_TERMINATING_POD_ON_NOT_READY_NODE_ENABLED", True, environ=environ
            ),
        ),
    )


def _positive(flag: str, value: float | None, default: float) -> float:
    seconds = default if value is None else value
    # not > rather than <=: NaN passes no comparison
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"{flag} {seconds:g}: give a number of seconds above 0")
    return seconds


def _health(flag: str | None, environ: Mapping[str, str]) -> tuple[str, int] | None:
    text = flag or env_str("SPIDERPOOL_HEALTH_PORT", DEFAULT_HEALTH_PORT, environ=environ)
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"health address {text!r}: give HOST:PORT or PORT, or 0 for none")
    # Without a host on all interfaces and both families, as the original's probes expect.
    return (host.strip("[]"), int(port)) if host or int(port) else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spiderpool-controller",
        description="Gives addresses of pods that are gone back, and keeps the status of pools. One replica leads.",
    )
    parser.add_argument("--kubeconfig", type=Path, help="how to reach the API server; without it the pod's own cluster")
    parser.add_argument("--config", type=Path, metavar="FILE", help="conf.yml of the ConfigMap")
    parser.add_argument("--log-level", metavar="LEVEL", help="debug, info, warn or error (default info)")
    parser.add_argument("--namespace", metavar="NS", help="where the Lease of the leader lives")
    parser.add_argument("--identity", metavar="NAME", help="name of this replica in the Lease (default: pod or host)")
    parser.add_argument("--health-listen", metavar="HOST:PORT", help="probes; 0 for none (default :5720)")
    parser.add_argument(
        "--reclaim-grace",
        type=float,
        metavar="SECONDS",
        help=f"between the two sightings of a holder that is gone (default {DEFAULT_GRACE_S:g})",
    )
    parser.add_argument(
        "--sweep-interval",
        type=float,
        metavar="SECONDS",
        help=f"between two looks at all records (default {DEFAULT_SWEEP_S:g})",
    )
    parser.add_argument(
        "--reuse-delay",
        type=float,
        metavar="SECONDS",
        help=f"how long a released address is not handed out (default {DEFAULT_REUSE_S:g})",
    )
    return parser
