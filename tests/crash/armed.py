"""`python -m tests.crash.armed FOLDER -- agent --kubeconfig ...`: a process of ours that dies where it is told to.

It is the product's own program; only the places are wrapped through which everything goes that it leaves behind
(boundaries.py). Whenever it comes by one, it looks into FOLDER/armed: `agent:create-SpiderIPAddress:after 3` means
SIGKILL at the third time. What it came by is appended to FOLDER/passed, once in its life, so that a test knows which
boundaries there are.
"""

# ruff: noqa: PTH104, PTH105 - the functions beneath pathlib's are those that are wrapped

from __future__ import annotations

import importlib
import os
import signal
import sys
from functools import partial, wraps
from os import rename, replace, unlink
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.crash import boundaries

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAMS: Final = {
    "agent": "agent.__main__",
    "controller": "controller.__main__",
    "webhook": "webhook.__main__",
    "plugin": "cni.plugin",
    "plane": "devcluster.plane.__main__",
}
# The journal of an armed plane is begun anew after so many lines, so that a test comes by that too.
JOURNAL_LINES: Final = 200


class Fuse:
    def __init__(self, folder: Path, process: str) -> None:
        self._armed = folder / "armed"
        self._passed = os.open(folder / "passed", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._folder = folder
        self._process = process
        self._told: set[str] = set()
        self._text = ""
        self._times = 0

    def passes(self, boundary: str) -> None:
        """Come by the boundary: does not return at the one that the process is to die at."""
        point = f"{self._process}:{boundary}"
        if point not in self._told:
            self._told.add(point)
            os.write(self._passed, f"{point}\n".encode())
        try:
            text = self._armed.read_text()
        except FileNotFoundError:
            return
        wanted, _, count = text.partition(" ")
        if wanted != point:
            return
        if text != self._text:
            self._text, self._times = text, 0
        self._times += 1
        if self._times >= int(count or 1):
            # One death only: whoever comes by next lives.
            rename(self._armed, self._folder / "died")
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, boundary: str | None, act: Callable[[], Any]) -> Any:
        if boundary is None:
            return act()
        self.passes(f"{boundary}:before")
        result = act()
        self.passes(f"{boundary}:after")
        return result

    def opened(self, path: object, flags: int) -> None:
        if flags & (os.O_WRONLY | os.O_RDWR) and isinstance(path, str | bytes | os.PathLike):
            text = os.fsdecode(path)
            if (what := boundaries.of_file(text)) and Path(text).parent != self._folder:
                os.write(self._passed, f"{self._process}:open:{what}\n".encode())


def arm_files(fuse: Fuse) -> None:
    """Names that appear and go. pathlib calls these too."""

    def renamed(source: Any, target: Any, **options: Any) -> None:
        what = boundaries.of_file(os.fspath(target))
        fuse.around(what and f"name-{what}", lambda: rename(source, target, **options))

    def replaced(source: Any, target: Any, **options: Any) -> None:
        what = boundaries.of_file(os.fspath(target))
        fuse.around(what and f"name-{what}", lambda: replace(source, target, **options))

    def unlinked(path: Any, **options: Any) -> None:
        # Within a folder that is open only shutil.rmtree removes: a temporary one.
        what = None if options.get("dir_fd") is not None else boundaries.of_file(os.fspath(path))
        fuse.around(what and f"remove-{what}", lambda: unlink(path, **options))

    vars(os).update(rename=renamed, replace=replaced, unlink=unlinked)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            fuse.opened(arguments[0], arguments[2] or 0)

    sys.addaudithook(audit)


def arm_client(fuse: Fuse) -> None:
    """All writes to the API server."""
    from allocator.kube.client import KubeClient  # noqa: PLC0415 - the plugin has none

    send = KubeClient._send  # noqa: SLF001 - the one place

    @wraps(send)
    async def armed(self: KubeClient, method: str, path: str, **options: Any) -> Any:
        if method == "GET" or "dryRun" in options["params"]:
            return await send(self, method, path, **options)
        boundary = boundaries.of_request(method, path, options["body"])
        fuse.passes(f"{boundary}:before")
        answer = await send(self, method, path, **options)
        fuse.passes(f"{boundary}:after")
        return answer

    KubeClient._send = armed  # type: ignore[method-assign]  # noqa: SLF001


def arm_plugin(fuse: Fuse) -> None:
    """What the plugin asks the agent for, and what it tells the runtime."""
    from cni import plugin  # noqa: PLC0415 - the others do not have it
    from cni.agent import Agent  # noqa: PLC0415

    ask, receive, write_all = Agent.ask, Agent._receive, plugin.write_all  # noqa: SLF001
    asked: list[str] = []

    def armed_ask(self: Agent, method: str, target: str, body: Any = None) -> bytes:
        if (command := boundaries.COMMANDS.get((method, target))) is None:
            return ask(self, method, target, body)
        asked.append(f"ask-{command}")
        answer: bytes = fuse.around(asked[-1], lambda: ask(self, method, target, body))
        return answer

    def armed_receive(self: Agent, connection: Any) -> bytes:
        if asked:
            fuse.passes(f"{asked[-1]}:sent")
        return receive(self, connection)

    def armed_write_all(descriptor: int, data: bytes) -> None:
        fuse.around("print-result", lambda: write_all(descriptor, data))

    Agent.ask, Agent._receive = armed_ask, armed_receive  # type: ignore[method-assign]  # noqa: SLF001
    plugin.write_all = armed_write_all


def arm_plane(fuse: Fuse) -> None:
    """What the embedded API server stores. The other files that it makes are those of whoever starts it."""
    from devcluster.plane import server  # noqa: PLC0415 - the others do not have it
    from devcluster.plane.journal import Journal  # noqa: PLC0415

    append = Journal._append  # noqa: SLF001 - the one place

    def appended(self: Journal, line: bytes) -> None:
        def act() -> None:
            append(self, line[: len(line) // 2])
            fuse.passes("append-journal:torn")
            append(self, line[len(line) // 2 :])

        fuse.around("append-journal", act)

    def replaced(source: Any, target: Any, **options: Any) -> None:
        is_journal = Path(target).name == "journal"
        fuse.around("name-journal" if is_journal else None, lambda: replace(source, target, **options))

    Journal._append = appended  # type: ignore[method-assign]  # noqa: SLF001
    vars(os).update(replace=replaced)
    vars(server).update(Journal=partial(Journal, lines_limit=JOURNAL_LINES))


def main() -> None:
    folder, separator, program, *arguments = sys.argv[1:]
    if separator != "--" or program not in PROGRAMS:
        sys.exit(__doc__)
    fuse = Fuse(Path(folder), program)
    module = importlib.import_module(PROGRAMS[program])
    match program:
        case "plane":
            arm_plane(fuse)
        case "plugin":
            arm_files(fuse)
            arm_plugin(fuse)
        case _:
            arm_files(fuse)
            arm_client(fuse)
    sys.argv = [program, *arguments]
    sys.exit(module.main())


if __name__ == "__main__":
    main()
