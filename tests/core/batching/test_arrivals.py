"""What the queue remembers of its arrivals."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.batching.arrivals import Arrivals


def test_the_rate_is_rows_over_the_rate_window() -> None:
    arrivals = Arrivals(window_s=10.0, rate_window_s=2.0)
    for step in range(100):
        arrivals.add(step * 0.1, rows=3, slack_s=1.0)
    assert arrivals.rate(9.9) == pytest.approx(30.0)


def test_the_rate_falls_to_zero_when_nothing_comes() -> None:
    arrivals = Arrivals(rate_window_s=2.0)
    arrivals.add(0.0, 1, 1.0)
    assert arrivals.rate(0.0) == 1.0
    assert arrivals.rate(1.9) > 0
    assert arrivals.rate(2.1) == 0.0


def test_a_first_burst_is_not_taken_for_a_rate_of_thousands() -> None:
    arrivals = Arrivals()
    for step in range(20):
        arrivals.add(step * 1e-4, 1, 1.0)
    assert arrivals.rate(0.002) == 20.0


def test_nothing_is_known_before_the_first_arrival() -> None:
    arrivals = Arrivals()
    assert (arrivals.rate(5.0), arrivals.slack_s(0.5), arrivals.mean_rows()) == (0.0, None, 1.0)
    assert arrivals.curve(5.0, [1]) == [math.inf]


def test_slack_is_a_quantile_of_the_latest_arrivals() -> None:
    arrivals = Arrivals()
    for step in range(100):
        arrivals.add(step * 1e-3, 1, slack_s=step / 100)
    assert arrivals.slack_s(0.05) == 0.05
    assert arrivals.slack_s(0.5) == 0.5


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60), st.integers(1, 10))
def test_the_curve_is_the_shortest_span_for_so_many_arrivals_in_the_window(gaps: list[float], count: int) -> None:
    arrivals = Arrivals(window_s=10.0)
    times, now = [], 0.0
    for gap in gaps:
        now += gap
        times.append(now)
        arrivals.add(now, 1, 1.0)
    recent = [at for at in times if at >= now - 10.0]
    spans = [recent[i + count] - recent[i] for i in range(len(recent) - count)]
    assert arrivals.curve(now, [count]) == [min(spans, default=math.inf)]


@given(st.lists(st.tuples(st.floats(0, 0.01), st.integers(1, 5)), min_size=1, max_size=400))
def test_the_rate_counts_exactly_the_rows_of_the_window(arrived: list[tuple[float, int]]) -> None:
    arrivals = Arrivals(window_s=1.0, rate_window_s=0.5)
    now, history = 0.0, []
    for gap, rows in arrived:
        now += gap
        history.append((now, rows))
        arrivals.add(now, rows, 1.0)
    span = min(0.5, max(now - history[0][0], 1.0))
    expected = sum(rows for at, rows in history if at > now - 0.5) / span
    assert arrivals.rate(now) == pytest.approx(expected)


def test_impossible_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="rate_window_s"):
        Arrivals(window_s=1.0, rate_window_s=2.0)


def test_the_slack_that_all_had_at_most_is_the_largest() -> None:
    arrivals = Arrivals()
    for slack_s in (0.3, 0.1, 0.2):
        arrivals.add(0.0, 1, slack_s)
    assert arrivals.slack_s(1.0) == 0.3
    assert arrivals.slack_s(0.0) == 0.1
