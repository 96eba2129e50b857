"""Published latency profiles (Sponge: YOLOv5s and ResNet18 on CPUs) and histories of measurements made from curves."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from math import exp, log, log2

from knative_sponge.core.latency.curve import Sample
from knative_sponge.core.latency.model import LatencyModel

YOLOV5S = (
    (151.6, 117.9, 75.7, 57.4, 53.1),
    (288.3, 193.6, 137.8, 100.3, 80.1),
    (606.4, 382.3, 234.1, 180.4, 145.3),
    (1275.4, 835.6, 501.7, 352.9, 262.9),
)
"""Milliseconds; rows are batches 1, 2, 4, 8, columns cores 1, 2, 4, 8, 16."""

RESNET18 = (
    (46.0, 28.9, 18.0, 12.4, 13.0, 12.6),
    (78.7, 44.7, 27.2, 18.4, 15.0, 14.9),
    (145.4, 82.4, 50.1, 31.4, 26.7, 26.1),
    (287.6, 166.1, 87.9, 57.0, 46.5, 42.4),
    (383.5, 222.2, 169.0, 114.5, 88.1, 86.1),
)
"""Milliseconds; rows are batches 1 … 16, columns cores 1 … 32."""

RESNET18_OTHER_SOURCE = (*RESNET18[:3], (227.6, 136.1, *RESNET18[3][2:]), RESNET18[4])
"""The same with the two cells in which its two published sources disagree."""

RESNET18_TRUNCATED = (
    (45, 28, 18, 12, 12, 12),
    (78, 44, 27, 18, 15, 14),
    (145, 82, 50, 31, 26, 26),
    (287, 166, 87, 57, 46, 42),
    (383, 222, 169, 114, 88, 86),
)
"""What the published fit was made from: its own truncation of unrounded values."""


def samples_of(table: Sequence[Sequence[float]]) -> list[Sample]:
    """A table of milliseconds over batches and cores in powers of two, as samples."""
    return [
        Sample(1 << i, float(1 << j), milliseconds / 1000.0)
        for i, row in enumerate(table)
        for j, milliseconds in enumerate(row)
    ]


def interpolated(table: Sequence[Sequence[float]]) -> Callable[[int, float], float]:
    """Seconds between the points of a table: linear in the logarithms of rows, cores and latency; clamped outside."""
    logs = [[log(milliseconds / 1000.0) for milliseconds in row] for row in table]
    last_row, last_column = len(logs) - 1, len(logs[0]) - 1

    def latency(rows: int, cores: float) -> float:
        x, y = min(log2(rows), last_row), max(0.0, min(log2(cores), last_column))
        i, j = min(int(x), last_row - 1), min(int(y), last_column - 1)
        below = logs[i][j] + (y - j) * (logs[i][j + 1] - logs[i][j])
        above = logs[i + 1][j] + (y - j) * (logs[i + 1][j + 1] - logs[i + 1][j])
        return exp(below + (x - i) * (above - below))

    return latency


def measured(
    latency: Callable[[int, float], float], sizes: Iterator[tuple[int, float]], sigma: float, rng: random.Random
) -> Iterator[Sample]:
    """Noisy measurements of a curve at the sizes given: lognormal, σ of the logarithm as given."""
    for rows, cores in sizes:
        yield Sample(rows, cores, latency(rows, cores) * exp(rng.gauss(0.0, sigma)))


def wandering(
    count: int, rng: random.Random, most_rows: int = 8, most_cores: float = 16.0
) -> Iterator[tuple[int, float]]:
    """(rows, cores) of calls as a pod sees them: small batches mostly, the cores stepping every 30 calls or so."""
    cores = 2.0
    for _ in range(count):
        if rng.random() < 1 / 30:
            cores = min(most_cores, max(1.0, round(cores * rng.choice((0.5, 0.7, 1.5, 2.0)), 1)))
        yield min(most_rows, 1 + int(rng.expovariate(1 / 3))), cores


def teach(model: LatencyModel, samples: Iterator[Sample]) -> LatencyModel:
    """The model after the samples."""
    for sample in samples:
        model.observe(sample, 0.0)
    return model
