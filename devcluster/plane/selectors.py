"""Label and field selectors: the text grammar of list requests and the object form of webhook configurations."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from devcluster.plane import problems
from devcluster.plane.problems import Object

Labels = Mapping[str, str]
Predicate = Callable[[Labels], bool]

_KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_SET = re.compile(rf"\s*({_KEY})\s+(in|notin)\s+\(([^()]*)\)\s*$")
_EQUAL = re.compile(rf"\s*({_KEY})\s*(==|=|!=)\s*({_VALUE})\s*$")
_COMPARE = re.compile(rf"\s*({_KEY})\s*([<>])\s*(-?\d+)\s*$")
_EXISTS = re.compile(rf"\s*(!?)\s*({_KEY})\s*$")


def _requirement(text: str) -> Predicate:
    if found := _SET.match(text):
        key, operator, inside = found.groups()
        values = {value.strip() for value in inside.split(",")}
        if not all(re.fullmatch(_VALUE, value) for value in values):
            raise problems.bad_request(f"unable to parse requirement: invalid label value in {text.strip()!r}")
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUAL.match(text):
        key, operator, value = found.groups()
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _COMPARE.match(text):
        key, operator, bound = found.groups()
        above = operator == ">"

        def compare(labels: Labels) -> bool:
            value = labels.get(key, "")
            if not re.fullmatch(r"-?\d+", value):
                return False
            return int(value) > int(bound) if above else int(value) < int(bound)

        return compare
    if found := _EXISTS.match(text):
        absent, key = found.groups()
        return (lambda labels: key not in labels) if absent else (lambda labels: key in labels)
    raise problems.bad_request(f"unable to parse requirement: found '{text.strip()}', expected: identifier")


def _split(text: str) -> list[str]:
    """At the commas that are not inside parentheses."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def parse_labels(text: str) -> Predicate | None:
    """None for 'everything'. Problem 400 when the text does not parse."""
    if not text.strip():
        return None
    requirements = [_requirement(part) for part in _split(text)]
    return lambda labels: all(requirement(labels) for requirement in requirements)


def matches(selector: Object | None, labels: Labels) -> bool:
    """The object form: matchLabels and matchExpressions. An absent selector matches everything here."""
    if not selector:
        return True
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression(expression, labels) for expression in selector.get("matchExpressions") or [])


def _expression(expression: Mapping[str, Any], labels: Labels) -> bool:
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return False


def parse_fields(text: str) -> list[tuple[str, bool, str]]:
    """(field, wanted equal?, value) for each term; backslash escapes `,`, `=` and itself."""
    terms: list[tuple[str, bool, str]] = []
    for part in re.split(r"(?<!\\),", text):
        if not part.strip():
            continue
        found = re.match(r"((?:[^=!\\]|\\.)+)(==|=|!=)(.*)$", part.strip(), re.DOTALL)
        if not found:
            raise problems.bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        field, operator, value = found.groups()
        terms.append((field, operator != "!=", re.sub(r"\\([\\,=])", r"\1", value)))
    return terms
