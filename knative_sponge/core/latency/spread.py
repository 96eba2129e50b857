"""How far measured latencies scatter around predicted ones, by region; knows residuals only, not where they come
from."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Final

from knative_sponge.core.latency.curve import Region

MIN_SIGMA: Final = 0.02
"""Least σ: timers and event loops alone scatter by about 2 %."""
MAX_SIGMA: Final = 0.7
"""Most σ: at two of them a batch is sized for four times the median; more caution than that forms no batches at all."""
UNSEEN_SIGMA: Final = 0.25
"""σ before anything was measured: what latency models of this form miss by on the published profiles, and some
noise."""
_SHRINKAGE_SAMPLES: Final = 4.0
"""A region counts as this many samples of the whole, and the whole as this many of UNSEEN_SIGMA."""


@dataclass(frozen=True, slots=True)
class Scatter:
    """Mean square of the residuals seen so far, older ones faded; count: how many there were."""

    count: int = 0
    square: float = 0.0

    def __post_init__(self) -> None:
        if self.count < 0 or not (isfinite(self.square) and self.square >= 0.0):
            raise ValueError(f"count and square must be at least 0 and finite: {self.count}, {self.square}")

    def joined_by(self, residual: float, forgetting: float) -> Scatter:
        """The scatter after one more residual: a plain mean at first, a fading one later."""
        count = self.count + 1
        gain = max(1.0 / count, 1.0 - forgetting)
        return Scatter(count, self.square + gain * (residual * residual - self.square))

    def shrunk_to(self, square: float) -> float:
        """The mean square, pulled towards another by as much as samples are few."""
        return (self.count * self.square + _SHRINKAGE_SAMPLES * square) / (self.count + _SHRINKAGE_SAMPLES)


class Spread:
    """σ of ln(measured/predicted) for each (batch, cores) region (design §4).

    A residual counts in its region and in the whole; a region with few samples leans on the whole. σ is the root mean
    square, not the standard deviation: where the curve itself is off, that must be covered too.
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
        """σ of the region, between MIN_SIGMA and MAX_SIGMA; the same for all regions that were never seen."""
        square = self.overall.shrunk_to(UNSEEN_SIGMA * UNSEEN_SIGMA)
        seen = self.regions.get(region)
        if seen is not None:
            square = seen.shrunk_to(square)
        return min(MAX_SIGMA, max(MIN_SIGMA, sqrt(square)))
