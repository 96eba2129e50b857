"""Spending millicores among loss curves, against an oracle that tries every whole number of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.allocation.knapsack import Loss, spend


def loss_of(low: int, steps: Sequence[tuple[int, float]], last: float) -> Loss:
    """A curve from (millicores, loss saved) of each of its segments."""
    xs = list(accumulate([low, *[length for length, _ in steps]]))
    total = sum(saved for _, saved in steps)
    ys = [last + total - saved for saved in accumulate([0.0, *[saved for _, saved in steps]])]
    return Loss(tuple(xs), tuple(ys))


segments = st.tuples(st.integers(1, 9), st.integers(0, 30).map(float))
curves = st.builds(loss_of, st.integers(0, 5), st.lists(segments, max_size=5), st.just(0.0))


def convex(loss: Loss) -> Loss:
    """Its segments with the steepest first."""
    steps = [(loss.xs[i + 1] - loss.xs[i], loss.ys[i] - loss.ys[i + 1]) for i in range(len(loss.xs) - 1)]
    return loss_of(loss.xs[0], sorted(steps, key=lambda step: -step[1] / step[0]), loss.ys[-1])


def optimum(losses: Sequence[Loss], budget: int) -> float:
    """The least loss of any spending."""
    best = {0: 0.0}  # by millicores spent
    for loss in losses:
        more: dict[int, float] = {}
        for spent, lost in best.items():
            for x in range(loss.xs[0], min(loss.xs[-1], budget - spent) + 1):
                more[spent + x] = min(more.get(spent + x, float("inf")), lost + loss.at(x))
        best = more
    return min(best.values())


def lost(losses: Sequence[Loss], sizes: Sequence[int]) -> float:
    return sum(loss.at(x) for loss, x in zip(losses, sizes, strict=True))


def least(losses: Sequence[Loss]) -> int:
    return sum(loss.xs[0] for loss in losses)


def random_steps(count: int, rng: random.Random) -> list[Loss]:
    """Curves as unlike a convex one as any: every segment saves anything from nothing to all."""
    return [loss_of(1, [(rng.randint(1, 12), rng.random()) for _ in range(6)], 0.0) for _ in range(count)]


@given(st.lists(curves, min_size=1, max_size=5), st.integers(0, 60))
def test_convex_curves_lose_the_least_that_is_possible(losses: list[Loss], over: int) -> None:
    losses = [convex(loss) for loss in losses]
    budget = least(losses) + over
    spending = spend(losses, budget)
    assert lost(losses, spending.sizes) == pytest.approx(optimum(losses, budget))
    assert spending.bound == pytest.approx(optimum(losses, budget))


@given(st.lists(curves, min_size=1, max_size=5), st.integers(0, 60))
def test_nothing_loses_less_than_the_bound(losses: list[Loss], over: int) -> None:
    budget = least(losses) + over
    spending = spend(losses, budget)
    best = optimum(losses, budget)
    assert spending.bound <= best + 1e-9
    assert best <= lost(losses, spending.sizes) + 1e-9


@given(st.lists(curves, min_size=1, max_size=2), st.integers(0, 60))
def test_two_curves_of_any_form_lose_the_least_that_is_possible(losses: list[Loss], over: int) -> None:
    budget = least(losses) + over
    assert lost(losses, spend(losses, budget).sizes) == pytest.approx(optimum(losses, budget))


@given(st.lists(curves, min_size=1, max_size=6), st.integers(0, 80))
def test_no_more_is_spent_than_there_is_or_than_helps(losses: list[Loss], over: int) -> None:
    budget = least(losses) + over
    sizes = spend(losses, budget).sizes
    assert sum(sizes) <= budget
    for loss, x in zip(losses, sizes, strict=True):
        assert loss.xs[0] <= x <= loss.xs[-1]
        assert x == loss.xs[0] or loss.at(x - 1) > loss.at(x)


def test_curves_of_any_form_lose_hardly_more_than_the_best() -> None:
    """Exchanges between two curves miss what needs three; more pods make that rarer and its share smaller."""
    rng = random.Random(5)
    gaps = []
    for count in (3, 4, 6, 8) * 25:
        losses = random_steps(count, rng)
        budget = least(losses) + rng.randint(1, sum(loss.xs[-1] for loss in losses) - least(losses))
        best = optimum(losses, budget)
        gaps.append((lost(losses, spend(losses, budget).sizes) - best) / max(best, 0.1))
    assert mean(gaps) < 0.002
    assert max(gaps) < 0.05


def test_equal_curves_are_served_by_rank() -> None:
    losses = [loss_of(1, [(10, 10.0)], 0.0)] * 3
    assert spend(losses, 14, [2, 0, 1]).sizes == [1, 11, 2]


def test_less_than_the_least_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match="least sizes"):
        spend([loss_of(5, [], 0.0)], 4)


@given(curves, st.integers(0, 60))
def test_the_least_size_of_a_loss_loses_as_little(loss: Loss, x: int) -> None:
    found = loss.least(x)
    assert loss.at(found) == loss.at(x)
    assert found == loss.xs[0] or loss.at(found - 1) > loss.at(x)
