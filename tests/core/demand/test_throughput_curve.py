"""What arrivals are expected to miss at each size: those that the best batches of all slots cannot carry."""

from __future__ import annotations

import pytest

from knative_sponge.core.demand.estimator import CoresRules, DemandEstimator
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel
from tests.core.batching.virtual_shell import new_batcher

WHATEVER_ROWS = LatencyParams(0.0, 0.0, 1.0, 0.0)
"""A second on one core, for one row as for four."""


def test_two_slots_carry_full_batches_with_half_of_the_cores_each() -> None:
    batcher = new_batcher(model=LatencyModel(WHATEVER_ROWS), max_inflight=2, max_rows=4)
    for number in range(200):
        batcher.arrivals.add(number * 0.1, 4, 100.0)
    now, rate = 20.0, 40.0
    assert batcher.arrivals.rate(now) == pytest.approx(rate, rel=0.03)
    demand = DemandEstimator(CoresRules(min_cores=1.0, max_cores=16.0), batcher).demand(now)
    assert len(demand.curve) > 5
    for cores, misses in demand.curve:
        assert misses == pytest.approx(max(0.0, batcher.arrivals.rate(now) - 4.0 * cores), abs=0.01)
