import json
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import structlog

from allocator.runtime import logs


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    yield
    structlog.reset_defaults()
    root.handlers, level = before[0], before[1]
    root.setLevel(level)


def test_a_line_is_one_json_object_with_time_level_event_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    logs.get_logger("agent").info("address_allocated", pool="v4", path=Path("/x"))
    line = json.loads(capsys.readouterr().err)
    assert datetime.fromisoformat(line.pop("ts")).utcoffset() == timedelta(0)
    assert line == {
        "level": "info",
        "event": "address_allocated",
        "logger": "agent",
        "pool": "v4",
        "path": "/x",
    }


def test_a_logger_made_before_configure_obeys_it(capsys: pytest.CaptureFixture[str]) -> None:
    log = logs.get_logger("early")
    logs.configure("warn")
    log.info("quiet")
    log.warning("loud")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["loud"]


def test_bound_context_is_on_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    with structlog.contextvars.bound_contextvars(pod="default/web-0"):
        logs.get_logger("agent").info("address_allocated")
    assert json.loads(capsys.readouterr().err)["pod"] == "default/web-0"


def test_an_exception_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    try:
        int("bad mask")
    except ValueError:
        logs.get_logger("agent").exception("request_failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: invalid literal" in json.loads(line)["exception"]


def test_warnings_of_libraries_take_the_same_form_and_their_chatter_is_dropped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("debug")
    logging.getLogger("aiohttp.access").info("GET /")
    logging.getLogger("kubernetes").warning("plugin %s failed", "aws")
    (line,) = [json.loads(text) for text in capsys.readouterr().err.splitlines()]
    assert (line["event"], line["level"], line["logger"]) == ("plugin aws failed", "warning", "kubernetes")


def test_an_unknown_level_is_refused_with_the_levels_there_are() -> None:
    with pytest.raises(ValueError, match="'loud' is unknown: use one of debug, info"):
        logs.configure("loud")
