"""A release that the agent cannot do now: a file that it carries out when it can."""
# ruff: noqa: PTH103, PTH104, PTH108 - pathlib loads in 6 ms

from __future__ import annotations

import os

from cni.errors import TRY_LATER, CniError
from cni.wire import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.wire import Json


def keep(state_dir: str, intent: Json) -> str:
    """Write the request where the agent looks for it, so that it survives a power cut. The path; CniError 11."""
    folder = f"{state_dir}/intents"
    # '@' stands in no container ID: one name, one attachment.
    name = f"{intent['containerID']}@{intent['ifName']}"
    path, temporary = f"{folder}/{name}.json", f"{folder}/.{os.getpid()}"
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        try:
            with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(encode(intent).encode())
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        for directory in (folder, state_dir):
            descriptor = os.open(directory, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    except OSError as error:
        msg = f"the agent cannot release now, and the release cannot be kept for it: {error}"
        raise CniError(TRY_LATER, msg, f"start the agent, or make {folder} writable") from error
    return path
