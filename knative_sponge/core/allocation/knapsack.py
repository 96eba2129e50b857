"""Spending a number of millicores among several loss curves so that least is lost; knows no pods, bounds or resizes.

Each curve is piecewise linear and never rises. The greedy rule takes what saves most loss per millicore first. On the lower
convex hulls of the curves that rule is exact, and its loss is a lower bound for every spending. It leaves at most one curve
inside an edge of its hull. Where that curve is not convex, it really loses more there than its hull says; `spend` then
looks for a better use of those millicores. An answer that reaches the bound is known to be the best.

Cost, for n curves of k points: O(n·k) for the hulls, O(n·k·log(n·k)) for the order of their edges, and a constant for the
exchanges (at most `_ROUNDS` rounds over `_EXCHANGED_CURVES`² pairs of curves times k points).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import sub
from typing import Final, NamedTuple, TypeAlias

_EXCHANGED_CURVES: Final = 12
"""Exchanges are tried among so many curves: those whose next choice costs least."""
_ROUNDS: Final = 8
_TINY: Final = 1e-9
"""A smaller relative saving may be a rounding error."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What is lost at a size: linear between the points, constant beyond them.

    xs: millicores, strictly ascending; the first is the least that may be spent, the last the most. ys: the loss at each,
    never rising.
    """

    xs: tuple[int, ...]
    ys: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.xs or len(self.xs) != len(self.ys):
            raise ValueError("a loss has as many values as sizes, and at least one")

    def at(self, x: int) -> float:
        """The loss at `x` millicores."""
        xs, ys = self.xs, self.ys
        if x >= xs[-1]:
            return ys[-1]
        if x <= xs[0]:
            return ys[0]
        i = bisect_right(xs, x)
        left, right = xs[i - 1], xs[i]
        return ys[i - 1] + (ys[i] - ys[i - 1]) * (x - left) / (right - left)

    def least(self, x: int) -> int:
        """The fewest millicores that lose no more than `x` does."""
        xs, ys = self.xs, self.ys
        y = self.at(x)
        i = max(bisect_right(xs, x) - 1, 0)
        if ys[i] > y:
            return x
        while i > 0 and ys[i - 1] <= y:
            i -= 1
        return xs[i]

    def hull(self) -> tuple[list[int], list[float], list[float]]:
        """The lower convex hull, up to the first point that loses least: sizes and losses of its corners, and the slopes of
        the edges between them, which are negative and rise."""
        xs, ys = [self.xs[0]], [self.ys[0]]
        slopes: list[float] = []
        for x, y in zip(self.xs, self.ys, strict=True):
            if y >= ys[-1]:
                continue
            slope = (y - ys[-1]) / (x - xs[-1])
            while slopes and slope <= slopes[-1]:
                slopes.pop()
                xs.pop()
                ys.pop()
                slope = (y - ys[-1]) / (x - xs[-1])
            slopes.append(slope)
            xs.append(x)
            ys.append(y)
        return xs, ys, slopes


class Spending(NamedTuple):
    """Millicores for each curve, and a loss that no other spending can be below."""

    sizes: list[int]
    bound: float


def spend(losses: Sequence[Loss], budget: int, preferred: Sequence[int] | None = None, enough: float = 0.0) -> Spending:
    """A spending of at most `budget` millicores that loses little, and of the fewest millicores that lose so little.

    preferred: ranks of the curves. Among equal savings the curve of the lower rank comes first; default: in their order.
    enough: exchanges are tried only when the loss is above the bound by more than this share of it.
    Raises ValueError when the least sizes alone cost more than the budget.
    """
    sizes = [loss.xs[0] for loss in losses]
    left = budget - sum(sizes)
    if left < 0:
        raise ValueError(f"{budget} millicores do not even pay for the least sizes, {sum(sizes)}")
    bound = sum(loss.ys[0] for loss in losses)
    edges = _edges(losses, preferred)
    for i, (slope, _, curve, length, saves) in enumerate(edges):
        if length <= left:
            sizes[curve] += length
            left -= length
            bound -= saves
            continue
        corners = list(sizes)
        sizes[curve] += left
        bound += slope * left
        if _lost(losses, sizes) > bound + enough * abs(bound) + _TINY:
            exchange = _Exchange(losses, budget, corners, -slope)
            whole = _whole_edges(corners, left, edges[i + 1 :], curve)
            tried = [exchange.improve(start, bound) for start in (sizes, whole)]
            sizes = min(tried, key=lambda sizes: _lost(losses, sizes))
        break
    return Spending([loss.least(x) for loss, x in zip(losses, sizes, strict=True)], bound)


_Edge: TypeAlias = tuple[float, int, int, int, float]
"""Of a hull: (slope, rank of its curve, curve, millicores, loss saved)."""


def _edges(losses: Sequence[Loss], preferred: Sequence[int] | None) -> list[_Edge]:
    """The edges of all hulls; the one that saves most per millicore comes first."""
    edges: list[_Edge] = []
    for curve, loss in enumerate(losses):
        rank = curve if preferred is None else preferred[curve]
        xs, ys, slopes = loss.hull()
        edges += zip(slopes, repeat(rank), repeat(curve), map(sub, xs[1:], xs), map(sub, ys, ys[1:]))
    edges.sort()  # a curve's own edges stay in order
    return edges


def _whole_edges(corners: list[int], left: int, edges: list[_Edge], last: int) -> list[int]:
    """The corners, and what later edges fit into what is left without a part of one; `last` had none such."""
    sizes, ended = list(corners), {last}
    for _, _, curve, length, _ in edges:
        if curve in ended:
            continue
        if length <= left:
            sizes[curve] += length
            left -= length
        else:
            ended.add(curve)
    return sizes


def _lost(losses: Sequence[Loss], sizes: Sequence[int]) -> float:
    return sum(loss.at(x) for loss, x in zip(losses, sizes, strict=True))


class _Exchange:
    """Improves a spending by exchanges between two curves.

    One curve moves to a corner of its true curve, and one other curve pays the difference or takes what is left. In a best
    spending at most one curve lies between two of its points. So exchanges reach every best spending that differs from the
    present one in at most two curves.

    The reduced cost of a choice is its loss plus `slope` for each millicore, less the same of the hull's corner. Only a choice
    of a reduced cost below the gap to the bound can be part of a better spending, so only those are tried.
    """

    def __init__(self, losses: Sequence[Loss], budget: int, corners: Sequence[int], slope: float) -> None:
        self._losses = losses
        self._budget = budget
        self._corners = corners
        self._slope = slope

    def improve(self, sizes: list[int], bound: float) -> list[int]:
        """`sizes`, or sizes that lose less."""
        for _ in range(_ROUNDS):
            lost = _lost(self._losses, sizes)
            gap = lost - bound
            if gap <= _TINY * (1.0 + abs(bound)):
                break
            better = self._best_step(sizes, gap, _TINY * (1.0 + lost))
            if better is None:
                break
            sizes = better
        return sizes

    def _best_step(self, sizes: list[int], gap: float, least: float) -> list[int] | None:
        best, found = least, None
        choices = self._choices(gap)
        now = {curve: self._losses[curve].at(sizes[curve]) for curve in choices}
        free = self._budget - sum(sizes)
        for curve, points in choices.items():
            for x, y in points:
                saved, over = now[curve] - y, free - (x - sizes[curve])
                if over >= 0 and saved > best:
                    best, found = saved, [(curve, x)]
                for other, lost in now.items():
                    other_x = sizes[other] + over
                    loss = self._losses[other]
                    if other == curve or other_x < loss.xs[0]:
                        continue
                    both = saved + lost - loss.at(other_x)
                    if both > best:
                        best, found = both, [(curve, x), (other, min(other_x, loss.xs[-1]))]
        if found is None:
            return None
        better = list(sizes)
        for curve, x in found:
            better[curve] = x
        return better

    def _choices(self, gap: float) -> dict[int, list[tuple[int, float]]]:
        """The points to try, by curve, of the curves that can be moved most cheaply."""
        found: list[tuple[float, int, list[tuple[int, float]]]] = []
        for curve, loss in enumerate(self._losses):
            costs = [(cost, (x, y)) for cost, x, y in self._reduced(curve, loss) if cost < gap]
            others = [cost for cost, (x, _) in costs if x != self._corners[curve]]
            if others:
                found.append((min(others), curve, [point for _, point in costs]))
        found.sort()
        return {curve: points for _, curve, points in found[:_EXCHANGED_CURVES]}

    def _reduced(self, curve: int, loss: Loss) -> Iterator[tuple[float, int, float]]:
        corner, slope = self._corners[curve], self._slope
        here = loss.at(corner)
        for x, y in zip(loss.xs, loss.ys, strict=True):
            yield y - here + slope * (x - corner), x, y
