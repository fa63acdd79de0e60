"""`status.conditions` to values and back. Conditions of other types, which others keep there, stay."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from allocator.domain.conditions import Condition
from allocator.kube.codec import decode_time

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from allocator.kube.resources import Object

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def decode_conditions(status: Object, types: Collection[str]) -> tuple[Condition, ...]:
    """Those of these types; of a type that somebody wrote twice the last."""
    found = {each["type"]: _decoded(each) for each in status.get("conditions") or () if each.get("type") in types}
    return tuple(found.values())


def encode_conditions(status: Object, conditions: Iterable[Condition], types: Collection[str]) -> list[dict[str, Any]]:
    """For a status that stands as `status`: those of our `types` as given, and the others as they are."""
    others = [each for each in status.get("conditions") or () if each.get("type") not in types]
    return [*map(_encoded, conditions), *others]


def _decoded(raw: Mapping[str, Any]) -> Condition:
    return Condition(
        type=raw["type"],
        status="True" if raw.get("status") == "True" else "False",
        reason=raw.get("reason", ""),
        message=raw.get("message", ""),
        observed_generation=int(raw.get("observedGeneration") or 0),
        since=_decode_since(raw.get("lastTransitionTime")),
    )


def _decode_since(text: str | None) -> datetime:
    """The epoch where no time can be read: the schema lets times through that Python does not know (`z`, second 60)."""
    try:
        return decode_time(text) or _EPOCH
    except (ValueError, OverflowError):
        return _EPOCH


def _encoded(condition: Condition) -> dict[str, Any]:
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "observedGeneration": condition.observed_generation,
        "lastTransitionTime": condition.since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
