"""What measurements say about the latency curve, in information form: sums that can be added, faded and rescaled.

No policy here about which measurements count. The curve is linear in its parameters, ``l = a·θ`` with ``a = (b/c, b, 1/c,
1)``. So least squares needs only two sums of a set of measurements: ``Σ w·aaᵀ`` (symmetric: 10 numbers) and ``Σ w·a·t``
(4 numbers). The weight ``w = 1/scale²`` makes the squared errors relative ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final, TypeAlias

from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.nnls import solve_nonnegative, solve_regular

Evidence: TypeAlias = list[float]
"""The upper triangle of Σ w·aaᵀ by rows, then Σ w·a·t: 14 numbers, none negative."""

EVIDENCE_SIZE: Final = 14
_TRIANGLE: Final = 10

_ANCHORS: Final = tuple((rows, cores) for rows in (1, 4, 16) for cores in (0.25, 1.0, 4.0, 16.0))
"""Points (rows, cores) at which `of_curve` samples a curve; they are spread over the batches and sizes that pods have."""


def measured(rows: float, cores: float, seconds: float, scale_s: float) -> Evidence:
    """The evidence of one measurement. Its error counts relative to `scale_s`."""
    inverse, per = 1.0 / cores, 1.0 / scale_s
    d = per
    c = inverse * per
    b = rows * per
    a = rows * c
    t = seconds * per
    return [a * a, a * b, a * c, a * d, b * b, b * c, b * d, c * c, c * d, d * d, a * t, b * t, c * t, d * t]


def of_curve(params: LatencyParams, weight: float) -> Evidence:
    """The evidence for a curve that is known already, worth `weight` measurements: a ridge towards a prior.

    The ridge penalises relative errors of latency, which a user would see, and not errors of parameters.
    """
    points = []
    for rows, cores in _ANCHORS:
        seconds = params.latency_s(rows, cores)
        points.append(measured(rows, cores, seconds, seconds))
    return [total * weight / len(_ANCHORS) for total in summed(points)]


def nothing() -> Evidence:
    """The evidence of no measurement."""
    return [0.0] * EVIDENCE_SIZE


def summed(parts: Iterable[Evidence]) -> Evidence:
    """The sum of all parts. Their order decides the rounding."""
    return [sum(column) for column in zip(*parts, strict=True)]


def blended(old: Evidence, keep: float, new: Evidence, take: float) -> Evidence:
    """``keep·old + take·new``."""
    return [keep * x + take * y for x, y in zip(old, new, strict=True)]


def slowed(evidence: Evidence, factor: float) -> Evidence:
    """The evidence as if every measurement had taken `factor` times as long."""
    square = factor * factor
    return [x / square for x in evidence[:_TRIANGLE]] + [x / factor for x in evidence[_TRIANGLE:]]


def curve_of(evidence: Evidence, support: int) -> tuple[LatencyParams, int]:
    """The curve of best fit with no parameter below zero, and its support, which is the guess for the next solve."""
    solution, support = solve_nonnegative(_matrix(evidence), evidence[_TRIANGLE:], support)
    return LatencyParams(*solution), support


def leverage(evidence: Evidence, rows: float, cores: float, scale_s: float) -> float:
    """How little the evidence says about one size: the variance of its prediction over the variance of one measurement of it.

    0 means that all is known. n measurements of this size and nothing else make it 1/n. It is infinite where some direction
    of θ is unknown, or known so much less than the others that it is lost in rounding.
    """
    features = measured(rows, cores, scale_s, scale_s)[_TRIANGLE:]
    try:
        weights = solve_regular(_matrix(evidence), features)
    except ValueError:
        return inf
    return sum(feature * weight for feature, weight in zip(features, weights, strict=True))


def _matrix(evidence: Evidence) -> tuple[tuple[float, ...], ...]:
    aa, ab, ac, ad, bb, bc, bd, cc, cd, dd = evidence[:_TRIANGLE]
    return (aa, ab, ac, ad), (ab, bb, bc, bd), (ac, bc, cc, cd), (ad, bd, cd, dd)
