"""What the controller finds out about an object, as metav1.Condition has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

# Whether it holds, its reason (a word for programs) and its message (words for people).
Finding: TypeAlias = tuple[bool, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """metav1.Condition. `since` is lastTransitionTime: when `status` changed last, in whole seconds."""

    type: str
    status: Literal["True", "False"]
    reason: str
    message: str
    observed_generation: int
    since: datetime


def stated(kind: str, before: Iterable[Condition]) -> Finding | None:
    """What was said before of this type, for who cannot tell yet whether it still holds."""
    known = next((condition for condition in before if condition.type == kind), None)
    return None if known is None else (known.status == "True", known.reason, known.message)


def conditions(
    findings: Mapping[str, Finding], *, generation: int, before: Iterable[Condition], now: datetime
) -> tuple[Condition, ...]:
    """By the findings' types. One whose status is that of `before` keeps its time."""
    earlier = {condition.type: condition for condition in before}
    found = []
    for kind, (holds, reason, message) in findings.items():
        status: Literal["True", "False"] = "True" if holds else "False"
        known = earlier.get(kind)
        found.append(
            Condition(
                type=kind,
                status=status,
                reason=reason,
                message=message,
                observed_generation=generation,
                since=known.since if known is not None and known.status == status else now.replace(microsecond=0),
            )
        )
    return tuple(found)
