"""spiderpoolctl: what an on-call engineer asks. Exit codes: 0 yes or done, 1 no, 2 usage, 3 no answer."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeAlias, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from rich.console import Console

    from allocator.kube.client import KubeClient
    from ctl.address_report import Report

T = TypeVar("T")

# 1 is an answer that scripts act on: nothing that goes wrong may end with it.
NOT_ALLOCATED, NO_ANSWER = 1, 3
# Of each request: who waits at a terminal wants to know sooner than a controller.
REQUEST_TIMEOUT_S = 5.0

app = typer.Typer(
    name="spiderpoolctl",
    help="Look into the addresses that Spiderpool gives to pods.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
ip = typer.Typer(help="Questions about one address.", no_args_is_help=True)
app.add_typer(ip, name="ip")


@app.callback()
def spiderpoolctl() -> None:
    """Look into the addresses that Spiderpool gives to pods."""


class Form(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Kubeconfig: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Default: the pod's service account, $KUBECONFIG, ~/.kube/config.", exists=True, dir_okay=False),
]
Output: TypeAlias = Annotated[Form, typer.Option("--output", "-o", help="For people, or for scripts.")]


@ip.command("show")
def show(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="IPv4 or IPv6, without prefix length.")],
    kubeconfig: Kubeconfig = None,
    output: Output = Form.TABLE,
) -> None:
    """Show who holds ADDRESS, or why nobody does.

    Exit code 0: allocated, that is held by a pod or kept; 1: not allocated, free or released and cooling; 2: wrong
    usage; 3: no answer.
    """
    # Here, not above: `--help` and usage errors need none of it, and it loads in half a second.
    from allocator.domain.addresses import AddressError, parse_address  # noqa: PLC0415
    from ctl import address_report  # noqa: PLC0415

    try:
        wanted = parse_address(address)
    except AddressError as error:
        raise typer.BadParameter(f"{error}", param_hint="ADDRESS") from error
    report = _ask(lambda client: address_report.report_on(client, wanted), kubeconfig, address_report.NEEDED_RIGHTS)
    if output is Form.TABLE:
        _print_table(report)
    else:
        _print_document(address_report.document(report), output)
    for warning in report.warnings:
        typer.echo(f"spiderpoolctl: {warning}", err=True)
    if not report.is_allocated:
        raise typer.Exit(NOT_ALLOCATED)


@app.command("gc")
def gc(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Free nothing, only tell.")] = False,
    kubeconfig: Kubeconfig = None,
    output: Output = Form.TABLE,
) -> None:
    """Tell which addresses the controller is about to take back, and why, by its default switches.

    Exit code 0: told, be it nothing; 2: wrong usage; 3: no answer.
    """
    if not dry_run:
        raise typer.BadParameter(
            "say --dry-run: addresses are taken back by the controller alone, which looks twice; it needs no command",
            param_hint="--dry-run",
        )
    from ctl import gc_report  # noqa: PLC0415

    found = _ask(gc_report.asked, kubeconfig, gc_report.NEEDED_RIGHTS)
    if output is not Form.TABLE:
        _print_document(gc_report.document(found), output)
    elif found:
        _print_rows(("ADDRESS", "POOL", "POD", "NODE", "ACTION", "REASON"), gc_report.rows(found))
    else:
        typer.echo("Nothing: every address in use has a pod, or is kept for one.")


def _ask(question: Callable[[KubeClient], Awaitable[T]], kubeconfig: Path | None, needed_rights: str) -> T:
    from allocator.domain.errors import Unavailable  # noqa: PLC0415
    from allocator.kube.client import KubeClient  # noqa: PLC0415
    from allocator.kube.codec import Malformed  # noqa: PLC0415
    from allocator.kube.errors import ApiError, Forbidden, NoAccess, Unreachable  # noqa: PLC0415

    async def ask() -> T:
        async with KubeClient.connect(
            kubeconfig=kubeconfig, user_agent="spiderpoolctl", timeout_s=REQUEST_TIMEOUT_S
        ) as client:
            return await question(client)

    try:
        return asyncio.run(ask())
    except Malformed as error:
        _fail(NO_ANSWER, f"{error}; correct or delete the object with kubectl")
    except (NoAccess, Unavailable) as error:
        _fail(NO_ANSWER, f"{error}")
    except Unreachable as error:
        _fail(NO_ANSWER, f"the API server does not answer: {error}; check the network and the server in the kubeconfig")
    except Forbidden as error:
        _fail(NO_ANSWER, f"{error}; ask for get and list on {needed_rights}")
    except ApiError as error:
        # A plain page too: that is how an API server says that nobody has defined the group.
        if error.status == HTTPStatus.NOT_FOUND:
            unknown = "this cluster does not know Spiderpool's kinds; install them: kubectl apply -k manifests/crds"
            _fail(NO_ANSWER, f"{unknown} ({error})")
        _fail(NO_ANSWER, f"the API server refused: {error}")
    except Exception as error:  # noqa: BLE001 - a traceback ends with 1, which would read as "not allocated"
        _fail(NO_ANSWER, f"the question failed: {type(error).__name__}: {error}")


def _fail(code: int, message: str) -> NoReturn:
    typer.echo(f"spiderpoolctl: {message}", err=True)
    raise typer.Exit(code)


def _print_document(document: dict[str, Any], form: Form) -> None:
    if form is Form.JSON:
        import json  # noqa: PLC0415

        typer.echo(json.dumps(document, indent=2))
    else:
        import yaml  # noqa: PLC0415

        typer.echo(yaml.safe_dump(document, sort_keys=False), nl=False)


def _print_rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
    for name in head:
        table.add_column(name)
    for row in rows:
        table.add_row(*map(Text, row))
    _console().print(table)


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415

    # Into a pipe nothing is wrapped: names are long, and someone will grep.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 500)


def _print_table(report: Report) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from ctl import address_report  # noqa: PLC0415

    console = _console()
    if report.record is not None:
        table = Table.grid(padding=(0, 3))
        for label, value in address_report.rows(report.record, datetime.now(UTC)):
            table.add_row(Text(label, style="bold"), Text(value))
        console.print(table)
        return
    if not report.standings:
        console.print(f"{report.address} is not allocated, and no SpiderIPPool contains it.")
        return
    console.print(f"{report.address} is not allocated.")
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("POOL")
    table.add_column("WHAT IT DOES WITH IT")
    for standing in report.standings:
        table.add_row(Text(standing.pool), Text(standing.reason, style="green" if standing.is_free else "yellow"))
    console.print(table)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
