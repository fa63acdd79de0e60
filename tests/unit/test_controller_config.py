"""Flags win over the environment, the environment over the defaults."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from allocator.runtime import flags
from allocator.runtime.config import ConfigError
from allocator.runtime.flags import HostPort
from controller import config as controller

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NS = ("--namespace", "spiderpool")


def read_config(arguments: Sequence[str], environ: Mapping[str, str]) -> controller.ControllerConfig:
    with CliRunner().isolation(env=environ):
        return flags.read(controller.read_config, arguments)


def test_the_defaults_are_those_of_the_design() -> None:
    config = read_config(NS, {})
    reclaim = config.reclaim
    assert reclaim is not None
    assert (reclaim.grace_s, reclaim.sweep_interval_s, config.reuse_delay) == (20, 20, timedelta(seconds=30))
    assert (config.lease.duration_s, config.lease.renew_deadline_s, config.lease.retry_period_s) == (15, 10, 2)
    assert config.health == HostPort("", 5720)


def test_an_explicit_interval_of_the_original_is_obeyed() -> None:
    config = read_config(NS, {"SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION": "600"})
    assert config.reclaim is not None
    assert config.reclaim.sweep_interval_s == 600


def test_a_flag_wins_over_the_environment() -> None:
    environ = {"SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION": "600", "SPIDERPOOL_LOG_LEVEL": "debug"}
    config = read_config([*NS, "--sweep-interval", "1", "--log-level", "warn"], environ)
    assert config.reclaim is not None
    assert (config.reclaim.sweep_interval_s, config.log_level) == (1, "warn")


def test_the_pods_own_name_and_namespace_come_from_the_environment() -> None:
    config = read_config([], {"SPIDERPOOL_POD_NAMESPACE": "ns", "SPIDERPOOL_POD_NAME": "controller-0"})
    assert (config.namespace, config.identity) == ("ns", "controller-0")


@pytest.mark.parametrize(
    ("variable", "switch"),
    [
        ("SPIDERPOOL_GC_STATELESS_TERMINATING_POD_ON_READY_NODE_ENABLED", "on_ready_node"),
        ("SPIDERPOOL_GC_STATELESS_TERMINATING_POD_ON_NOT_READY_NODE_ENABLED", "on_unready_node"),
        ("SPIDERPOOL_GC_ENABLE_STATELESS_RUNNING_POD_ON_EMPTY_POD_STATUS_IPS", "without_ips"),
    ],
)
def test_the_originals_switches_have_its_true_defaults_and_are_obeyed(variable: str, switch: str) -> None:
    default = switch != "without_ips"
    for environ, expected in (({}, default), ({variable: str(not default).lower()}, not default)):
        reclaim = read_config(NS, environ).reclaim
        assert reclaim is not None
        assert getattr(reclaim.rules, switch) is expected


def test_the_originals_number_of_workers_is_obeyed() -> None:
    reclaim = read_config(NS, {"SPIDERPOOL_GC_IP_WORKER_NUM": "3"}).reclaim
    assert reclaim is not None
    assert reclaim.workers == 3


def test_a_setting_of_the_original_that_tunes_nothing_here_is_told() -> None:
    with capture_logs() as logged:
        read_config(NS, {"SPIDERPOOL_GC_CHANNEL_BUFFER": "5000"})
    assert [line["name"] for line in logged] == ["SPIDERPOOL_GC_CHANNEL_BUFFER"]


def test_reclaim_can_be_switched_off() -> None:
    assert read_config(NS, {"SPIDERPOOL_GC_IP_ENABLED": "false"}).reclaim is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0", None),
        ("127.0.0.1:0", HostPort("127.0.0.1", 0)),
        ("[::1]:80", HostPort("::1", 80)),
        ("5720", HostPort("", 5720)),
    ],
)
def test_the_health_address_is_a_port_an_address_or_nothing(text: str, address: HostPort | None) -> None:
    assert read_config([*NS, "--health-listen", text], {}).health == address


@pytest.mark.parametrize(
    ("arguments", "environ", "named"),
    [
        pytest.param([], {}, "--namespace", id="no namespace"),
        pytest.param([*NS, "--reclaim-grace", "0"], {}, "--reclaim-grace", id="no grace"),
        pytest.param([*NS, "--reuse-delay", "nan"], {}, "--reuse-delay", id="not a number"),
        pytest.param([*NS, "--health-listen", "host"], {}, "--health-listen", id="no port"),
        pytest.param(NS, {"SPIDERPOOL_LEADER_RENEW_DEADLINE": "20"}, "RENEW_DEADLINE", id="deadline after lease"),
        pytest.param(NS, {"SPIDERPOOL_GC_IP_ENABLED": "maybe"}, "SPIDERPOOL_GC_IP_ENABLED", id="no boolean"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(arguments: list[str], environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_config(arguments, environ)
