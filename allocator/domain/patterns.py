"""Patterns in lists of pool names, in the syntax of Go's path/filepath.Match, which existing manifests are written in.

`*` is any text, `?` any character, `[ab]`, `[a-z]` and `[^a-z]` one character in or not in the set; a backslash takes
the meaning of the next character away.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAGIC: Final = frozenset("*?[\\")
_REMEMBERED: Final = 1024


class PatternError(ValueError):
    """The text is no pattern; the message says why."""


def is_pattern(name: str) -> bool:
    """Whether the name stands for other names. No object can have a name with one of these characters."""
    return not _MAGIC.isdisjoint(name)


def pattern_problem(name: str) -> str:
    """What keeps the name from being a pattern, or nothing."""
    try:
        _regex(name)
    except PatternError as error:
        return str(error)
    return ""


def expanded(listed: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """The list with each pattern replaced, in its place, by those of `names` that it matches, in alphabetical order.

    A name comes once: what is listed itself stays where it stands, and a second pattern adds what the first has not. A
    pattern without a match stays as it is. PatternError when one is malformed.
    """
    listed = tuple(listed)
    taken = {name for name in listed if not is_pattern(name)}
    if len(taken) == len(listed):
        return listed
    names = sorted(names)
    result: list[str] = []
    for item in listed:
        if not is_pattern(item):
            result.append(item)
            continue
        regex = _regex(item)
        matches = [name for name in names if regex.fullmatch(name)]
        result += [name for name in matches if name not in taken] if matches else [item]
        taken.update(matches)
    return tuple(result)


@lru_cache(maxsize=_REMEMBERED)
def _regex(pattern: str) -> re.Pattern[str]:
    """An expression without backtracking from one `*` to another: annotations come from anybody."""
    chunks = [""]
    rest = pattern
    while rest:
        if rest[0] == "*":
            chunks.append("")
            rest = rest[1:]
        else:
            part, rest = _character(rest, pattern)
            chunks[-1] += part
    first, *others = chunks
    if not others:
        return re.compile(first, re.DOTALL)
    *middle, last = others
    # Of the places where a chunk between two stars fits, the leftmost leaves the most room: no other need be tried.
    return re.compile(f"{first}{''.join(f'(?>[^/]*?{chunk})' for chunk in middle)}[^/]*{last}", re.DOTALL)


def _character(rest: str, pattern: str) -> tuple[str, str]:
    """The expression of the next character, and what is behind it."""
    if rest[0] == "?":
        return "[^/]", rest[1:]
    if rest[0] == "[":
        return _set(rest[1:], pattern)
    character, behind = _unescaped(rest, pattern)
    return re.escape(character), behind


def _set(rest: str, pattern: str) -> tuple[str, str]:
    is_negated = rest.startswith("^")
    rest = rest.removeprefix("^")
    ranges = ""
    is_empty = True
    while is_empty or not rest.startswith("]"):
        if rest[:1] in ("", "-", "]"):
            found = f'"{rest[0]}"' if rest else "its end"
            raise PatternError(f'"{pattern}" is no pattern: a [ needs a character or a range like a-z before {found}')
        first, rest = _unescaped(rest, pattern)
        last = first
        if rest.startswith("-"):
            if rest[1:2] in ("", "-", "]"):
                raise PatternError(f'"{pattern}" is no pattern: the range "{first}-" has no end')
            last, rest = _unescaped(rest[1:], pattern)
        if first <= last:  # a reversed range holds nothing
            ranges += f"{re.escape(first)}-{re.escape(last)}"
        is_empty = False
    if not ranges:
        return ("." if is_negated else "(?!)"), rest[1:]
    return f"[{'^' if is_negated else ''}{ranges}]", rest[1:]


def _unescaped(rest: str, pattern: str) -> tuple[str, str]:
    if rest[0] != "\\":
        return rest[0], rest[1:]
    if len(rest) == 1:
        raise PatternError(f'"{pattern}" is no pattern: nothing follows the \\ at its end')
    return rest[1], rest[2:]
