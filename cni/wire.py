"""JSON through the C scanner and encoder on which the standard library's json is built.

They are private names of CPython, and the plugin is installed together with the interpreter that has them. To import
json takes nearly as long as a whole ADD, most of it for the regular expressions of its pure Python twin.
"""

from __future__ import annotations

from _json import encode_basestring_ascii, make_encoder, make_scanner

from cni.errors import CANNOT_DECODE, CniError

TYPE_CHECKING = False  # as in typing, which loads in 4 ms
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

WHITESPACE = " \t\n\r"


class Rules:
    """What two parsers may read in two ways is refused: a key twice, NaN."""

    strict = True
    object_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def object_pairs_hook(pairs: list[tuple[str, object]]) -> Json:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("an object has a key twice")
        return found

    @staticmethod
    def parse_constant(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")


def refuse(value: object) -> None:
    raise TypeError(f"{type(value).__name__} is not JSON")


scan = make_scanner(Rules)  # type: ignore[arg-type] # it reads these attributes of whatever it gets
# No check for circles, no indent, only numbers that JSON has.
encoder = make_encoder(None, refuse, encode_basestring_ascii, None, ": ", ", ", False, False, False)


def parse(text: str) -> Any:
    """ValueError or RecursionError if it is not one JSON document."""
    try:
        value, end = scan(text, len(text) - len(text.lstrip(WHITESPACE)))
        if not text[end:].strip(WHITESPACE):
            return value
    except (StopIteration, SystemError, ValueError):  # SystemError: without json it has no exception to raise
        pass
    from json import loads  # noqa: PLC0415 - it says what is wrong

    return loads(text, object_pairs_hook=Rules.object_pairs_hook, parse_constant=Rules.parse_constant)


def decode(data: bytes, what: str) -> Json:
    """A JSON object. CniError 6, which begins with `what`."""
    try:
        decoded = parse(data.decode())
    except (ValueError, RecursionError) as error:
        raise CniError(CANNOT_DECODE, f"{what} is not valid JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise CniError(CANNOT_DECODE, f"{what} is not a JSON object")
    return decoded


def encode(value: object) -> str:
    return "".join(encoder(value, 0))


def objects(parent: Json, key: str) -> list[Json]:
    """The list of objects that is a member of what the agent or the runtime sent; empty when it is absent or null."""
    items = parent.get(key) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise nonsense(f"{key} is not a list of objects")
    return items


def nonsense(why: str) -> CniError:
    return CniError(CANNOT_DECODE, f"the agent's answer (or the prevResult of a CHECK) makes no sense: {why}")
