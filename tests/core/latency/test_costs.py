"""What a batch costs in the long run, where that is another curve than its latency."""

from __future__ import annotations

import pytest

from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel

LATENCY = LatencyParams(0.10, 0.02, 0.04, 0.03)
COST = LatencyParams(0.40, 0.01, 0.02, 0.05)


def model() -> LatencyModel:
    known = LatencyModel(LATENCY)
    known.restore_costs(COST)
    return known


@pytest.mark.parametrize("cores", [0.5, 1.0, 4.0])
def test_a_batch_costs_its_own_curve_and_at_least_its_latency(cores: float) -> None:
    known = model()
    costs, params = known.cost_table(cores, 4), known.costs.params
    assert [known.cost_s(rows, cores) for rows in range(1, 5)] == pytest.approx(costs[1:])
    assert params.latency_s(1, 1.0) == pytest.approx(COST.latency_s(1, 1.0), rel=0.05)
    assert costs == pytest.approx(
        [0.0, *(max(params.latency_s(rows, cores), LATENCY.latency_s(rows, cores)) for rows in range(1, 5))]
    )


def test_a_cost_is_never_below_the_latency() -> None:
    known = LatencyModel(COST)
    known.restore_costs(LATENCY)
    assert known.cost_table(1.0, 4) == pytest.approx(known.tables(1.0, 4)[0])


def test_without_a_quota_a_batch_costs_its_latency() -> None:
    known = LatencyModel(LATENCY)
    assert known.cost_table(1.0, 4) is known.tables(1.0, 4)[0]
    assert known.cost_s(3, 1.0) == pytest.approx(known.tables(1.0, 4)[0][3])


def test_costs_are_made_once_and_do_not_pile_up() -> None:
    known = model()
    first = known.cost_table(1.0, 4)
    assert known.cost_table(1.0, 4) is first
    for step in range(64):
        known.cost_table(2.0 + step, 4)
    assert known.cost_table(1.0, 4) is not first
    assert known.cost_table(1.0, 4) == first
