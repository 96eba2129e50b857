"""What is changed in a source, what is left alone, and that each change is one token."""

from __future__ import annotations

import io
import random
import tokenize

import pytest

from tests.mutants.mutation import Mutation, compiles, mutations
from tests.mutants.rooms import ROOT, rooms

LEFT_ALONE = '''
"""More than 1 and not less than 0."""
from typing import Protocol

__all__ = ["x"]
NAME = "a < b"


@cached(size=1)
class Reader(Protocol):
    def read(self, most: int = 1) -> bytes: ...


class Row(Struct, frozen=True): ...


@frozen(slots=True)
def find(rows: Literal[1], /, *, most: "int | None", **others: Literal[2]) -> Literal[3]:
    found: Literal[4] = self.min(min=most)
    assert found, f"not {found + 1}"
    log.info("%s and %s", found + 1, not found)
    for row in zip(rows, *others, strict=True):
        yield row, f"{row + 1}"
'''


def mutants(source: str) -> list[str]:
    return [m.mutant for m in mutations(source, "a.py") if compiles(m, source)]


def tokens(source: str) -> list[str]:
    return [token.string for token in tokenize.generate_tokens(io.StringIO(source).readline)]


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("a < b <= c", ["a <= b <= c", "a < b < c"]),
        ("a > b >= c", ["a >= b >= c", "a > b > c"]),
        ("a == b", ["a != b"]),
        ("a != b", ["a == b"]),
        ("a is b", ["a is not b"]),
        ("a is not b", ["a is  b"]),
        ("a in b", ["a not in b"]),
        ("a not in b", ["a  in b"]),
        ("a = not b", ["a =  b"]),
        ("a and b or c", ["a or b or c", "a and b and c"]),
        ("a + b - c", ["a - b - c", "a + b + c"]),
        ("a * b / c", ["a / b / c", "a * b * c"]),
        ("a // b", ["a * b"]),
        ("a += b", ["a -= b"]),
        ("-a", ["+a"]),
        (
            "[0, 7, 1.5, 10_000]",
            ["[1, 7, 1.5, 10_000]", "[0, 8, 1.5, 10_000]", "[0, 7, 2.5, 10_000]", "[0, 7, 1.5, 10001]"],
        ),
        ("a = True, False", ["a = False, False", "a = True, True"]),
        ("min(a), max(b)", ["max(a), max(b)", "min(a), min(b)"]),
        ("any(a), all(b)", ["all(a), all(b)", "any(a), any(b)"]),
        ("for a in b: break", ["for a in b: continue"]),
        ("for a in b: continue", ["for a in b: break"]),
        ("f(*a, **b)", []),
    ],
)
def test_what_becomes_of_a_line(source: str, changed: list[str]) -> None:
    assert mutants(source) == changed


def test_what_no_test_can_mind_is_left_alone() -> None:
    assert mutants(LEFT_ALONE) == []


def test_a_mutant_of_the_product_differs_by_one_token() -> None:
    sources = {file: (ROOT / file).read_text() for room in rooms() for file in room.modules}
    found = [m for file, source in sources.items() for m in mutations(source, file)]
    for mutation in random.Random(1).sample(found, 300):
        before, after = tokens(sources[mutation.file]), tokens(mutation.apply(sources[mutation.file]))
        start = next(i for i, (x, y) in enumerate(zip(before, after, strict=False)) if x != y)
        changed = mutation.after.split()
        if mutation.before == "is":
            start, changed = start - 1, ["is", "not"]
        assert before[:start] + changed + before[start + 1 :] == after


def test_columns_are_right_after_characters_of_several_bytes() -> None:
    assert mutants('def f(λ: "σ" = 1, *, ε: Literal[2] = 3) -> None: ...') == [
        'def f(λ: "σ" = 2, *, ε: Literal[2] = 3) -> None: ...',
        'def f(λ: "σ" = 1, *, ε: Literal[2] = 4) -> None: ...',
    ]


STATEMENTS = """
LIMIT = 1
class A:
    size: int = 2

    def f(self, most=3):
        if (
            most > 4
        ):
            return [
                5,
            ]
        match most:
            case 6 if (
                self
            ):
                pass
        try:
            g()
        except h(7):
            pass
"""


def test_whoever_executes_a_line_of_the_statement_executes_the_token() -> None:
    found = {m.before: m for m in mutations(STATEMENTS, "a.py")}

    def at(number: str) -> tuple[tuple[int, int], bool]:
        mutation: Mutation = found[number]
        return mutation.statement, mutation.at_import

    assert at("1") == ((2, 2), True)
    assert at("2") == ((4, 4), True)
    assert at("3") == ((6, 6), True)
    assert at("4") == ((7, 9), False)
    assert at("5") == ((10, 12), False)
    assert at("6") == ((14, 16), False)
    assert at("7") == ((20, 20), False)
