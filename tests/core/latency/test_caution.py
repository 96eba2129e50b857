"""Cautious latency where a larger size scatters more, by hand."""

from __future__ import annotations

from math import exp

import pytest

from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.core.latency.spread import Scatter

MANY = 10**9
LOW, HIGH = 0.2, 0.2196


def test_a_larger_size_may_call_for_more_at_the_first_rows_of_a_region_only() -> None:
    """On 1.9 cores five rows take 3.63 s, on two 3.5 s; eight take 5.21 s and 5 s. Two cores scatter 4 % more."""
    model = LatencyModel(LatencyParams(1.0, 0.0, 0.0, 1.0))
    model.spread.restore(Scatter(MANY, LOW**2), {(3, 0): Scatter(MANY, LOW**2), (3, 1): Scatter(MANY, HIGH**2)})
    cautious = model.tables(1.9, 8)[1]
    assert cautious[5] == pytest.approx(3.5 * exp(2 * HIGH))
    assert cautious[8] == pytest.approx((8 / 1.9 + 1) * exp(2 * LOW))


def test_a_larger_size_may_call_for_more_at_the_last_rows_of_a_region_only() -> None:
    """On 1.9 cores the part that cores shorten is the fixed one: it is most of a small batch."""
    model = LatencyModel(LatencyParams(0.0, 1.0, 8.0, 0.0))
    model.spread.restore(Scatter(MANY, LOW**2), {(3, 0): Scatter(MANY, LOW**2), (3, 1): Scatter(MANY, 0.2098**2)})
    cautious = model.tables(1.9, 8)[1]
    assert cautious[5] == pytest.approx((5 + 8 / 1.9) * exp(2 * LOW))
    assert cautious[8] == pytest.approx((8 + 4) * exp(2 * 0.2098))
