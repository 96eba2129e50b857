"""What the tests of learning share: a curve to find, sizes to look at, and how far off a model is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import chain
from math import log

from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel
from tests.core.profiles import measured, teach, wandering

CURVE = LatencyParams(gamma=0.02, delta=0.002, epsilon=0.01, eta=0.003)
GRID = tuple((rows, cores) for rows in (1, 2, 4, 8) for cores in (1.0, 2.0, 4.0, 8.0, 16.0))
SMALL_GRID = tuple((rows, cores) for rows, cores in GRID if cores <= 4.0)


def off(
    model: LatencyModel, latency: Callable[[int, float], float], sizes: Iterable[tuple[int, float]] = GRID
) -> float:
    """The largest |ln(predicted/true)| over the sizes: 0.1 is 10 %."""
    return max(abs(log(model.predict_s(rows, cores) / latency(rows, cores))) for rows, cores in sizes)


def grown(seed: int, sigma: float = 0.1, calls: int = 300) -> tuple[LatencyModel, random.Random]:
    """A model that saw CURVE between 1 and 4 cores, on a grid and then wandering, and the randomness to go on with."""
    rng = random.Random(seed)
    seen = chain(SMALL_GRID, wandering(calls, rng, most_cores=4.0), SMALL_GRID)
    return teach(LatencyModel(), measured(CURVE.latency_s, seen, sigma, rng)), rng
