"""tests/FAULTS.md names tests that exist, and leaves no number out."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
ROW = re.compile(r"^\| ([FP])(\d+) \| (.+) \| (.+) \|$", re.MULTILINE)
ID = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
ROWS = [(letter + number, proof) for letter, number, _, proof in ROW.findall((TESTS / "FAULTS.md").read_text())]


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((TESTS / path).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_fault_and_every_pain_has_one_row_in_their_order() -> None:
    faults, pains = (f"F{number}" for number in range(1, 44)), (f"P{number}" for number in range(1, 13))
    assert [name for name, _ in ROWS] == [*faults, *pains]


@pytest.mark.parametrize(("name", "proof"), ROWS, ids=[name for name, _ in ROWS])
def test_a_row_names_tests_that_exist_or_says_why_there_is_none(name: str, proof: str) -> None:
    named = ID.findall(proof)
    # All of the cell, so that a typing error in an ID is not passed over.
    assert ", ".join(f"`{path}::{test}`" for path, test in named) == proof or proof.startswith("not here: ")
    for path, test in named:
        assert test in functions_of(path), f"{name}: {path}::{test}"


def test_every_test_of_a_pain_stands_in_the_row_of_its_number() -> None:
    proofs = dict(ROWS)
    for path in sorted((TESTS / "regressions").glob("test_*.py")):
        for test in functions_of(f"regressions/{path.name}"):
            found = re.match(r"test_p(\d+)[a-e]?_", test)
            if found is not None:
                assert f"::{test}`" in proofs[f"P{found[1]}"]
