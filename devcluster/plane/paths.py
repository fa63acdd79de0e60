r"""The part of JSONPath that printer columns and selectable fields use: `.a.b[0].c`, `['x\.y']`, `[*]`."""

import functools
import json
import re
from typing import Any

_TOKEN = re.compile(
    r"""\.(?P<name>(?:[^.\[\]\\'"]|\\.)+)      # .name, with \. for a dot inside
      | \[(?P<index>-?\d+)\]                   # [0]
      | \[(?P<every>\*)\]                      # [*]
      | \[(?P<quote>['"])(?P<key>(?:[^\\]|\\.)*?)(?P=quote)\]   # ['a\.b']
    """,
    re.VERBOSE,
)


@functools.cache
def parse(path: str) -> tuple[str | int | None, ...]:
    """Keys, indexes and None for every element. ValueError when the path is outside the subset."""
    path = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    steps: list[str | int | None] = []
    at = 0
    while at < len(path):
        found = _TOKEN.match(path, at)
        if not found:
            raise ValueError(f"unsupported JSONPath {path!r}: only .name, ['name'], [0] and [*] are understood")
        at = found.end()
        if found["index"] is not None:
            steps.append(int(found["index"]))
        elif found["every"]:
            steps.append(None)
        else:
            steps.append(re.sub(r"\\(.)", r"\1", found["name"] or found["key"]))
    return tuple(steps)


def find(obj: Any, path: str) -> list[Any]:
    """All values at the path; empty when it leads nowhere."""
    found = [obj]
    for step in parse(path):
        found = [after for value in found for after in _step(value, step)]
    return found


def _step(value: Any, step: str | int | None) -> list[Any]:
    match value, step:
        case list(), None:
            return value
        case dict(), None:
            return list(value.values())
        case list(), int() if -len(value) <= step < len(value):
            return [value[step]]
        case dict(), str() if step in value:
            return [value[step]]
        case _:
            return []


def text(value: Any) -> str:
    """As a column or a field selector shows it: plain strings, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def text_at(obj: Any, path: str) -> str:
    found = find(obj, path)
    return text(found[0]) if found and found[0] is not None else ""
