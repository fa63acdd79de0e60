"""Patterns for pool names, as Go's path/filepath.Match reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.domain.patterns import PatternError, expanded, is_pattern


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        pytest.param("*", "rack7-v4", True, id="a star is any text"),
        pytest.param("rack*", "rack", True, id="a star may be nothing"),
        pytest.param("*-v4", "rack7-v4", True, id="a star in front"),
        pytest.param("*-v4", "rack7-v46", False, id="the end must fit"),
        pytest.param("r*7*4", "rack7-v4", True, id="two stars"),
        pytest.param("a*b*c", "aXbXbXd", False, id="two stars that do not fit"),
        pytest.param("*ab*ab", "ab", False, id="a text serves one star only"),
        pytest.param("*a/b", "xa/b", True, id="a slash that is written"),
        pytest.param("a*b", "a/b", False, id="a star does not cross a slash"),
        pytest.param("a?b", "a/b", False, id="nor does a question mark"),
        pytest.param("rack?", "rack7", True, id="a question mark is one character"),
        pytest.param("rack?", "rack", False, id="and not none"),
        pytest.param("rack?", "rack77", False, id="and not two"),
        pytest.param("rack[57]", "rack7", True, id="a set"),
        pytest.param("rack[57]", "rack6", False, id="not in the set"),
        pytest.param("rack[1-5]", "rack3", True, id="a range"),
        pytest.param("rack[1-57]", "rack7", True, id="a range and a character"),
        pytest.param("rack[^1-5]", "rack7", True, id="a negated set"),
        pytest.param("rack[^1-5]", "rack3", False, id="a negated set that holds it"),
        pytest.param("rack[!7]", "rack7", True, id="an exclamation mark is a character like any other"),
        pytest.param("rack[5-1]", "rack3", False, id="a reversed range is empty"),
        pytest.param("rack[^5-1]", "rack3", True, id="whatever is not in an empty set"),
        pytest.param(r"rack\*", "rack*", True, id="an escaped star is a star"),
        pytest.param(r"rack\*", "rack7", False, id="and nothing else"),
        pytest.param(r"[\]\-]", "]", True, id="an escaped bracket in a set"),
        pytest.param(r"[\--a]", "a", True, id="an escaped hyphen begins a range"),
        pytest.param("a]", "a]", True, id="a bracket that nothing opens"),
        pytest.param("rack.*", "rack7-v4", False, id="a dot is a dot"),
        pytest.param("rack+*(", "rack+7(", True, id="no character of a regular expression means anything"),
    ],
)
def test_a_pattern_matches_whole_names(pattern: str, name: str, *, matches: bool) -> None:
    assert expanded([pattern, "*"], [name])[0] == (name if matches else pattern)


@pytest.mark.parametrize(
    "text", ["[", "a[", "[]", "[]a]", "[^]", "[a", "[a-", "[a-]", "[-a]", "[a--b", "a\\", "[\\", "x*[]"]
)
def test_a_malformed_pattern_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(PatternError) as refusal:
        expanded([text], ["a"])
    assert str(refusal.value).startswith(f'"{text}" is no pattern: ')


@pytest.mark.parametrize(
    ("text", "answer"),
    [("pool-a", False), ("pool.a", False), ("*", True), ("p?", True), ("[ab]", True), ("[ab", True), ("a\\", True)],
)
def test_a_name_with_a_magic_character_is_a_pattern(text: str, *, answer: bool) -> None:
    assert is_pattern(text) is answer


NAMES = ["d", "b1", "a", "b2", "c"]


@pytest.mark.parametrize(
    ("listed", "result"),
    [
        pytest.param(["d", "a"], ["d", "a"], id="literal names stay as they are"),
        pytest.param(["nowhere"], ["nowhere"], id="unknown ones too"),
        pytest.param(["d", "b*", "a"], ["d", "b1", "b2", "a"], id="in its place, in alphabetical order"),
        pytest.param(["b2", "b*"], ["b2", "b1"], id="a pattern does not repeat a literal name before it"),
        pytest.param(["b*", "b1"], ["b2", "b1"], id="nor one behind it"),
        pytest.param(["*1", "b*"], ["b1", "b2"], id="nor what another pattern has given"),
        pytest.param(["b*", "*1"], ["b1", "b2"], id="a pattern that adds nothing is gone"),
        pytest.param(["x*", "a"], ["x*", "a"], id="a pattern without a match stays and can be told"),
    ],
)
def test_a_list_is_expanded_in_place_and_without_doubles(listed: list[str], result: list[str]) -> None:
    assert list(expanded(listed, NAMES)) == result


def naive(pattern: str, name: str) -> bool:
    """The definition, by recursion: stars and question marks only."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(naive(pattern[1:], name[cut:]) for cut in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and naive(pattern[1:], name[1:])


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_stars_agree_with_their_definition(pattern: str, name: str) -> None:
    matches = expanded([pattern, "*"], [name])[0] == name if is_pattern(pattern) else pattern == name
    assert matches == naive(pattern, name)


def test_a_pattern_made_to_be_slow_is_not() -> None:
    # With backtracking from star to star this would not end in a lifetime.
    assert expanded(["*a" * 100 + "b"], ["a" * 253]) == ("*a" * 100 + "b",)
