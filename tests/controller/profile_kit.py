"""Latency models as pods have learned them."""

from __future__ import annotations

import random
from typing import Any

from knative_sponge.core.latency.curve import LatencyParams, Sample
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.core.latency.profile import to_json

CURVE = LatencyParams(gamma=0.02, delta=0.002, epsilon=0.01, eta=0.003)
KEYS = [f"sha256-{number:064x}" for number in range(150)]


def learned(samples: int = 300, *, factor: float = 1.0, sizes: int = 6, seed: int = 1) -> LatencyModel:
    """A model of a server that takes `factor` times as long as CURVE, measured at so many sizes with 5 % noise."""
    rng, model = random.Random(seed), LatencyModel()
    places = [(2 ** (number % 6), 0.1 * 1.7 ** (number // 6 * 2)) for number in range(sizes)]
    for number in range(samples):
        rows, cores = places[number % sizes]
        seconds = factor * CURVE.latency_s(rows, cores) * rng.lognormvariate(0.0, 0.05)
        model.observe(Sample(rows, cores, seconds), float(number))
    return model


def document(samples: int = 300, **changed: Any) -> dict[str, Any]:
    """The same as JSON."""
    return to_json(learned(samples, **changed))
