"""The throughput floor against brute force: the least cores that keep up with a rate."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.throughput import floor_cores, max_throughput, sustainable_cores


def best_throughput(params: LatencyParams, cores: float, max_rows: int, slack_s: float) -> float:
    """Rows per second of the best batch that is fast enough; 0 when none is."""
    each = {rows: params.latency_s(rows, cores) for rows in range(1, max_rows + 1)}
    return max((rows / seconds for rows, seconds in each.items() if seconds <= slack_s * (1 + 1e-9)), default=0.0)


parameters = st.one_of(st.just(0.0), st.floats(1e-4, 0.2))
curves = st.builds(lambda g, d, e, h: LatencyParams(g, d, e, h or 1e-3), parameters, parameters, parameters, parameters)


@given(
    curves,
    st.one_of(st.just(0.0), st.floats(0.1, 300.0)),
    st.integers(1, 24),
    st.one_of(st.just(inf), st.floats(0.005, 3.0)),
    st.floats(0.0, 0.2),
)
def test_the_floor_is_the_least_number_of_cores_that_keeps_up(
    params: LatencyParams, rate: float, max_rows: int, slack_s: float, headroom: float
) -> None:
    cores = floor_cores(params, rate, max_rows, slack_s, headroom)
    needed = rate * (1.0 + headroom)

    def enough(count: float) -> bool:
        reached = best_throughput(params, count, max_rows, slack_s)
        return reached > 0.0 and reached >= needed * (1 - 1e-9)

    grid = [0.01 * 1.2**step for step in range(80)]  # 10 millicores to 17,000 cores
    if cores is None:
        assert not any(enough(count) for count in grid)
        return
    assert enough(max(cores * (1 + 1e-9), 1e-12))
    assert not any(enough(count) for count in grid if count < cores * (1 - 1e-6))
    assert all(enough(count) for count in grid if count > cores * (1 + 1e-6))


def test_a_serial_model_has_a_rate_that_no_cores_reach() -> None:
    params = LatencyParams(0.0, 0.01, 0.0, 0.01)  # 88.9 rows/s in batches of 8, whatever the cores

    assert floor_cores(params, 90.0, 8, headroom=0.0) is None
    assert floor_cores(params, 80.0, 8, headroom=0.0) == 0.0
    assert floor_cores(params, 80.0, 8, slack_s=0.045, headroom=0.0) is None


@given(curves, st.floats(0.1, 300.0), st.integers(1, 24), st.one_of(st.just(inf), st.floats(0.005, 3.0)))
def test_batches_take_half_of_the_slack_where_some_size_makes_them_so_fast(
    params: LatencyParams, rate: float, max_rows: int, slack_s: float
) -> None:
    cores, urgent = sustainable_cores(params, rate, max_rows, slack_s, 0.1)
    half, whole, any_time = (
        floor_cores(params, rate, max_rows, bound_s, 0.1) for bound_s in (slack_s / 2, slack_s, inf)
    )
    if half is not None and whole is not None and half <= 3 * whole:
        assert (cores, urgent) == (half, True)
        least = max(half, 1e-9)  # the worst that befalls a request of a busy pod is a whole batch and its own
        fit = [rows for rows in range(1, max_rows + 1) if 2 * params.latency_s(rows, least) <= slack_s * (1 + 1e-6)]
        assert any(rows / params.latency_s(rows, least) >= 1.1 * rate * (1 - 1e-6) for rows in fit)
    elif whole is not None:
        assert (cores, urgent) == (whole, True)
    else:
        assert (cores, urgent) == (any_time, False)


def test_half_of_the_slack_is_not_bought_at_any_price() -> None:
    """24.5 of 25 ms are not the cores': 80 of them would do, where 1.6 serve everybody who meets no batch."""
    cores, urgent = sustainable_cores(LatencyParams(0.0, 0.0, 0.04, 0.0245), 1.0, 16, 0.05, 0.1)
    assert cores == pytest.approx(0.04 / 0.0255)
    assert urgent


@pytest.mark.parametrize(("rate", "rows"), [(-1.0, 4), (float("nan"), 4), (1.0, 0)])
def test_impossible_questions_are_refused(rate: float, rows: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        floor_cores(LatencyParams(0.1, 0.0, 0.0, 0.0), rate, rows)


def test_a_server_is_as_fast_as_its_best_batch() -> None:
    fixed = LatencyParams(0.0, 0.1, 0.0, 0.1)  # the larger the batch, the more rows per second
    assert max_throughput(fixed, 1.0, 1) == pytest.approx(1 / 0.2)
    assert max_throughput(fixed, 1.0, 4) == pytest.approx(4 / 0.5)
    assert max_throughput(LatencyParams(0.1, 0.0, 0.0, 0.0), 2.0, 8) == pytest.approx(20.0)


@pytest.mark.parametrize(("serial_s", "cores"), [(1 / 6, 3.0), (0.3, 1 / 0.7)])
def test_batches_in_half_of_the_slack_may_take_three_times_the_cores(serial_s: float, cores: float) -> None:
    params = LatencyParams(0.0, 0.0, 1.0, serial_s)  # half of a second takes 2.5 and 3.5 times the cores of all of it
    assert sustainable_cores(params, 0.001, 1, 1.0, 0.0) == pytest.approx((cores, True))


@given(
    curves,
    st.one_of(st.just(0.0), st.floats(0.1, 5000.0)),
    st.integers(1, 4096),
    st.one_of(st.just(inf), st.floats(0.005, 3.0)),
)
def test_the_floor_looks_at_two_sizes_and_finds_what_a_look_at_all_finds(
    params: LatencyParams, rate: float, max_rows: int, slack_s: float
) -> None:
    needed = 1.075 * rate
    found = []
    for rows in range(1, max_rows + 1):
        left_s = min(slack_s, rows / needed if needed else inf) - params.delta * rows - params.eta
        parallel = params.gamma * rows + params.epsilon
        if left_s > 0.0 or (left_s == 0.0 and parallel == 0.0):
            found.append(parallel / left_s if parallel else 0.0)
    cores = floor_cores(params, rate, max_rows, slack_s)
    assert (cores is None) == (not found)
    if cores is not None:
        assert cores == pytest.approx(min(found), rel=1e-9, abs=1e-12)
