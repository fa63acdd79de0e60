"""RFC 6902 patches that say only what was meant: lists are replaced whole or appended to, never shuffled."""

from __future__ import annotations

from typing import Any


def patch_of(before: Any, after: Any, path: str = "") -> list[dict[str, Any]]:
    """The operations that turn `before` into `after`; both are JSON values."""
    if isinstance(before, dict) and isinstance(after, dict):
        operations = [{"op": "remove", "path": _join(path, key)} for key in before if key not in after]
        for key, value in after.items():
            if key in before:
                operations += patch_of(before[key], value, _join(path, key))
            else:
                operations.append({"op": "add", "path": _join(path, key), "value": value})
        return operations
    if isinstance(before, list) and isinstance(after, list) and before and after[: len(before)] == before:
        return [{"op": "add", "path": f"{path}/-", "value": value} for value in after[len(before) :]]
    # 1 == True and 1 == 1.0 in Python, not in JSON; no completion changes one into the other.
    return [] if before == after else [{"op": "replace", "path": path, "value": after}]


def _join(path: str, key: str) -> str:
    escaped = key.replace("~", "~0").replace("/", "~1")
    return f"{path}/{escaped}"
