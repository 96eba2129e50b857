"""A synthetic 4G link: bandwidth second by second, and the time a payload needs on it. No sockets, no clock.

Stands in for Ghent University's log `report_bus_0001` (Sponge's evaluation), of which nothing is shipped. A Gaussian
process with the log's autocorrelation, one value per second::

    z = √0.88·a + √0.12·w,   a ← 0.83·a + √(1 − 0.83²)·n,   w, n standard normal

becomes bandwidth in one of three ways. Name the way with every result: it changes results by more than good policies differ.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import Final


class TraceKind(StrEnum):
    """How the Gaussian process becomes bandwidth."""

    QMAP = "qmap"
    """Φ(z) mapped to the log's percentiles: the closest to the log."""
    LOGNORMAL = "lognormal"
    """exp(8.056 + 0.433·z) bytes/ms: kinder than the log at the low end."""
    DIPS = "dips"
    """Lognormal with about two dips a minute of 1–7 s at 0.45–1.5 MB/s: harsher than the log."""


_SLOW_SHARE: Final = 0.88
_MEMORY: Final = 0.83
_LOG_PERCENTILES: Final = (
    (0.00, 0.43e6), (0.01, 0.89e6), (0.05, 1.33e6), (0.10, 1.74e6), (0.25, 2.60e6), (0.50, 3.36e6),
    (0.75, 4.29e6), (0.90, 5.24e6), (0.95, 5.79e6), (0.99, 6.37e6), (1.00, 7.00e6),
)  # fmt: skip
_LOG_MEAN: Final = 8.056
_LOG_SD: Final = 0.433
_CLIP: Final = (432e3, 6999e3)
_DIPS_PER_S: Final = 2 / 60
_DIP_S: Final = (1, 7)
_DIP_BYTES_PER_S: Final = (0.45e6, 1.5e6)


@dataclass(frozen=True, slots=True)
class Trace:
    """Bandwidth of one link, one value per second from time 0 on. After its last second it starts again.

    bytes_per_s: at least one value, all above 0.
    """

    bytes_per_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.bytes_per_s or min(self.bytes_per_s) <= 0:
            raise ValueError("a trace needs at least one value, and all above 0")

    def bandwidth_at(self, at_s: float) -> float:
        """Bytes per second in the second that contains `at_s` (seconds from the trace's start, not negative)."""
        if at_s < 0:
            raise ValueError(f"at_s must not be negative, not {at_s}")
        return self.bytes_per_s[int(at_s) % len(self.bytes_per_s)]

    def network_s(self, payload_bytes: int, at_s: float) -> float:
        """Seconds from send to arrival of a payload sent at `at_s`. The bandwidth of that second holds for all of it."""
        return payload_bytes / self.bandwidth_at(at_s)


def synthetic_trace(seconds: int, rng: random.Random, kind: TraceKind = TraceKind.QMAP) -> Trace:
    """A trace of `seconds` values, at least one. Equal states of `rng` give equal traces."""
    noise = _process(rng)
    levels = [next(noise) for _ in range(seconds)]
    if kind is TraceKind.QMAP:
        return Trace(tuple(_qmap(level) for level in levels))
    values = [min(max(1000 * math.exp(_LOG_MEAN + _LOG_SD * level), _CLIP[0]), _CLIP[1]) for level in levels]
    if kind is TraceKind.DIPS:
        _force_dips(values, rng)
    return Trace(tuple(values))


def _process(rng: random.Random) -> Iterator[float]:
    slow = rng.gauss(0, 1)
    while True:
        yield math.sqrt(_SLOW_SHARE) * slow + math.sqrt(1 - _SLOW_SHARE) * rng.gauss(0, 1)
        slow = _MEMORY * slow + math.sqrt(1 - _MEMORY**2) * rng.gauss(0, 1)


def _qmap(level: float) -> float:
    share = NormalDist().cdf(level)
    upper = bisect_right(_LOG_PERCENTILES, share, key=lambda point: point[0])
    if upper == len(_LOG_PERCENTILES):
        return _LOG_PERCENTILES[-1][1]
    (share_0, value_0), (share_1, value_1) = _LOG_PERCENTILES[upper - 1], _LOG_PERCENTILES[upper]
    return value_0 + (value_1 - value_0) * (share - share_0) / (share_1 - share_0)


def _force_dips(values: list[float], rng: random.Random) -> None:
    at = 0
    while at < len(values):
        if rng.random() >= _DIPS_PER_S:
            at += 1
            continue
        end = min(at + rng.randint(*_DIP_S), len(values))
        values[at:end] = [rng.uniform(*_DIP_BYTES_PER_S) for _ in range(end - at)]
        at = end
