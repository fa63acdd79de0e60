"""One JSON line per command, in a file that rotates. What goes wrong here goes to stderr and no further."""
# ruff: noqa: PTH103, PTH104, PTH108, PTH110, PTH116, PTH120 - pathlib loads in 6 ms

from __future__ import annotations

import os
import stat
import time

from cni.call import LEVELS, complain
from cni.wire import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.call import Call
    from cni.errors import CniError
    from cni.wire import Json


def write(call: Call, error: CniError | None) -> None:
    level = "error" if error else "warn" if "warning" in call.notes else "info"
    if not call.settings.get("log_file_path") or LEVELS[level] < LEVELS[call.settings["log_level"].lower()]:
        return
    now = time.time()
    line = {
        "ts": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z",
        "level": level,
        "event": "cni_command_failed" if error else "cni_command_done",
        "Action": call.command,
        "ContainerID": call.container_id[:128],
        "Netns": call.netns[:256],
        "IfName": call.if_name[:32],
        "PodName": call.pod[:253],
        "PodNamespace": call.namespace[:253],
        "PodUID": call.pod_uid[:64],
        "duration_ms": round((time.monotonic() - call.started) * 1000),
    } | call.notes
    line |= {"error": error.msg, "code": error.code, "details": error.details} if error else {}
    data = encode(line).encode() + b"\n"
    try:
        log = open_log(call.settings, len(data))
        os.write(log, data)  # one write with O_APPEND: lines of processes that run side by side do not mix
    except OSError as failure:
        complain(f"cannot log to {call.settings['log_file_path']}: {failure}")


def open_log(settings: Json, size: int) -> int:
    """The log file, opened, with room for `size` more bytes; rotated where it had none."""
    path = settings["log_file_path"]
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    while True:
        # NONBLOCK: a pipe without reader must not hold up a pod.
        log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640)
        status = os.fstat(log)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a regular file")
        if status.st_size == 0 or status.st_size + size <= (settings["log_file_max_size"] or 100) << 20:
            return log
        import fcntl  # noqa: PLC0415 - a shared object that only a full log needs

        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return log  # another process is rotating this file; the line ends up in the rotated one
        # The lock is on the file, not on its name: a process that gets it later sees that the name has moved on.
        try:
            if os.path.samestat(os.stat(path), status):
                rotate(path, settings["log_file_max_age"] * 86400, settings["log_file_max_count"])
        except FileNotFoundError:
            pass  # moved on, and nobody has begun the next file yet
        os.close(log)


def rotate(path: str, max_age_s: int, max_count: int) -> None:
    """PATH becomes PATH.1, that becomes PATH.2, and so on; what is too old or one too many is removed."""
    last = 0
    while os.path.exists(f"{path}.{last + 1}"):
        last += 1
    for number in range(last, 0, -1):
        old = f"{path}.{number}"
        if 0 < max_count <= number or 0 < max_age_s < time.time() - os.stat(old).st_mtime:
            os.unlink(old)
        else:
            os.rename(old, f"{path}.{number + 1}")
    os.rename(path, f"{path}.1")  # last: until here the name stands for the locked file, so nobody else comes in
