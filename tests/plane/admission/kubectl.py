"""Types the rows of an admission table into kubectl, and compares what a user gets to see."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, assert_never

from tests.plane.admission.api import RESOURCES
from tests.plane.admission.driver import TITLES, standing
from tests.plane.admission.rows import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.plane.admission.api import Api
    from tests.plane.admission.rows import Cause, Expected, Row
    from tests.plane.support import Kubectl

# Where the text of a cause begins.
_CAUSE: Final = re.compile(rf"([a-z]\w*(?:\.\w+|\[[^\]]*\])*): (?={'|'.join(TITLES.values())}: )")
# The API server's own, about the original's finalizer.
_NOT_OURS: Final = "Warning: metadata.finalizers: "


async def type_in(api: Api, kubectl: Kubectl, row: Row) -> None:
    """The row's operation, as one command; AssertionError when kubectl shows something else than the row expects."""
    name = row.obj["metadata"]["name"]
    plural = RESOURCES[row.obj["kind"]].plural
    async with standing(api, row) as cluster:
        match row.operation:
            case "CREATE":
                # `apply` edits what is there already.
                verb = "create" if row.expected == _EXISTS else "apply"
                shown = await kubectl(verb, "-f", "-", stdin=json.dumps(row.obj), check=False)
                if " created" in shown:
                    cluster.made.append(row.obj)
            case "UPDATE":
                patch = json.dumps(row.change)
                shown = await kubectl("patch", plural, name, "--type=merge", f"--patch={patch}", check=False)
            case "DELETE":
                shown = await kubectl("delete", plural, name, "--wait=false", check=False)
            case _:
                assert_never(row.operation)
    _check(row, row.expected, shown)


async def type_in_together(kubectl: Kubectl, rows: Sequence[Row]) -> None:
    """One `kubectl apply` of all the objects, each of which is refused."""
    names = [f"{row.obj['metadata']['name']}-{number}" for number, row in enumerate(rows)]
    objects = [
        {**row.obj, "metadata": {**row.obj["metadata"], "name": name}} for name, row in zip(names, rows, strict=True)
    ]
    typed = {"apiVersion": "v1", "kind": "List", "items": objects}
    # kubectl itself would stop at the first value of another type than the schema's.
    shown = await kubectl("apply", "--validate=ignore", "-f", "-", stdin=json.dumps(typed), check=False)
    lines = shown.splitlines()
    assert len(lines) == len(rows), shown
    for name, row, line in zip(names, rows, lines, strict=True):
        assert isinstance(row.expected, Refused)
        assert line.startswith('Error from server (Invalid): error when creating "STDIN": admission webhook'), line
        assert f'"{name}" is invalid: ' in line, line
        _check_causes(row.expected.causes, line)


_EXISTS: Final = Refused(code=409, reason="AlreadyExists", words=("already exists",))


def _check(row: Row, expected: Expected, shown: str) -> None:
    lines = [line for line in shown.splitlines() if line and not line.startswith(_NOT_OURS)]
    warnings = [line.removeprefix("Warning: ") for line in lines if line.startswith("Warning: ")]
    assert len(warnings) == len(expected.warnings), shown
    for words, warning in zip(expected.warnings, warnings, strict=True):
        assert words in warning, shown
    rest = [line for line in lines if not line.startswith("Warning: ")]
    if not isinstance(expected, Refused):
        assert len(rest) == 1, shown
        assert re.search(r" (created|configured|patched|patched \(no change\)|deleted)$", rest[0]), shown
        return
    if not expected.causes:
        assert rest[0].startswith(f"Error from server ({expected.reason}): "), shown
        assert all(words in rest[0] for words in expected.words), shown
        return
    opening = f'The {row.obj["kind"]} "{row.obj["metadata"]["name"]}" is invalid: '
    assert rest[0].startswith(opening), shown
    # One problem stands in the same line, more of them in a line each.
    told = [rest[0].removeprefix(opening)] if len(rest) == 1 else [line.removeprefix("* ") for line in rest[1:]]
    assert len(told) == len(expected.causes), shown
    said = list(expected.causes)
    if expected.by_schema:  # the API server tells them in any order
        told, said = sorted(told), sorted(said, key=lambda cause: cause.field)
    for cause, line in zip(said, told, strict=True):
        assert line.startswith(f"{cause.field}: {TITLES[cause.type]}: "), shown
        assert cause.words in line, shown


def _check_causes(causes: Sequence[Cause], line: str) -> None:
    """All of them in one line."""
    begins = list(_CAUSE.finditer(line))
    assert [found.group(1) for found in begins] == [cause.field for cause in causes], line
    ends = [found.start() for found in begins[1:]] + [len(line)]
    for cause, found, end in zip(causes, begins, ends, strict=True):
        text = line[found.start() : end]
        assert text.startswith(f"{cause.field}: {TITLES[cause.type]}: "), line
        assert cause.words in text, line
