"""Learning the latency curve from one measurement after another; keeps the curve, not its spread, and no measurements.

Three kinds of evidence are summed whenever the curve is needed, and the sum is solved with no parameter below zero:

recent    every measurement, faded by the forgetting factor with each newer one: the curve follows the present.
regions   per region of (batch, cores) the mean evidence of its own last measurements, worth one measurement each. It
          fades only when its own region is measured again: thousands of samples at one core count (no excitation,
          "wind-up") leave what is known of the others standing.
anchor    a curve's shape at the level of the measurements (a ridge): decides what nothing has been measured about.
First
          the prior; after a change of level the curve as it was learned until then, at its new level.

Parameters are never clipped after the fact: a recursive estimate that is clipped diverges (design §4), the constrained
optimum of the same sums cannot.

A measurement far from its prediction (a surprise) is one of four things, told apart by what is known of its size
(`leverage`) and by what comes next:

- a wild one, a pause or a stall: it comes alone. A first surprise is held: it counts for no more than a large error, and
  only until its region is measured again.
- news about a size of which little is known: the less is known, the more it counts while it is held.
- news about one region: the next one there is a surprise to the same side, and is learned like any other.
- everything has become slower, or faster: several in a row, whatever their sizes. The level changes, the shape stays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, log, sqrt
from statistics import median
from typing import Final

from knative_sponge.core.curve import LatencyParams, Region, Sample, region_of
from knative_sponge.core.evidence import (
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
"""Measurements the anchor's shape is worth. At 10 % noise it then counts as if known to about 20 %."""

_SETTLED: Final = 3
"""A region measured less often than this is worth so much less."""

_LEAST_SIGMA: Final = 0.083
"""Residuals are judged by at least this σ: four parameters miss a real profile by up to a quarter, three of these."""
_SURPRISE: Final = 2.0
"""A residual of so many σ is a surprise."""
_KNOWN: Final = 0.5
"""Leverage up to which a surprise says more about the server than about the curve: a measurement or two of the like."""

_FIRST: Final = 3
"""The second and third sample may start the model over."""
_BOUND: Final = 3.0
_DOUBT: Final = 2.0
_MOST: Final = 1.0
"""A first surprise counts at most ``_BOUND·σ·√(1 + _DOUBT·leverage)`` and at most _MOST (×2.7)."""

_RUN: Final = 3
_RUN_SUM: Final = 9.0
_RUN_CAP: Final = 4.0
"""A change of level: at least _RUN surprises to the same side, _RUN_SUM σ together, each counting at most _RUN_CAP,
with nothing between them that was not off to that side by a σ itself. Not once by chance in 200,000 samples with 1 %
wild ones; two wild ones never suffice."""

_LEAST_S: Final = 1e-6
_MOST_S: Final = 1e6
"""No call over a socket is faster, none is waited for so long; keeps broken timers from overflowing the sums."""


@dataclass(frozen=True, slots=True)
class Held:
    """A first surprise in its region. residual: ln(measured/predicted). evidence: what it counts for while it is held."""

    residual: float
    evidence: Evidence


@dataclass(slots=True)
class RegionMemory:
    """What is known of one region since the last change of level.

    visits: how many measurements its mean evidence is made of. held: its last measurement if that was a first surprise.
    """

    visits: int = 0
    evidence: Evidence = field(default_factory=nothing)
    held: Held | None = None


@dataclass(frozen=True, slots=True)
class _Surprise:
    """A measurement far from what was expected, and the σ it was judged by."""

    sample: Sample
    residual: float
    sigma: float

    @property
    def deviation(self) -> float:
        return min(_RUN_CAP, abs(self.residual) / self.sigma)

    def goes_on_with(self, residual: float, sigma: float) -> bool:
        """Whether the next measurement is off to the same side, by one σ at least."""
        return (residual if self.residual > 0.0 else -residual) >= sigma


class Learner:
    """The curve as learned so far (design §4, latency model).

    prior: its shape is where learning starts; its level only until the first sample.
    forgetting: weight that a sample keeps when the next one comes.
    """

    __slots__ = (
        "_forgetting",
        "_params",
        "_ridge",
        "_run",
        "_support",
        "_total",
        "anchor",
        "level",
        "recent",
        "regions",
        "samples",
    )

    def __init__(self, prior: LatencyParams, forgetting: float) -> None:
        if not _LEAST_S <= prior.latency_s(1, 1.0) <= _MOST_S:
            raise ValueError(f"one row on one core takes between {_LEAST_S:g} and {_MOST_S:g} s: {prior}")
        self._forgetting = forgetting
        self._support = -1
        self._run: list[_Surprise] = []
        self._start(prior)

    def _start(self, anchor: LatencyParams) -> None:
        self._params: LatencyParams | None = anchor
        self._ridge = of_curve(anchor, _RIDGE)
        self._total = self._ridge
        self.anchor = anchor
        self.samples = 0
        """Samples learned from since the last change of level."""
        self.level = 1.0
        """Measured latency over the anchor's, of late."""
        self.recent = nothing()
        self.regions: dict[Region, RegionMemory] = {}

    def restore(self, *, samples: int, level: float, recent: Evidence, regions: dict[Region, RegionMemory]) -> None:
        """Go on from what another learner with this one's anchor as prior knew."""
        self.samples, self.level, self.recent, self.regions = samples, level, recent, regions
        self._params = None if samples else self.anchor

    @property
    def params(self) -> LatencyParams:
        """The curve now. Solved at the first use after a sample."""
        if self._params is None:
            parts = [slowed(self._ridge, self.level), self.recent]
            parts += [memory.evidence for memory in self.regions.values()]
            parts += [memory.held.evidence for memory in self.regions.values() if memory.held]
            self._total = summed(parts)
            self._params, self._support = curve_of(self._total, self._support)
        return self._params

    def observe(self, sample: Sample, sigma: float) -> float | None:
        """Learn one measurement. sigma: the spread of its region.

        Returns ln(measured/predicted), bounded, for the spread; None where too little was known for it to mean scatter.
        """
        seconds = _plausible(sample.seconds)
        expected = self.params.latency_s(sample.rows, sample.cores)
        residual = log(seconds / expected)
        if not self.samples:
            self._start(self.anchor.times(seconds / expected))
            self._learn(sample, seconds, seconds)
            return None
        # A run is judged by the spread before it began, which its own surprises would widen.
        sigma = max(min(sigma, self._run[0].sigma) if self._run else sigma, _LEAST_SIGMA)
        if self._run and not self._run[-1].goes_on_with(residual, sigma):
            self._run.clear()
        if abs(residual) >= _SURPRISE * sigma:
            return self._surprised(_Surprise(sample, residual, sigma), seconds, expected)
        self._learn(sample, seconds, expected)
        return residual

    def _surprised(self, surprise: _Surprise, seconds: float, expected: float) -> float | None:
        sample, residual = surprise.sample, surprise.residual
        doubt = leverage(self._total, sample.rows, sample.cores, expected)
        if self.samples < _FIRST and doubt < 1.0 and abs(residual) > log(2.0):
            # A second call that flatly contradicts the first of its kind: first ones are often slow, so it counts.
            count = self.samples
            self._start(self.anchor.times(seconds / self.anchor.latency_s(sample.rows, sample.cores)))
            self.samples = count
            self._learn(sample, seconds, seconds)
            return None
        sigma = surprise.sigma * sqrt(1.0 + _DOUBT * doubt)
        memory = self._memory(sample)
        again = memory.held is not None and memory.held.residual * residual > 0.0
        bound = _MOST if again else min(_MOST, _BOUND * sigma)
        bounded = max(-bound, min(bound, residual))
        if doubt > _KNOWN and not again:
            self._run.clear()
        else:
            self._run.append(_Surprise(sample, residual, sigma))
            if len(self._run) >= _RUN and sum(each.deviation for each in self._run) >= _RUN_SUM:
                self._change_level()
                return bounded
        if again:
            self._learn(sample, seconds, expected)
            memory.held = Held(residual, nothing())  # the next one like it is believed as well
        else:
            memory.held = Held(residual, _evidence(sample, expected * exp(bounded), expected))
            self.samples += 1
            self._params = None
        return bounded if doubt <= _KNOWN else None

    def _memory(self, sample: Sample) -> RegionMemory:
        return self.regions.setdefault(region_of(sample.rows, sample.cores), RegionMemory())

    def _learn(self, sample: Sample, seconds: float, expected: float) -> None:
        self.samples += 1
        new = _evidence(sample, seconds, expected)
        self.recent = blended(self.recent, self._forgetting, new, 1.0)
        memory = self._memory(sample)
        memory.held = None
        memory.visits += 1
        gain = self._gain(max(memory.visits, _SETTLED))
        memory.evidence = blended(memory.evidence, 1.0 - gain if memory.visits > _SETTLED else 1.0, new, gain)
        ratio = seconds / (self.level * self.anchor.latency_s(sample.rows, sample.cores))
        self.level *= ratio ** self._gain(self.samples)
        self._params = None

    def _gain(self, count: int) -> float:
        """Weight of the newest of so many: a plain mean at first, a fading one later."""
        return max(1.0 / count, 1.0 - self._forgetting)

    def _change_level(self) -> None:
        """More neighbours, a slower clock, a new build of the model: everything takes longer, or less, than it did.

        The curve keeps its shape and little of its certainty, so that where it has not changed by the same factor the
        next visit says so at once.
        """
        run, self._run = self._run, []
        self._start(self.params.times(exp(median(surprise.residual for surprise in run))))
        for surprise in run:
            sample = surprise.sample
            self._learn(sample, _plausible(sample.seconds), self.params.latency_s(sample.rows, sample.cores))


def _evidence(sample: Sample, seconds: float, expected: float) -> Evidence:
    # Errors relative to the expected latency, and above it to the geometric mean of both: a sample then pulls by
    # 1 − e^−|residual|, to either side alike. Relative to the measured alone, noise of σ would bias by −1.5·σ².
    return measured(sample.rows, sample.cores, seconds, sqrt(max(seconds, expected) * expected))


def _plausible(seconds: float) -> float:
    return max(_LEAST_S, min(_MOST_S, seconds))
