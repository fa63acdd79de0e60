"""Reading an annotation that holds JSON, so that whoever wrote it learns the place, the problem and a right value."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeGuard

from allocator.domain import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "ipam.spidernet.io/"
# Of a wrong text as it is told to the user.
_SHOWN: Final = 40
_PLAIN: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class JsonAnnotation:
    key: str
    example: str

    def __str__(self) -> str:
        return f"annotation {self.key}"

    def parsed(self, text: str) -> object:
        """errors.Invalid when the text is no JSON."""
        try:
            value: object = json.loads(text)
        except ValueError as error:
            raise self.wrong("", f"is not JSON ({error})") from None
        except RecursionError:
            raise self.wrong("", "is nested too deeply") from None
        return value

    def items(self, value: object) -> list[object]:
        if not isinstance(value, list) or not value:
            raise self.wrong("", "must be a list with at least one item")
        return value

    def members(self, value: object, where: str = "") -> Mapping[str, object]:
        """The object's members, keys in lower case: Go's decoder, which people's manifests rely on, ignores case."""
        if not isinstance(value, dict):
            raise self.wrong(where, "must be an object")
        return {str(key).lower(): member for key, member in value.items()}

    def texts(self, value: object, where: str, what: str) -> tuple[str, ...]:
        """A list of texts of ASCII's characters that can be seen, at least one; null is an empty list, as in Go.

        JSON can say characters that cannot be written anywhere else, such as half a surrogate pair.
        """
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.wrong(where, f"must be a list of {what}")
        if any(not is_plain(item) for item in value):
            raise self.wrong(where, f"must be a list of {what}, each a text without blanks")
        return tuple(value)

    def wrong(self, where: str, problem: str) -> errors.Invalid:
        place = f" at {where.removeprefix('.')}" if where else ""
        return errors.Invalid(f"{self}{place} {problem}; a right value is {self.example}")


def is_plain(value: object) -> TypeGuard[str]:
    """Whether the value is a text of ASCII's characters that can be seen, at least one."""
    return isinstance(value, str) and _PLAIN.fullmatch(value) is not None


def quoted(text: str) -> str:
    """The beginning of what a user wrote, as it can be shown."""
    return f'"{ascii(text)[1:-1]}"' if len(text) <= _SHOWN else f'"{ascii(text[:_SHOWN])[1:-1]}..."'
