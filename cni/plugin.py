"""The CNI IPAM plugin `spiderpool`: one command of the container runtime becomes one request to the node's agent.

The runtime, or a main plugin such as macvlan, starts it with CNI_COMMAND and its companions in the environment and the
network configuration on stdin. stdout gets one JSON document or nothing; a failure is CNI error JSON and exit status 1.
One JSON line goes to the log. All state is the agent's, so a signal may end this process at any moment.
CNI: https://www.cni.dev/docs/spec/.

It starts for every pod: standard library only, no module that loads slowly (re, enum and what needs them: json, socket,
signal; dataclasses, pathlib, typing), and what one command alone needs is imported by that command.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # what the module signal is made of; its enumerations cost 4 ms
import os
import sys

from cni import log
from cni.call import VERSIONS, Call, bad_variable
from cni.commands import ADD_DEADLINE_S, COMMANDS
from cni.errors import FAILED, TRY_LATER, CniError
from cni.wire import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

    from cni.wire import Json

SIGNALS = {_signal.SIGTERM: "SIGTERM", _signal.SIGINT: "SIGINT", _signal.SIGALRM: "SIGALRM"}


def main() -> None:
    """Does not return: the end of the process is all the clean-up there is, and Python's own takes 1 ms."""
    call, failure, document = Call(), None, None
    try:
        for number in SIGNALS:
            _signal.signal(number, end)
        _signal.alarm(int(ADD_DEADLINE_S) + 5)  # for what has no deadline of its own, such as a stdin that never ends
        document = run(call)
    except CniError as error:
        failure = error
    except Exception as error:  # noqa: BLE001 - the border of the process
        sys.excepthook(*sys.exc_info())
        failure = CniError(FAILED, f"unexpected {type(error).__name__}: {error}", "please report this as a bug")
    _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)
    if failure:
        document = {"cniVersion": call.cni_version, "code": failure.code, "msg": failure.msg}
        document |= {"details": failure.details} if failure.details else {}
    status = 1 if failure else 0
    try:
        write_all(1, encode(document).encode() + b"\n" if document else b"")
    except OSError as error:
        status = 1
        sys.stderr.write(f"spiderpool: cannot write to stdout: {error}\n")
    log.write(call, failure)
    os._exit(status)


def run(call: Call) -> Json | None:
    if call.command == "VERSION":
        return {"cniVersion": VERSIONS[-1], "supportedVersions": list(VERSIONS)}
    if call.command not in COMMANDS:
        raise bad_variable("CNI_COMMAND", call.command, f"{', '.join(COMMANDS)} or VERSION")
    call.read_config()
    call.check_environment()
    return COMMANDS[call.command](call)


def end(number: int, _frame: FrameType | None) -> None:
    _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)  # once is enough: what follows is the error's way out
    raise CniError(TRY_LATER, f"ended by {SIGNALS[number]} before the command was complete")


def write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
