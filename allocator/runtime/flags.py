"""The command line of a daemon: the options that all of them have, and what becomes of a setting that cannot be used.

Flags win over the environment, an empty variable counts as unset; typer shows both in --help.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn, Protocol, TypeVar

import typer

from allocator.runtime import lifecycle, logs
from allocator.runtime.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_HOST_PORT: Final = re.compile(r"(?:(?:\[([^\[\]\s]+)]|([^\[\]\s:]*)):)?([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class HostPort:
    """Where to listen; an empty host means all addresses, the port 0 one that the kernel chooses."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def host_port(text: str | HostPort) -> HostPort | None:
    """HOST:PORT, [IPv6]:PORT, :PORT or PORT; None for 0. typer.BadParameter when it is none of them."""
    if isinstance(text, HostPort):  # typer sends defaults through here too
        return text
    found = _HOST_PORT.fullmatch(text.strip())
    if found is None or int(found[3]) > 65535:
        raise typer.BadParameter(f"{text!r}: give HOST:PORT, [IPv6]:PORT, :PORT or PORT, or 0 for none")
    address = HostPort(found[1] or found[2] or "", int(found[3]))
    return address if address.port or ":" in text else None


def _level(text: str) -> str:
    if text.strip().lower() not in logs.LEVELS:
        raise typer.BadParameter(f"{text!r}: give one of {', '.join(logs.LEVELS)}")
    return text


Kubeconfig = Annotated[
    Path | None, typer.Option(help="The cluster; default: the pod's service account, $KUBECONFIG, ~/.kube/config.")
]
ConfFile = Annotated[Path | None, typer.Option("--config", help="conf.yml of the ConfigMap spiderpool-conf.")]
LogLevel = Annotated[
    str,
    typer.Option(parser=_level, metavar="LEVEL", envvar="SPIDERPOOL_LOG_LEVEL", help="debug, info, warn or error."),
]
Namespace = Annotated[
    str,
    typer.Option(envvar="SPIDERPOOL_POD_NAMESPACE", help="Where our Service, Secret, Lease and accounts are."),
]
HealthListen = Annotated[
    HostPort | None,
    typer.Option(
        parser=host_port,
        metavar="HOST:PORT",
        envvar="SPIDERPOOL_HEALTH_PORT",
        help="Probes over plain HTTP; a PORT alone is on all addresses, 0 for none.",
    ),
]
MetricsListen = Annotated[
    HostPort | None,
    typer.Option(
        parser=host_port,
        metavar="HOST:PORT",
        envvar="SPIDERPOOL_METRIC_HTTP_PORT",
        help="Metrics for Prometheus over plain HTTP, at /metrics; a PORT alone is on all addresses, 0 for none.",
    ),
]


class Settings(Protocol):
    @property
    def log_level(self) -> str: ...


S = TypeVar("S")
T = TypeVar("T", bound=Settings)


def read(command: Callable[..., S], arguments: Sequence[str], *, name: str = "") -> S:
    """What `command` makes of the arguments, which typer reads by its signature. ConfigError names what is wrong.

    SystemExit after --help.
    """
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    try:
        settings = app(arguments, prog_name=name, standalone_mode=False)
    except typer.TyperException as error:
        raise ConfigError(error.format_message()) from None
    if isinstance(settings, int):  # typer's exit code, after --help
        raise SystemExit(settings)
    result: S = settings
    return result


def main(name: str, command: Callable[..., T], serve: Callable[[T], Awaitable[None]]) -> NoReturn:
    """Be the daemon `name`: `serve` what `command` reads from the command line, until a signal; then exit.

    A setting that cannot be used is one line on stderr and exit code 2.
    """
    logs.configure("info")  # for what reading the settings logs
    try:
        settings = read(command, sys.argv[1:], name=name)
    except ConfigError as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201 - for a person, no log line
        sys.exit(lifecycle.UNUSABLE_SETTING)
    logs.configure(settings.log_level)
    sys.exit(lifecycle.run(lambda: serve(settings)))
