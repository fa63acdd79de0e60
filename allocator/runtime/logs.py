"""Logging: one JSON object per line on stderr, `event` a snake_case constant, everything variable a field."""

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, TextIO, cast

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor

# The original's level names too: zap says warn, and has levels above error that we do not need.
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "dpanic": logging.CRITICAL,
    "panic": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}


def get_logger(name: str) -> "FilteringBoundLogger":
    """A logger whose lines carry `logger: name`. May be made at import time, before `configure`."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def configure(level: str) -> None:
    """Set up logging for the process. Lines of the libraries (asyncio, aiohttp, kubernetes) take the same form
    from warning up. Fields bound with `structlog.contextvars` are added to each line. ValueError names a bad level.
    """
    try:
        threshold = LEVELS[level.strip().lower()]
    except KeyError:
        raise ValueError(f"log level {level!r} is unknown: use one of {', '.join(LEVELS)}") from None
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
    ]
    render = structlog.processors.JSONRenderer(default=str)
    structlog.configure(
        processors=[_add_name, *shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=_stderr_logger,
        # Loggers are made at import time; caching would freeze them before the level is known.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)


class _Lenient:
    """sys.stderr, but that a disk without room or a reader that went away costs the line and not what is logged."""

    def __init__(self) -> None:
        self._file = sys.stderr

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()


class _StderrLogger(structlog.WriteLogger):
    def __init__(self, name: str) -> None:
        super().__init__(cast("TextIO", _Lenient()))
        self.name = name


def _stderr_logger(name: str = "", *_args: object) -> _StderrLogger:
    # Made anew for each line, so that whoever replaces sys.stderr gets the lines.
    return _StderrLogger(name)


def _add_name(logger: _StderrLogger, _method: str, event: "EventDict") -> "EventDict":
    event["logger"] = logger.name
    return event
