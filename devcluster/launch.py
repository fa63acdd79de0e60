"""Start a program that dies with its parent: `python -IS launch.py PARENT_PID PROGRAM [ARGUMENT...]`.

Linux sends the program SIGKILL when the thread that started it ends, however it ends (prctl(2), PR_SET_PDEATHSIG).
A small program of its own, because code between fork and exec in a process with threads may deadlock.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def command(program: str, *arguments: str) -> list[str]:
    """The command line that starts `program` (a path) so that it dies with the calling process."""
    return [sys.executable, "-IS", __file__, str(os.getpid()), program, *arguments]


def main() -> None:
    parent, program, *arguments = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it ended before the line above
        sys.exit(1)
    os.execv(program, [program, *arguments])  # noqa: S606 - there is no shell, and none is wanted


if __name__ == "__main__":
    main()
