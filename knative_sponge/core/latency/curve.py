"""The latency curve l(b,c), one measurement of it, and the regions of (batch, cores). Nothing is learned here."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, frexp, isfinite
from typing import Final, TypeAlias


@dataclass(frozen=True, slots=True)
class LatencyParams:
    """``l(b,c) = γ·b/c + δ·b + ε/c + η``: seconds that a batch of b rows takes on c cores (docs/design.md §4.1).

    The form is that of Sponge (arXiv 2404.00704).

    gamma: parallel work per row, core-seconds. delta: serial work per row, seconds.
    epsilon: parallel fixed work, core-seconds. eta: serial fixed work, seconds.

    Raises ValueError when one is negative or not finite, or when all are zero.
    """

    gamma: float
    delta: float
    epsilon: float
    eta: float

    def __post_init__(self) -> None:
        values = (self.gamma, self.delta, self.epsilon, self.eta)
        if not all(isfinite(value) and value >= 0.0 for value in values) or not any(values):
            raise ValueError(f"latency parameters must be finite, at least 0 and not all 0: {values}")

    def latency_s(self, rows: float, cores: float) -> float:
        """Seconds; rows at least 1, cores above 0. Never rises with cores, never falls with rows, rounding included."""
        inverse = 1.0 / cores
        return (self.gamma * inverse + self.delta) * rows + (self.epsilon * inverse + self.eta)

    def times(self, factor: float) -> LatencyParams:
        """The curve of a server that takes `factor` times as long for everything."""
        return LatencyParams(self.gamma * factor, self.delta * factor, self.epsilon * factor, self.eta * factor)


DEFAULT_SHAPE: Final = LatencyParams(gamma=0.5e-3, delta=0.1e-3, epsilon=0.33e-3, eta=0.07e-3)
"""The curve assumed of a model without a sample.

It takes 1 ms for one row on one core. That is faster than almost any model, so nothing is called hopeless before the first
sample. Its parts stand in the proportion measured for image models (half of YOLOv5s and half of ResNet18), so that one
sample already says something about other sizes.
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured upstream call.

    rows: of the whole batch; a mean where several batches are measured together. cores: that the model server had during the
    call. seconds: from sending the call to its answer. cold: the call paid for something that later calls do not pay for
    (loading, compiling, a fresh process); it is not learned from. rested_s: how long the model server had been idle when the
    call began.
    """

    rows: float
    cores: float
    seconds: float
    cold: bool = False
    rested_s: float = 0.0

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"rows must be at least 1, not {self.rows}")
        if not (isfinite(self.cores) and self.cores > 0.0):
            raise ValueError(f"cores must be a finite number above 0, not {self.cores}")
        if not (isfinite(self.seconds) and self.seconds > 0.0):
            raise ValueError(f"seconds must be a finite number above 0, not {self.seconds}")
        if not self.rested_s >= 0.0:
            raise ValueError(f"rested_s must be at least 0, not {self.rested_s}")


Region: TypeAlias = tuple[int, int]
"""Batches and core counts close enough to be remembered together: (row bucket, core bucket)."""

LEAST_CORE_BUCKET: Final = -7
MOST_CORE_BUCKET: Final = 8


def row_bucket(rows: float) -> int:
    """1 → 0, 2 → 1, 3…4 → 2, 5…8 → 3 and so on: bucket i ends at 2^i rows."""
    return (ceil(rows) - 1).bit_length()


def core_bucket(cores: float) -> int:
    """[1, 2) → 0, [2, 4) → 1, [½, 1) → −1 and so on: bucket j begins at 2^j cores. The first bucket also holds all smaller
    sizes, the last one (from 256 cores) all larger ones."""
    return max(LEAST_CORE_BUCKET, min(MOST_CORE_BUCKET, frexp(cores)[1] - 1))


def region_of(rows: float, cores: float) -> Region:
    """The region of a batch of so many rows on so many cores."""
    return row_bucket(rows), core_bucket(cores)
