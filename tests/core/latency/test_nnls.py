"""Non-negative least squares against exact enumeration in rationals, and against the Kuhn–Tucker conditions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.latency import nnls
from knative_sponge.core.latency.nnls import solve_nonnegative, solve_regular

Rows = list[list[int]]

entries = st.integers(-6, 6)


@st.composite
def problems(draw: st.DrawFn, least_rows: int = 1) -> tuple[Rows, list[int]]:
    """A small least squares problem: rows of the design matrix, and their targets."""
    size = draw(st.integers(1, 4))
    count = draw(st.integers(least_rows, 7))
    rows = draw(st.lists(st.lists(entries, min_size=size, max_size=size), min_size=count, max_size=count))
    return rows, draw(st.lists(entries, min_size=count, max_size=count))


def normal_equations(rows: Rows, targets: list[int]) -> tuple[list[list[float]], list[float]]:
    columns = list(zip(*rows, strict=True))
    matrix = [[float(sum(a * b for a, b in zip(left, right, strict=True))) for right in columns] for left in columns]
    return matrix, [float(sum(a * t for a, t in zip(column, targets, strict=True))) for column in columns]


def exact_solution(matrix: list[list[Fraction]], vector: list[Fraction]) -> list[Fraction] | None:
    """Gauss–Jordan in rationals; None when singular."""
    size = len(vector)
    work = [[*row, value] for row, value in zip(matrix, vector, strict=True)]
    for i in range(size):
        pivot = next((k for k in range(i, size) if work[k][i]), None)
        if pivot is None:
            return None
        work[i], work[pivot] = work[pivot], work[i]
        work[i] = [value / work[i][i] for value in work[i]]
        for k in range(size):
            if k != i and work[k][i]:
                work[k] = [a - work[k][i] * b for a, b in zip(work[k], work[i], strict=True)]
    return [row[-1] for row in work]


def squared_error(rows: Rows, targets: list[int], x: list[Fraction]) -> Fraction:
    errors = (
        sum((a * b for a, b in zip(row, x, strict=True)), start=-Fraction(target))
        for row, target in zip(rows, targets, strict=True)
    )
    return sum((error * error for error in errors), start=Fraction(0))


def least_squared_error(rows: Rows, targets: list[int]) -> Fraction:
    """The exact optimum: the best feasible plain solution over every subset of unknowns."""
    matrix, vector = normal_equations(rows, targets)
    size = len(vector)
    best = squared_error(rows, targets, [Fraction(0)] * size)
    for count in range(1, size + 1):
        for members in combinations(range(size), count):
            partial = exact_solution(
                [[Fraction(matrix[i][j]) for j in members] for i in members], [Fraction(vector[i]) for i in members]
            )
            if partial is not None and min(partial) >= 0:
                x = [Fraction(0)] * size
                for i, value in zip(members, partial, strict=True):
                    x[i] = value
                best = min(best, squared_error(rows, targets, x))
    return best


@given(problems(), st.integers(0, 15))
def test_the_solution_is_feasible_and_as_good_as_the_exact_optimum(problem: tuple[Rows, list[int]], guess: int) -> None:
    rows, targets = problem
    x, support = solve_nonnegative(*normal_equations(rows, targets), guess)

    assert all(value >= 0.0 for value in x)
    assert all(value == 0.0 for i, value in enumerate(x) if not support >> i & 1)
    reached = squared_error(rows, targets, [Fraction(value) for value in x])
    assert float(reached - least_squared_error(rows, targets)) <= 1e-9 * (1 + sum(t * t for t in targets))


@given(problems(), st.lists(st.integers(-8, 8), min_size=4, max_size=4))
def test_units_of_the_unknowns_do_not_matter(problem: tuple[Rows, list[int]], exponents: list[int]) -> None:
    matrix, vector = normal_equations(*problem)
    units = [10.0**exponent for exponent in exponents[: len(vector)]]
    size = range(len(vector))
    x, _ = solve_nonnegative(
        [[matrix[i][j] * units[i] * units[j] for j in size] for i in size], [vector[i] * units[i] for i in size]
    )

    rows, targets = problem
    reached = squared_error(rows, targets, [Fraction(value * own) for value, own in zip(x, units, strict=True)])
    assert float(reached - least_squared_error(rows, targets)) <= 1e-9 * (1 + sum(t * t for t in targets))


@given(problems(least_rows=4))
def test_no_unknown_can_improve_the_solution_by_growing_or_shrinking(problem: tuple[Rows, list[int]]) -> None:
    matrix, vector = normal_equations(*problem)
    x, _ = solve_nonnegative(matrix, vector)
    scale = max(1.0, *map(abs, vector), max(abs(value) for row in matrix for value in row) * max(x))

    for row, value, target in zip(matrix, x, vector, strict=True):
        slope = target - sum(entry * other for entry, other in zip(row, x, strict=True))
        assert slope <= 1e-8 * scale
        if value > 0.0:
            assert slope == pytest.approx(0.0, abs=1e-8 * scale)


def test_a_support_that_still_holds_costs_one_solve(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = [[4.0, 1.0, 0.0, 0.5], [1.0, 3.0, 0.2, 0.0], [0.0, 0.2, 2.0, 0.1], [0.5, 0.0, 0.1, 1.0]]
    _, support = solve_nonnegative(matrix, [1.0, -2.0, 3.0, 0.4])
    assert 0 < support < 15
    solves: list[Sequence[int]] = []
    solve_on = nnls._solve_on

    def counted(members: Sequence[int], matrix: list[list[float]], vector: list[float]) -> list[float] | None:
        solves.append(members)
        return solve_on(members, matrix, vector)

    monkeypatch.setattr(nnls, "_solve_on", counted)

    moved, again = solve_nonnegative(matrix, [1.1, -1.9, 3.1, 0.5], support)

    assert again == support
    assert len(solves) == 1
    assert moved == pytest.approx(solve_nonnegative(matrix, [1.1, -1.9, 3.1, 0.5], 0)[0])


def test_an_unknown_nothing_was_measured_about_stays_zero() -> None:
    x, _ = solve_nonnegative([[0.0, 0.0], [0.0, 2.0]], [0.0, 3.0])

    assert x == [0.0, pytest.approx(1.5)]


def test_all_zero_is_an_answer() -> None:
    assert solve_nonnegative([[1.0, 0.0], [0.0, 1.0]], [-1.0, -2.0]) == ([0.0, 0.0], 0)


@pytest.mark.parametrize("size", [0, 5])
def test_only_one_to_four_unknowns_are_taken(size: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 4"):
        solve_nonnegative([[1.0] * size] * size, [1.0] * size)


@given(problems(least_rows=4))
def test_the_plain_solution_is_the_exact_one(problem: tuple[Rows, list[int]]) -> None:
    matrix, vector = normal_equations(*problem)
    exact = exact_solution([[Fraction(v) for v in row] for row in matrix], [Fraction(v) for v in vector])
    if exact is None:
        with pytest.raises(ValueError, match="singular"):
            solve_regular(matrix, vector)
        return
    reached = squared_error(*problem, [Fraction(value) for value in solve_regular(matrix, vector)])
    assert float(reached - squared_error(*problem, exact)) <= 1e-9
