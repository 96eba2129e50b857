"""Learning the latency curve from one measurement after another; keeps the curve, not its spread, and no measurements.

Three kinds of evidence are summed whenever the curve is needed, and the sum is solved with no parameter below zero:

recent    every measurement, faded by the forgetting factor with each newer one: the curve follows the present.
regions   per region of (batch, cores) the mean evidence of its own last measurements, worth one measurement each. It
          fades only when its own region is measured again: thousands of samples at one core count (no excitation,
          "wind-up") leave what is known of the others standing.
prior     the prior's shape at the level of the measurements (a ridge): decides what nothing has been measured about.

Parameters are never clipped after the fact: a recursive estimate that is clipped diverges (design §4), the constrained
optimum of the same sums cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import median
from typing import Final

from knative_sponge.core.curve import LatencyParams, Region, Sample, region_of
from knative_sponge.core.evidence import Evidence, blended, curve_of, measured, nothing, of_curve, slowed, summed

_RIDGE: Final = 0.3
"""Measurements the prior's shape is worth. At 10 % noise the prior then counts as if known to about 20 %."""

_FEW: Final = 3
"""A region, or the whole model, is new until it has been measured so often."""
_NEW_BOUND: Final = 1.0
"""ln(measured/predicted) counts at most so much in a new region: a shape may be off by ×2.7, more is a pause."""

_LEAST_SIGMA: Final = 0.083
"""Residuals are judged by at least this σ: four parameters miss a real profile by up to a quarter, three of these."""
_BOUND: Final = 3.0
"""A residual counts at most so many σ in a known region: a wild sample then moves the curve as any large one would."""

_RUN_EACH: Final = 2.0
_RUN_SUM: Final = 9.0
_RUN_CAP: Final = 4.0
"""A change of level: at least _FEW samples in a row off to the same side by _RUN_EACH σ each and by _RUN_SUM σ
together, each counting at most _RUN_CAP. By chance less than once in a million samples; one or two wild samples
never suffice."""
_RECENT_KEPT: Final = 0.1
"""Share of the recent evidence that survives a change of level."""

_LEAST_S: Final = 1e-6
_MOST_S: Final = 1e6
"""No call over a socket is faster, none is waited for so long; keeps broken timers from overflowing the sums."""


@dataclass(slots=True)
class RegionMemory:
    """What is known of one region: how often it was measured since the last change of level, and its mean evidence."""

    visits: int
    evidence: Evidence


class Learner:
    """The curve as learned so far (design §4, latency model).

    prior: its shape is the fallback everywhere; the first sample replaces its level.
    forgetting: weight that a sample keeps when the next one comes.
    """

    __slots__ = (
        "_forgetting",
        "_params",
        "_ridge",
        "_run",
        "_support",
        "level",
        "prior",
        "recent",
        "regions",
        "samples",
    )

    def __init__(self, prior: LatencyParams, forgetting: float) -> None:
        if not _LEAST_S <= prior.latency_s(1, 1.0) <= _MOST_S:
            raise ValueError(f"one row on one core takes between {_LEAST_S:g} and {_MOST_S:g} s: {prior}")
        self._forgetting = forgetting
        self._ridge = of_curve(prior, _RIDGE)
        self._params: LatencyParams | None = prior
        self._support = -1
        self._run: list[tuple[Sample, float, float]] = []
        self.prior = prior
        self.samples = 0
        """Samples learned from, all together."""
        self.level = 1.0
        """Measured latency over the prior's, of late."""
        self.recent = nothing()
        self.regions: dict[Region, RegionMemory] = {}

    def restore(self, *, samples: int, level: float, recent: Evidence, regions: dict[Region, RegionMemory]) -> None:
        """Go on from what another learner with the same prior knew."""
        self.samples, self.level, self.recent, self.regions = samples, level, recent, regions
        self._run.clear()
        self._params = None if samples else self.prior

    @property
    def params(self) -> LatencyParams:
        """The curve now. Solved at the first use after a sample."""
        if self._params is None:
            parts = [slowed(self._ridge, self.level), self.recent]
            parts += [memory.evidence for memory in self.regions.values()]
            self._params, self._support = curve_of(summed(parts), self._support)
        return self._params

    def observe(self, sample: Sample, sigma: float) -> float | None:
        """Learn one measurement. sigma: the spread of its region.

        Returns ln(measured/predicted), bounded, for the spread; None where the curve is too new for it to mean scatter.
        """
        seconds = _plausible(sample.seconds)
        memory = self.regions.get(region_of(sample.rows, sample.cores))
        visits = memory.visits if memory else 0
        expected = self.params.latency_s(sample.rows, sample.cores)
        residual = log(seconds / expected)
        if self.samples == 0 or (self.samples < _FEW and visits and abs(residual) > log(2.0)):
            # The first sample sets the level, and so does the next of the same kind that flatly contradicts it.
            self._start(sample, seconds)
            return None
        if visits < _FEW:
            self._learn(sample, expected * exp(max(-_NEW_BOUND, min(_NEW_BOUND, residual))), expected)
            return None
        sigma = max(sigma, _LEAST_SIGMA)
        bounded = max(-_BOUND * sigma, min(_BOUND * sigma, residual))
        if self._level_changed(sample, residual, sigma):
            self._change_level()
        else:
            self._learn(sample, expected * exp(bounded), expected)
        return bounded

    def _start(self, sample: Sample, seconds: float) -> None:
        self.level = seconds / self.prior.latency_s(sample.rows, sample.cores)
        self.recent = nothing()
        self.regions.clear()
        self._learn(sample, seconds, seconds)

    def _learn(self, sample: Sample, seconds: float, expected: float) -> None:
        self.samples += 1
        # Relative to the geometric mean of measured and expected: relative to the measured alone, noise of σ biases the
        # curve by −1.5·σ², this way by −0.5·σ².
        new = measured(sample.rows, sample.cores, seconds, sqrt(seconds * expected))
        self.recent = blended(self.recent, self._forgetting, new, 1.0)
        region = region_of(sample.rows, sample.cores)
        memory = self.regions.setdefault(region, RegionMemory(0, new))
        memory.visits += 1
        gain = self._gain(memory.visits)
        memory.evidence = blended(memory.evidence, 1.0 - gain, new, gain)
        ratio = seconds / (self.level * self.prior.latency_s(sample.rows, sample.cores))
        self.level *= ratio ** self._gain(self.samples)
        self._params = None

    def _gain(self, count: int) -> float:
        """Weight of the newest of so many: a plain mean at first, a fading one later."""
        return max(1.0 / count, 1.0 - self._forgetting)

    def _level_changed(self, sample: Sample, residual: float, sigma: float) -> bool:
        deviation = min(_RUN_CAP, abs(residual) / sigma)
        if deviation < _RUN_EACH:
            self._run.clear()
            return False
        if self._run and self._run[-1][1] * residual < 0.0:
            self._run.clear()
        self._run.append((sample, residual, deviation))
        return len(self._run) >= _FEW and sum(entry[2] for entry in self._run) >= _RUN_SUM

    def _change_level(self) -> None:
        """Everything takes longer, or less, than it did: more neighbours, a slower clock, a new build of the model.

        All that is remembered is taken to have changed by the same factor. Every region counts as new, so that where
        this does not hold the next visit says so at once.
        """
        run, self._run = self._run, []
        factor = exp(median(residual for _, residual, _ in run))
        self.level *= factor
        self.recent = [_RECENT_KEPT * x for x in slowed(self.recent, factor)]
        for memory in self.regions.values():
            memory.evidence = slowed(memory.evidence, factor)
            memory.visits = 0
        self._params = None
        for sample, _, _ in run:
            expected = self.params.latency_s(sample.rows, sample.cores)
            self._learn(sample, _plausible(sample.seconds), expected)


def _plausible(seconds: float) -> float:
    return max(_LEAST_S, min(_MOST_S, seconds))
