"""Learning the latency curve from one measurement after another; keeps the curve, but not its spread and no measurements.

Three kinds of evidence are summed whenever the curve is needed, and the sum is solved with no parameter below zero:

recent    every measurement, faded by the forgetting factor with each newer one: the curve follows the present.
regions   per region of (batch, cores) the mean evidence of its own last measurements, worth one measurement each. It
          fades only when its own region is measured again: thousands of samples at one core count (no excitation,
          "wind-up") leave what is known of the others standing.
anchor    a curve's shape at the level of the measurements (a ridge): decides what nothing has been measured about. At
          first the prior; after a change of level the curve as it was learned until then, at its new level.

Parameters are never clipped after the fact: a recursive estimate that is clipped diverges (docs/design.md §4.1), the
constrained optimum of the same sums cannot.

A measurement far from its prediction (a surprise) is held back: the next one of its region shows what it was.

- A wild one, a pause or a stall, comes alone and is dropped.
- News about the region, or about a size of which little was known, is repeated: both are learned like any others.
- Everything has become slower, or faster, when several in a row are off to the same side, whatever their sizes, as long
  as much was known of them (`leverage`). The level changes then, and the shape stays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, log
from statistics import median
from typing import Final

from knative_sponge.core.latency.curve import LatencyParams, Region, Sample, region_of
from knative_sponge.core.latency.evidence import (
    Evidence,
    blended,
    curve_of,
    leverage,
    measured,
    nothing,
    of_curve,
    slowed,
    summed,
)

_RIDGE: Final = 0.3
"""Measurements that the anchor's shape counts as. At 10 % noise it then counts as if known to about 20 %."""

_LEAST_SIGMA: Final = 0.083
"""Residuals are judged by at least this σ. Four parameters miss a real profile by up to a quarter, which is three of it."""
_SURPRISE: Final = 2.0
"""A residual of so many σ is a surprise."""
_COUNTED: Final = 3.0
"""A surprise counts as spread by at most so many σ."""
_KNOWN: Final = 0.5
"""Up to this leverage a surprise says more about the server than about the curve: one or two like it were measured before."""
_FIRST: Final = 3
"""Up to this sample a contradiction may start the model over: the second and the third may."""

_RUN: Final = 10.0
_RUN_EACH: Final = 4.0
"""The level has changed when surprises in a row, all to the same side, add up to _RUN σ. Each counts as at most _RUN_EACH σ,
so it takes three. A sample between them that is not off to that side by one σ ends the row. Chance does that about once in
10⁵ samples."""

_LEAST_S: Final = 1e-6
_MOST_S: Final = 1e6
"""No call over a socket is faster than the one, and nobody waits for one as long as the other. They keep the values of broken
timers from overflowing the sums."""


@dataclass(frozen=True, slots=True)
class Surprise:
    """A measurement far from its prediction. residual: ln(measured/predicted). sigma: the σ it was judged by."""

    sample: Sample
    residual: float
    sigma: float

    @property
    def deviation(self) -> float:
        """By how many σ it counts towards a change of level."""
        return min(_RUN_EACH, abs(self.residual) / self.sigma)

    def goes_on_with(self, residual: float, sigma: float) -> bool:
        """Whether the next measurement is off to the same side, by one σ at least."""
        return (residual if self.residual > 0.0 else -residual) >= sigma


@dataclass(slots=True)
class RegionMemory:
    """What is known of one region since the last change of level.

    visits: number of measurements in its mean evidence. held: its last measurement, if that was a surprise.
    """

    visits: int = 0
    evidence: Evidence = field(default_factory=nothing)
    held: Sample | None = None


class Learner:
    """The curve as learned so far (docs/design.md §4.1).

    prior: learning starts from its shape; its level counts only until the first sample.
    forgetting: weight that a sample keeps when the next one comes.
    """

    __slots__ = (
        "_params",
        "_ridge",
        "_run",
        "_support",
        "_total",
        "anchor",
        "forgetting",
        "level",
        "recent",
        "regions",
        "samples",
    )

    def __init__(self, prior: LatencyParams, forgetting: float) -> None:
        if not _LEAST_S <= prior.latency_s(1, 1.0) <= _MOST_S:
            raise ValueError(f"one row on one core takes between {_LEAST_S:g} and {_MOST_S:g} s: {prior}")
        self.forgetting = forgetting
        self._support = -1
        self._run: list[Surprise] = []
        self._start(prior, 0)

    def _start(self, anchor: LatencyParams, samples: int) -> None:
        self._params: LatencyParams | None = anchor
        self._ridge = of_curve(anchor, _RIDGE)
        self._total = self._ridge
        self.anchor = anchor
        self.samples = samples
        """Measurements since the last change of level."""
        self.level = 1.0
        """Recent measured latency over the anchor's."""
        self.recent = nothing()
        self.regions: dict[Region, RegionMemory] = {}

    def restore(self, *, samples: int, level: float, recent: Evidence, regions: dict[Region, RegionMemory]) -> None:
        """Start from what another learner knew whose anchor was this one's prior."""
        self.samples, self.level, self.recent, self.regions = samples, level, recent, regions
        self._params = None if samples else self.anchor

    @property
    def params(self) -> LatencyParams:
        """The present curve. It is solved at the first use after a sample."""
        if self._params is None:
            parts = [slowed(self._ridge, self.level), self.recent]
            parts += [memory.evidence for memory in self.regions.values()]
            self._total = summed(parts)
            self._params, self._support = curve_of(self._total, self._support)
        return self._params

    def observe(self, sample: Sample, sigma: float) -> float | None:
        """Learn one measurement. sigma: the spread of its region.

        Returns ln(measured/predicted), bounded, for the spread. None where so little was known of the size that the residual
        says nothing about scatter.
        """
        seconds = _plausible(sample.seconds)
        expected = self.params.latency_s(sample.rows, sample.cores)
        residual = log(seconds / expected)
        self.samples += 1
        if self.samples == 1:
            self._start(self.anchor.times(seconds / expected), 1)
            self._learn(sample, seconds, seconds)
            return None
        # A run is judged by the spread from before it began: its own surprises widen the present spread.
        sigma = max(min(sigma, self._run[0].sigma) if self._run else sigma, _LEAST_SIGMA)
        if self._run and not self._run[-1].goes_on_with(residual, sigma):
            self._run.clear()
        if abs(residual) >= _SURPRISE * sigma:
            return self._surprised(Surprise(sample, residual, sigma), seconds, expected)
        self._learn(sample, seconds, expected)
        return residual

    def _surprised(self, surprise: Surprise, seconds: float, expected: float) -> float | None:
        sample, residual = surprise.sample, surprise.residual
        doubt = leverage(self._total, sample.rows, sample.cores, expected)
        if self.samples <= _FIRST and doubt < 1.0 and abs(residual) > log(2.0):
            # This call flatly contradicts the first of its kind. First calls are often slow, so this one counts.
            level = seconds / self.anchor.latency_s(sample.rows, sample.cores)
            self._start(self.anchor.times(level), self.samples)
            self._learn(sample, seconds, seconds)
            return None
        if doubt <= _KNOWN:
            self._run.append(surprise)
            if sum(each.deviation for each in self._run) >= _RUN:
                self._change_level()
                return None
        self._hold(sample, seconds, expected, residual)
        bound = _COUNTED * surprise.sigma
        return max(-bound, min(bound, residual)) if doubt <= _KNOWN else None

    def _hold(self, sample: Sample, seconds: float, expected: float, residual: float) -> None:
        memory = self._memory(sample)
        held = memory.held
        if held is not None and (held.seconds > self.params.latency_s(held.rows, held.cores)) == (residual > 0.0):
            self._learn(held, _plausible(held.seconds), self.params.latency_s(held.rows, held.cores))
            self._learn(sample, seconds, expected)
        else:
            memory.held = sample

    def _memory(self, sample: Sample) -> RegionMemory:
        return self.regions.setdefault(region_of(sample.rows, sample.cores), RegionMemory())

    def _learn(self, sample: Sample, seconds: float, expected: float) -> None:
        # The error counts relative to the larger of both, so that no error counts more than itself. Noise of σ then biases the
        # curve by about −0.5·σ². Errors relative to the measured value alone would bias it by −1.5·σ².
        new = measured(sample.rows, sample.cores, seconds, max(seconds, expected))
        self.recent = blended(self.recent, self.forgetting, new, 1.0)
        memory = self._memory(sample)
        memory.held = None
        memory.visits += 1
        gain = self._gain(memory.visits)
        memory.evidence = blended(memory.evidence, 1.0 - gain, new, gain)
        ratio = seconds / (self.level * self.anchor.latency_s(sample.rows, sample.cores))
        self.level *= ratio ** self._gain(self.samples)
        self._params = None

    def _gain(self, count: int) -> float:
        """Weight of the newest of `count` samples: that of a plain mean at first, of a fading one later."""
        return max(1.0 / count, 1.0 - self.forgetting)

    def _change_level(self) -> None:
        """Everything takes longer than it did, or less: more neighbours, a slower clock, a new build of the model.

        The curve keeps its shape but little of its certainty. So a region that has not changed by the same factor is
        corrected by its next measurement.
        """
        run, self._run = self._run, []
        self._start(self.params.times(exp(median(surprise.residual for surprise in run))), len(run))
        for surprise in run:
            sample = surprise.sample
            self._learn(sample, _plausible(sample.seconds), self.params.latency_s(sample.rows, sample.cores))


def _plausible(seconds: float) -> float:
    return max(_LEAST_S, min(_MOST_S, seconds))
