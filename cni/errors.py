"""What the runtime is told when a command fails: the codes of the CNI specification, and sentences for people."""

from __future__ import annotations

# 999 is what the original plugin uses for everything of its own.
INCOMPATIBLE, BAD_ENVIRONMENT, IO_FAILURE, CANNOT_DECODE, BAD_CONFIG = 1, 4, 5, 6, 7
TRY_LATER, NOT_AVAILABLE, LIMITED, FAILED = 11, 50, 51, 999


class CniError(Exception):
    """`msg` is one line for people, `details` says where to look or what to do."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code, self.msg, self.details = code, msg, details
