"""What Kubernetes demands of a label selector (apimachinery validation of metav1.LabelSelector)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from allocator.domain import fields

if TYPE_CHECKING:
    from allocator.domain.fields import Problems, Raw

NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
NAME_LIMIT: Final = 63
SUBDOMAIN_LIMIT: Final = 253
SET_OPERATORS: Final = ("In", "NotIn")
OPERATORS: Final = (*SET_OPERATORS, "Exists", "DoesNotExist")


def is_label_key(text: str) -> bool:
    prefix, slash, name = text.rpartition("/")
    if slash and not (len(prefix) <= SUBDOMAIN_LIMIT and SUBDOMAIN.fullmatch(prefix)):
        return False
    return len(name) <= NAME_LIMIT and NAME.fullmatch(name) is not None


def is_label_value(text: str) -> bool:
    return text == "" or (len(text) <= NAME_LIMIT and NAME.fullmatch(text) is not None)


def check_selector(spec: Raw, key: str, problems: Problems) -> None:
    """Every problem of the selector `spec[key]`; an absent one has none."""
    path = f"spec.{key}"
    selector = spec.get(key)
    if selector is None:
        return
    if not isinstance(selector, Mapping):
        problems.invalid(path, selector, "must be a label selector: write {matchLabels: {rack: a}}")
        return
    _check_labels(selector, f"{path}.matchLabels", problems)
    expressions = fields.list_at(selector, "matchExpressions", f"{path}.matchExpressions", problems)
    for index, expression in enumerate(expressions):
        _check_expression(expression, f"{path}.matchExpressions[{index}]", problems)


def is_empty(selector: Raw) -> bool:
    return not selector.get("matchLabels") and not selector.get("matchExpressions")


def _check_labels(selector: Raw, path: str, problems: Problems) -> None:
    labels = selector.get("matchLabels")
    if labels is None:
        return
    if not isinstance(labels, Mapping):
        problems.invalid(path, labels, "must map label keys to values")
        return
    if len(labels) > fields.MAX_TYPED_ITEMS:
        problems.invalid(path, len(labels), f"has {len(labels)} labels: write at most {fields.MAX_TYPED_ITEMS}")
        return
    for key, value in labels.items():
        _check_key(key, path, problems)
        _check_value(value, f"{path}[{key}]", problems)


def _check_expression(expression: Any, path: str, problems: Problems) -> None:
    if not isinstance(expression, Mapping):
        problems.invalid(path, expression, "must be a requirement: write {key: rack, operator: Exists}")
        return
    if not expression.get("key"):
        problems.required(f"{path}.key", "name the label")
    else:
        _check_key(expression["key"], f"{path}.key", problems)
    values = fields.list_at(expression, "values", f"{path}.values", problems)
    operator = expression.get("operator")
    if operator in SET_OPERATORS and not values:
        problems.required(f"{path}.values", f"{operator} needs values")
    elif operator in OPERATORS and operator not in SET_OPERATORS and values:
        problems.forbidden(f"{path}.values", f"{operator} takes no values: leave them out")
    elif operator not in OPERATORS:
        problems.invalid(f"{path}.operator", operator, f"is no operator: write one of {', '.join(OPERATORS)}")
    for index, value in enumerate(values):
        _check_value(value, f"{path}.values[{index}]", problems)


def _check_key(key: Any, path: str, problems: Problems) -> None:
    if not isinstance(key, str) or not is_label_key(key):
        problems.invalid(path, key, "is no label key: write name or example.com/name, at most 63 characters")


def _check_value(value: Any, path: str, problems: Problems) -> None:
    if not isinstance(value, str) or not is_label_value(value):
        problems.invalid(path, value, "is no label value: letters, digits, '-', '_' and '.', at most 63 characters")
