"""Least squares with non-negative unknowns, exact, for at most four of them; knows nothing about latency."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final

MAX_UNKNOWNS: Final = 4

_MEMBERS: Final = tuple(
    tuple(i for i in range(MAX_UNKNOWNS) if mask >> i & 1) for mask in range(1 << MAX_UNKNOWNS)
)  # fmt: skip
"""The unknowns that each bit mask names."""

_BY_DISTANCE: Final = tuple(
    tuple(sorted(range(1 << MAX_UNKNOWNS), key=lambda other: ((mask ^ other).bit_count(), other)))
    for mask in range(1 << MAX_UNKNOWNS)
)
"""For each mask all masks, the nearest first. A solution's support rarely changes by more than one unknown."""

_PIVOT: Final = 1e-12
"""Least pivot, on a unit diagonal, of a system that counts as regular."""
_SLOPE: Final = 1e-10
"""Least relative slope of a descent direction that counts; far above rounding, far below any measurement."""


def solve_regular(matrix: Sequence[Sequence[float]], vector: Sequence[float]) -> list[float]:
    """The x with ``matrix·x = vector``, for a symmetric positive definite matrix (the normal equations of a plain fit).

    Raises ValueError when the matrix is singular to working precision.
    """
    scale, scaled, target = _scaled(matrix, vector)
    solution = _solve_on(range(len(target)), scaled, target) if all(scale) else None
    if solution is None:
        raise ValueError("the matrix is singular: the samples do not determine every unknown")
    return [value * factor for value, factor in zip(solution, scale, strict=True)]


def solve_nonnegative(
    matrix: Sequence[Sequence[float]], vector: Sequence[float], support: int = -1
) -> tuple[list[float], int]:
    """The x ≥ 0 that minimises ``½·xᵀ·matrix·x − vectorᵀ·x``, and its support as a bit mask.

    matrix: symmetric, positive semi-definite, at most 4×4, such as Σ aᵢaᵢᵀ. vector: as long, such as Σ aᵢtᵢ.
    support: a guess, best the support of the previous solution. A guess that still holds costs one small solve.

    The optimum is the plain solution on its own support, and the Kuhn–Tucker conditions prove it. So supports are tried
    from the guess outwards until one passes. Rounding may let none pass when columns are nearly dependent. All sixteen have
    then been tried, and the answer is the feasible candidate of least objective.
    """
    size = len(vector)
    if not 1 <= size <= MAX_UNKNOWNS:
        raise ValueError(f"between 1 and {MAX_UNKNOWNS} unknowns, not {size}")
    scale, scaled, target = _scaled(matrix, vector)
    best, best_objective, best_support = [0.0] * size, 0.0, 0
    every = (1 << size) - 1
    for mask in _BY_DISTANCE[support & every]:
        if mask > every:
            continue
        members = _MEMBERS[mask]
        partial = _solve_on(members, scaled, target)
        if partial is None or (partial and min(partial) < 0.0):
            continue
        candidate = [0.0] * size
        objective = 0.0
        for member, value in zip(members, partial, strict=True):
            candidate[member] = value
            objective -= 0.5 * target[member] * value
        if _is_optimal(mask, candidate, scaled, target):
            best, best_support = candidate, mask
            break
        if objective < best_objective:
            best, best_objective, best_support = candidate, objective, mask
    return [value * factor for value, factor in zip(best, scale, strict=True)], best_support


def _scaled(
    matrix: Sequence[Sequence[float]], vector: Sequence[float]
) -> tuple[list[float], list[list[float]], list[float]]:
    """The same problem in unknowns whose columns have length one; a column of zeros keeps its unknown at zero."""
    scale = [matrix[i][i] ** -0.5 if matrix[i][i] > 0.0 else 0.0 for i in range(len(vector))]
    scaled = [
        [value * own * other for value, other in zip(row, scale, strict=True)]
        for row, own in zip(matrix, scale, strict=True)
    ]
    for i, row in enumerate(scaled):
        row[i] = 1.0
    return scale, scaled, [value * factor for value, factor in zip(vector, scale, strict=True)]


def _solve_on(members: Sequence[int], matrix: list[list[float]], vector: list[float]) -> list[float] | None:
    """The solution on these rows and columns, by Cholesky; None when they are dependent (a smaller support is then as good)."""
    lower: list[list[float]] = []
    forward: list[float] = []
    for i in members:
        source = matrix[i]
        row: list[float] = []
        for other, j in zip(lower, members, strict=False):
            total = source[j]
            for left, right in zip(row, other, strict=False):
                total -= left * right
            row.append(total / other[-1])
        pivot, total = source[i], vector[i]
        for left, value in zip(row, forward, strict=True):
            pivot -= left * left
            total -= left * value
        if pivot < _PIVOT:
            return None
        root = pivot**0.5
        row.append(root)
        lower.append(row)
        forward.append(total / root)
    for k in range(len(forward) - 1, -1, -1):
        row = lower[k]
        value = forward[k] = forward[k] / row[k]
        for j in range(k):
            forward[j] -= row[j] * value
    return forward


def _is_optimal(mask: int, candidate: list[float], matrix: list[list[float]], vector: list[float]) -> bool:
    """Whether no unknown outside the support lowers the objective by growing from zero (Kuhn–Tucker)."""
    tolerance = 0.0
    for i, row in enumerate(matrix):
        if mask >> i & 1:
            continue
        if not tolerance:
            tolerance = _SLOPE * max(map(abs, chain(candidate, vector)))
        slope = vector[i]
        for value, entry in zip(candidate, row, strict=True):
            slope -= value * entry
        if slope > tolerance:
            return False
    return True
