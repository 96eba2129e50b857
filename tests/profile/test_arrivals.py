from __future__ import annotations

import random
from collections import Counter
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.profile.arrivals import ArrivalKind, arrivals, burst, poisson, surges, uniform

rates_lists = st.lists(st.floats(0, 40), max_size=12)


@given(st.sampled_from(ArrivalKind), rates_lists, st.integers(0, 2**32))
def test_send_times_ascend_and_are_never_negative(kind: ArrivalKind, rates: list[float], seed: int) -> None:
    times = arrivals(kind, rates, random.Random(seed))
    assert times == sorted(times)
    assert all(time >= 0 for time in times)


@given(rates_lists, st.integers(0, 2**32))
def test_poisson_and_uniform_send_nothing_in_seconds_without_rate(rates: list[float], seed: int) -> None:
    for times in (poisson(rates, random.Random(seed)), uniform(rates)):
        assert all(time < len(rates) and rates[int(time)] > 0 for time in times)


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(0, 2**32))
def test_a_burst_train_sends_each_seconds_requests_after_that_seconds_start(counts: list[int], seed: int) -> None:
    times = burst(counts, random.Random(seed))
    assert len(times) == sum(counts)
    for second in range(len(counts)):
        assert sum(time < second for time in times) <= sum(counts[:second])


def test_a_burst_train_delays_each_request_by_its_own_exponential() -> None:
    """20 requests a second, far enough apart to tell the seconds: offsets have mean and deviation 1/20 s."""
    rates = [20 if second % 4 == 0 else 0 for second in range(2000)]
    offsets = [time % 4 for time in burst(rates, random.Random(1))]
    assert fmean(offsets) == pytest.approx(1 / 20, rel=0.05)
    assert pstdev(offsets) == pytest.approx(1 / 20, rel=0.05)
    assert sum(offset < 0.2 for offset in offsets) / len(offsets) > 0.97


def test_a_burst_train_carries_fractions_of_a_request_over() -> None:
    assert len(burst([0.25] * 8, random.Random(1))) == 2
    assert len(burst([0.1] * 10, random.Random(1))) == 1


def test_poisson_counts_have_equal_mean_and_variance() -> None:
    rates = [5.0, 20.0] * 2000
    times = poisson(rates, random.Random(3))
    counts = Counter(map(int, times))
    for parity, rate in ((0, 5.0), (1, 20.0)):
        per_second = [counts[second] for second in range(parity, len(rates), 2)]
        assert fmean(per_second) == pytest.approx(rate, rel=0.05)
        assert pstdev(per_second) ** 2 == pytest.approx(rate, rel=0.12)


def test_uniform_requests_are_evenly_spaced() -> None:
    assert uniform([2, 4]) == pytest.approx([0.25, 0.75, 1.125, 1.375, 1.625, 1.875])


@given(st.integers(0, 2**32), st.integers(1, 120))
def test_surges_move_between_base_and_factor_within_seconds(seed: int, seconds: int) -> None:
    rates = surges(10, 3, seconds, random.Random(seed))
    assert len(rates) == seconds
    assert set(rates) <= {10, 30}
    runs = "".join("#" if rate == 30 else "." for rate in rates)
    assert all(len(run) <= 8 for run in runs.split("#"))
    assert all(len(run) <= 5 for run in runs.split("."))


@pytest.mark.parametrize("rate", [-1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("kind", ArrivalKind)
def test_impossible_rates_are_refused(kind: ArrivalKind, rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        arrivals(kind, [1.0, rate], random.Random(0))
