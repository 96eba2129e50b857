"""The latency curve of best fit to a whole profile, offline; learns nothing online and keeps no state."""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, log
from statistics import median
from typing import Final

from knative_sponge.core.latency.curve import DEFAULT_SHAPE, LatencyParams, Sample
from knative_sponge.core.latency.evidence import curve_of, measured, of_curve, slowed, summed

_PRIOR_WEIGHT: Final = 1e-4
"""Weight of the prior's shape, as a share of the samples' weight. It decides only what the samples leave open."""
_ROUNDS: Final = 30
"""Most rounds; a clean grid needs 4, the published profiles about 15."""
_SETTLED: Final = 1e-6
_TOLERATED: Final = 1.5
"""A residual counts as at most so many σ."""
_LEAST_SIGMA: Final = 0.02


def fit_latency(samples: Iterable[Sample], prior: LatencyParams = DEFAULT_SHAPE) -> LatencyParams:
    """The curve of least *relative* error through the samples, with no parameter below zero.

    samples: in any order, repeats welcome; cold ones are left out. prior: its shape fills what the samples leave open, as a
    grid of one core count or of one batch size does. Raises ValueError when there is no sample.

    Errors count relative to the curve itself. Outliers weigh little: a sample that is off by more than 1.5 robust σ is moved
    to 1.5 σ (Huber), and the curve is solved again until nothing moves.
    """
    used = [sample for sample in samples if not sample.cold]
    if not used:
        raise ValueError("no sample to fit a latency curve to")
    ratio = median(sample.seconds / prior.latency_s(sample.rows, sample.cores) for sample in used)
    ridge = slowed(of_curve(prior, _PRIOR_WEIGHT * len(used)), ratio)
    params = prior.times(ratio)
    support, residuals = -1, _residuals(params, used)
    for _ in range(_ROUNDS):
        bound = _TOLERATED * max(_LEAST_SIGMA, 1.4826 * median(map(abs, residuals)))
        evidence = [ridge]
        for sample, residual in zip(used, residuals, strict=True):
            expected = params.latency_s(sample.rows, sample.cores)
            seen = expected * exp(max(-bound, min(bound, residual)))
            evidence.append(measured(sample.rows, sample.cores, seen, expected))
        params, support = curve_of(summed(evidence), support)
        before, residuals = residuals, _residuals(params, used)
        if max(abs(new - old) for new, old in zip(residuals, before, strict=True)) < _SETTLED:
            break
    return params


def _residuals(params: LatencyParams, samples: Iterable[Sample]) -> tuple[float, ...]:
    return tuple(log(sample.seconds / params.latency_s(sample.rows, sample.cores)) for sample in samples)
