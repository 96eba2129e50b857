"""How far measured latencies scatter around predicted ones, by region; knows residuals only, not where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Final

from knative_sponge.core.latency.curve import Region

MIN_SIGMA: Final = 0.02
"""The least σ: timers and event loops alone scatter by about 2 %."""
MAX_SIGMA: Final = 0.7
"""The most σ. Two of them size a batch for four times its median latency; more caution than that would form no batches."""
UNSEEN_SIGMA: Final = 0.25
"""σ before any measurement: the error of this form of latency model on the published profiles, and some noise."""
_SHRINKAGE_SAMPLES: Final = 4.0
"""Weight of a prior, in samples. The whole is the prior of each region, and UNSEEN_SIGMA is the prior of the whole."""


@dataclass(frozen=True, slots=True)
class Scatter:
    """count: residuals seen so far. square: their mean square, in which older residuals fade."""

    count: int = 0
    square: float = 0.0

    def __post_init__(self) -> None:
        if self.count < 0 or not (isfinite(self.square) and self.square >= 0.0):
            raise ValueError(f"count and square must be at least 0 and finite: {self.count}, {self.square}")

    def joined_by(self, residual: float, forgetting: float) -> Scatter:
        """The scatter after one more residual. The mean is a plain one at first and a fading one later."""
        count = self.count + 1
        gain = max(1.0 / count, 1.0 - forgetting)
        return Scatter(count, self.square + gain * (residual * residual - self.square))

    def shrunk_to(self, square: float) -> float:
        """The mean square, pulled towards `square`: the fewer samples, the further (shrinkage)."""
        return (self.count * self.square + _SHRINKAGE_SAMPLES * square) / (self.count + _SHRINKAGE_SAMPLES)


class Spread:
    """σ of ln(measured/predicted) for each (batch, cores) region (docs/design.md §4.1).

    A residual counts in its region and in the whole; the σ of a region with few samples is drawn to that of the whole. σ is
    the root mean square, not the standard deviation: it must cover an error of the curve itself too.
    """

    __slots__ = ("_forgetting", "overall", "regions")

    def __init__(self, forgetting: float) -> None:
        self._forgetting = forgetting
        self.overall = Scatter()
        self.regions: dict[Region, Scatter] = {}

    def restore(self, overall: Scatter, regions: dict[Region, Scatter]) -> None:
        """Go on from what another model had seen."""
        self.overall = overall
        self.regions = regions

    def observe(self, region: Region, residual: float) -> None:
        """Count one residual, ln(measured/predicted) with the prediction made before the measurement was learned."""
        self.overall = self.overall.joined_by(residual, self._forgetting)
        self.regions[region] = self.regions.get(region, Scatter()).joined_by(residual, self._forgetting)

    def sigma(self, region: Region) -> float:
        """σ of the region, between MIN_SIGMA and MAX_SIGMA. All regions without a sample share one σ."""
        square = self.overall.shrunk_to(UNSEEN_SIGMA * UNSEEN_SIGMA)
        seen = self.regions.get(region)
        if seen is not None:
            square = seen.shrunk_to(square)
        return min(MAX_SIGMA, max(MIN_SIGMA, sqrt(square)))
