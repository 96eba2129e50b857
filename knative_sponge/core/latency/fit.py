"""The latency curve that fits a whole profile best, offline; learns nothing online and keeps no state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import median
from typing import Final

from knative_sponge.core.latency.curve import DEFAULT_SHAPE, LatencyParams, Sample
from knative_sponge.core.latency.evidence import curve_of, measured, of_curve, slowed, summed

_PRIOR_WEIGHT: Final = 1e-4
"""Share of the samples' weight given to the prior's shape: decides only what the samples leave open."""
_ROUNDS: Final = 30
"""Most rounds; a clean grid needs 4, the published profiles about 15."""
_SETTLED: Final = 1e-6
_TOLERATED: Final = 1.5
"""Residuals count at most so many σ."""
_LEAST_SIGMA: Final = 0.02


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted curve. residuals: ln(measured/fitted) of each sample used, in order: where the curve is off."""

    params: LatencyParams
    residuals: tuple[float, ...]

    @property
    def spread(self) -> float:
        """Root mean square of the residuals: about the relative error of the curve."""
        return sqrt(sum(residual * residual for residual in self.residuals) / len(self.residuals))


def fit_latency(samples: Iterable[Sample], prior: LatencyParams = DEFAULT_SHAPE) -> Fit:
    """The curve of least *relative* error through the samples, no parameter below zero, outliers held down.

    samples: any order, repeats welcome; cold ones are left out. prior: what a grid of one core count, or of one batch
    size, leaves open takes its shape. Raises ValueError when there is no sample.

    Errors count relative to the curve itself; what is further off than 1.5 robust σ is moved to there (Huber), and the
    curve solved again until nothing moves.
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
    return Fit(params, residuals)


def _residuals(params: LatencyParams, samples: Iterable[Sample]) -> tuple[float, ...]:
    return tuple(log(sample.seconds / params.latency_s(sample.rows, sample.cores)) for sample in samples)
