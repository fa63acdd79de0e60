"""What the demo prints, and the commands that it runs."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from devcluster.demo.kubectl import Kubectl


class DemoError(Exception):
    """Something went another way than the demo shows; the message says what was expected."""


class Show:
    """Prints for people: steps, commands, their output. Colours only on a terminal (rich, NO_COLOR)."""

    def __init__(self, kubectl: Kubectl | None = None) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._started = time.monotonic()
        self._step = 0
        self.kubectl = kubectl

    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that the user takes is not counted."""
        began = time.monotonic()
        yield
        self._started += time.monotonic() - began

    def step(self, title: str) -> None:
        self._step += 1
        self._console.print()
        self._console.print(Text(f"{self._step}. {title}", style="bold"), Text(f"  [{self.elapsed_s():.1f} s]", "dim"))

    def say(self, text: str) -> None:
        self._console.print(Text(text))

    def proved(self, text: str) -> None:
        self._console.print(Text("  ok  ", style="green"), Text(text), sep="")

    def note(self, text: str) -> None:
        self._console.print(Text("  --  ", style="yellow"), Text(text), sep="")

    def command(self, line: str) -> None:
        self._console.print(Text("  $ ", style="dim"), Text(line, style="cyan"), sep="")

    def output(self, text: str) -> None:
        for line in text.splitlines():
            self._console.print(Text(f"    {line}"))

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """A spinner on a terminal, a line elsewhere."""
        if self._console.is_terminal:
            # Without the redirection of stderr that `console.status` brings: log lines have their file.
            with Live(
                Spinner("dots", text=what),
                console=self._console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            ):
                yield
        else:
            self.say(f"  ..  {what}")
            yield

    def table(self, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
        table = Table(*columns, box=None, padding=(0, 3, 0, 0), header_style="bold")
        for row in rows:
            table.add_row(*row)
        # Not to wrap is worth more than to fit: the table is also read in files and CI logs.
        width = max(self._console.width, 120)
        self._console.print(table, width=width, soft_wrap=False, no_wrap=True, crop=False)

    async def run(self, *arguments: str) -> str:
        """Print a kubectl command, run it, print and return its output. DemoError when it fails."""
        status, text = await self._execute(arguments)
        if status != 0:
            raise DemoError(f"kubectl {' '.join(arguments)} ended with exit status {status}")
        return text

    async def refused(self, *arguments: str) -> str:
        """The same for a command that must fail."""
        status, text = await self._execute(arguments)
        if status == 0:
            raise DemoError(f"kubectl {' '.join(arguments)} was accepted, and should have been refused")
        return text

    async def _execute(self, arguments: tuple[str, ...]) -> tuple[int, str]:
        if self.kubectl is None:
            raise DemoError("there is no cluster yet")
        self.command(f"kubectl {' '.join(arguments)}")
        done = await self.kubectl(*arguments)
        self.output(done.text)
        return done.status, done.text
