"""No history makes the latency model diverge, and after any it finds the curve again."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from knative_sponge.core.latency.curve import LatencyParams, Sample
from knative_sponge.core.latency.model import LatencyModel
from tests.core.latency.learned_models import CURVE, SMALL_GRID, off
from tests.core.profiles import measured, wandering


class ClippedRecursion:
    """The textbook recursive least squares with forgetting whose parameters are clipped at zero after each step."""

    def __init__(self, start: LatencyParams, variance: float) -> None:
        self.theta = [start.gamma, start.delta, start.epsilon, start.eta]
        self.covariance = [[variance * (i == j) for j in range(4)] for i in range(4)]

    def predict_s(self, rows: float, cores: float) -> float:
        return sum(x * value for x, value in zip(self._features(rows, cores), self.theta, strict=True))

    def observe(self, sample: Sample) -> None:
        features = self._features(sample.rows, sample.cores)
        spanned = [sum(entry * x for entry, x in zip(row, features, strict=True)) for row in self.covariance]
        scale = 0.98 + sum(x * value for x, value in zip(features, spanned, strict=True))
        error = sample.seconds - self.predict_s(sample.rows, sample.cores)
        self.theta = [max(0.0, value + step / scale * error) for value, step in zip(self.theta, spanned, strict=True)]
        self.covariance = [
            [(entry - own * other / scale) / 0.98 for entry, other in zip(row, spanned, strict=True)]
            for row, own in zip(self.covariance, spanned, strict=True)
        ]

    @staticmethod
    def _features(rows: float, cores: float) -> list[float]:
        return [rows / cores, float(rows), 1.0 / cores, 1.0]


@pytest.mark.parametrize("variance", [1e-4, 1.0, 1e3])
def test_a_history_on_which_a_clipped_recursion_diverges_is_learned(variance: float) -> None:
    ours, clipped = [], []
    for seed in range(4):
        rng = random.Random(seed)
        start = CURVE.times(0.5)
        model, recursion = LatencyModel(start), ClippedRecursion(start, variance)
        for call, sample in enumerate(measured(CURVE.latency_s, wandering(800, rng), 0.1, rng)):
            truth = CURVE.latency_s(sample.rows, sample.cores)
            if call > 20:
                ours.append(abs(model.predict_s(sample.rows, sample.cores) / truth - 1.0))
                clipped.append(abs(recursion.predict_s(sample.rows, sample.cores) / truth - 1.0))
            model.observe(sample, 0.0)
            recursion.observe(sample)

    def worst_twentieth(errors: list[float]) -> float:
        return sorted(errors)[-len(errors) // 20]

    assert worst_twentieth(ours) < 0.06
    assert max(ours) < 0.25
    assert worst_twentieth(clipped) > 0.4


sizes = st.tuples(st.integers(1, 32), st.sampled_from([0.1, 0.5, 1.0, 1.3, 2.0, 4.0, 16.0]))


LOPSIDED = [((1, 0.1), 1e-6), ((2, 0.1), 2e5), ((2, 0.1), 4e5), ((2, 0.1), 300.0), ((1, 0.1), 1.0)]
"""Evidence of such different weight that some of it is lost in rounding."""


@example(LOPSIDED)
@given(st.lists(st.tuples(sizes, st.floats(1e-300, 1e300)), min_size=1, max_size=60))
def test_predictions_stay_positive_and_finite_whatever_is_measured(
    history: list[tuple[tuple[int, float], float]],
) -> None:
    model = LatencyModel()
    for (rows, cores), seconds in history:
        model.observe(Sample(rows, cores, seconds), 0.0)
        assert 0.0 < model.predict_s(rows, cores) <= model.cautious_s(rows, cores) < float("inf")


@given(st.lists(st.tuples(sizes, st.floats(0.5, 20.0)), max_size=40))
def test_the_curve_is_found_again_after_any_history(history: list[tuple[tuple[int, float], float]]) -> None:
    model = LatencyModel()
    for (rows, cores), factor in history:
        model.observe(Sample(rows, cores, CURVE.latency_s(rows, cores) * factor), 0.0)
    for _ in range(15):
        for rows, cores in SMALL_GRID:
            model.observe(Sample(rows, cores, CURVE.latency_s(rows, cores)), 0.0)

    assert off(model, CURVE.latency_s, SMALL_GRID) < 0.35
