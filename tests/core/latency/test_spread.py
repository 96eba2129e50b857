"""How far measurements scatter, by region."""

from __future__ import annotations

from math import sqrt

import pytest

from knative_sponge.core.latency.spread import MAX_SIGMA, MIN_SIGMA, UNSEEN_SIGMA, Scatter, Spread


def test_scatter_is_a_plain_mean_at_first_and_a_fading_one_later() -> None:
    scatter = Scatter().joined_by(0.1, 0.5)
    assert (scatter.count, scatter.square) == pytest.approx((1, 0.01))
    scatter = scatter.joined_by(-0.3, 0.5)
    assert (scatter.count, scatter.square) == pytest.approx((2, 0.05))
    scatter = scatter.joined_by(0.1, 0.5)
    assert (scatter.count, scatter.square) == pytest.approx((3, 0.03))


def test_few_samples_are_pulled_to_what_is_known_besides() -> None:
    assert Scatter().shrunk_to(0.04) == pytest.approx(0.04)
    assert Scatter(4, 0.02).shrunk_to(0.04) == pytest.approx(0.03)
    assert Scatter(12, 0.02).shrunk_to(0.04) == pytest.approx(0.025)


def test_a_region_leans_on_the_whole_and_the_whole_on_what_is_assumed() -> None:
    spread = Spread(0.98)
    assert spread.sigma((0, 0)) == UNSEEN_SIGMA
    for _ in range(4):
        spread.observe((0, 0), 0.15)
    whole = (0.15**2 + UNSEEN_SIGMA**2) / 2
    assert spread.sigma((3, 3)) == pytest.approx(sqrt(whole))
    assert spread.sigma((0, 0)) == pytest.approx(sqrt((0.15**2 + whole) / 2))


@pytest.mark.parametrize(("residual", "sigma"), [(0.0, MIN_SIGMA), (9.0, MAX_SIGMA)])
def test_sigma_has_bounds(residual: float, sigma: float) -> None:
    spread = Spread(0.98)
    for _ in range(300):
        spread.observe((0, 0), residual)
    assert spread.sigma((0, 0)) == sigma


@pytest.mark.parametrize(("count", "square"), [(-1, 0.0), (0, -0.1), (0, float("inf")), (0, float("nan"))])
def test_impossible_scatter_is_refused(count: int, square: float) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Scatter(count, square)
