"""Pods, cores and batches for a load, against trying everything."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.allocation.fleet import Fleet, cheapest_fleet
from knative_sponge.core.latency.curve import LatencyParams

YOLO = LatencyParams(gamma=0.14, delta=0.025, epsilon=0.005, eta=0.01)
PARTS = st.floats(0.0001, 0.3)
CURVES = st.builds(LatencyParams, PARTS, PARTS, PARTS, PARTS)


class Counted:
    """A curve that counts how often it is looked at."""

    def __init__(self, params: LatencyParams) -> None:
        self.params, self.looks = params, 0

    def __getattr__(self, name: str) -> object:
        self.looks += 1
        return getattr(self.params, name)


@pytest.mark.parametrize("rate", [300.0, 100_000.0])
def test_batches_that_are_too_long_for_the_slack_or_too_slow_for_the_load_cost_nothing(rate: float) -> None:
    """The leader asks this for every revision every other second, and users may allow batches of thousands of rows."""
    looks = []
    for max_rows in (64, 4096):
        counted = Counted(YOLO)
        cheapest_fleet(counted, rate, 0.3, max_rows=max_rows, min_cores=0.1, max_cores=16.0)  # type: ignore[arg-type]
        looks.append(counted.looks)
    assert looks[1] < 2 * looks[0] + 5000


def bisected(params: LatencyParams, rows: int, limit_s: float, max_cores: float) -> int | None:
    """Millicores from which on such a batch takes at most so long, by bisection over the curve alone."""
    low, high = 0, ceil(max_cores * 1000)
    if params.latency_s(rows, max_cores) > limit_s:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if params.latency_s(rows, middle / 1000) <= limit_s else (middle, high)
    return high


@given(
    params=CURVES,
    rate=st.floats(0.0, 60.0),
    slack_s=st.floats(0.01, 3.0),
    max_rows=st.integers(1, 6),
    max_cores=st.sampled_from([1.0, 4.0, 16.0]),
    caution=st.floats(1.0, 2.0),
    headroom=st.floats(0.0, 0.3),
    overhead=st.sampled_from([0.0, 0.025, 0.5]),
    least=st.integers(1, 3),
    more=st.integers(0, 6),
)
def test_no_other_pods_that_carry_the_load_take_fewer_cores(
    params: LatencyParams,
    rate: float,
    slack_s: float,
    max_rows: int,
    max_cores: float,
    caution: float,
    headroom: float,
    overhead: float,
    least: int,
    more: int,
) -> None:
    found = cheapest_fleet(
        params,
        rate,
        slack_s,
        max_rows=max_rows,
        min_cores=0.1,
        max_cores=max_cores,
        overhead_cores=overhead,
        headroom=headroom,
        caution=caution,
        least=least,
        most=least + more,
    )
    assert least <= found.pods <= least + more
    assert 0.1 <= found.cores <= max_cores
    assert 1 <= found.rows <= max_rows
    totals = []
    for pods in range(least, least + more + 1):
        for rows in range(1, max_rows + 1):
            limit_s = slack_s / caution
            if rate > 0:
                limit_s = min(limit_s, pods * rows / ((1 + headroom) * rate))
            millicores = bisected(params, rows, limit_s, max_cores)
            if millicores is not None:
                totals.append(pods * (max(0.1, millicores / 1000) + overhead))
    if found.enough:
        seconds = params.latency_s(found.rows, found.cores)
        assert seconds * caution <= slack_s * (1 + 1e-6)
        assert found.pods * found.rows * (1 + 1e-6) >= (1 + headroom) * rate * seconds
        # The grid of millicores, on both sides.
        assert found.pods * (found.cores + overhead) <= min(totals) + 0.001 * found.pods + 1e-9
    elif totals:
        # Only what rounding to the last core decides.
        assert min(totals) >= (least * (max_cores + overhead)) - 0.002


def test_several_small_pods_carry_what_one_large_pod_carries_with_more_cores() -> None:
    one = cheapest_fleet(YOLO, 14.0, 1.0, max_rows=8, min_cores=0.1, max_cores=16.0, most=1)
    many = cheapest_fleet(YOLO, 14.0, 1.0, max_rows=8, min_cores=0.1, max_cores=16.0, most=10)
    assert one.enough
    assert many.enough
    assert many.pods > 1
    assert many.pods * many.cores < 0.9 * one.cores


def test_a_tight_slack_makes_pods_larger_and_not_more() -> None:
    loose = cheapest_fleet(YOLO, 4.0, 2.0, max_rows=8, min_cores=0.1, max_cores=16.0, most=10)
    tight = cheapest_fleet(YOLO, 4.0, 0.06, max_rows=8, min_cores=0.1, max_cores=16.0, most=10)
    assert tight.enough
    assert tight.cores > 2 * loose.cores
    assert tight.rows == 1


def test_expensive_sidecars_make_fewer_pods() -> None:
    cheap = cheapest_fleet(YOLO, 40.0, 1.0, max_rows=8, min_cores=0.1, max_cores=16.0, overhead_cores=0.0)
    dear = cheapest_fleet(YOLO, 40.0, 1.0, max_rows=8, min_cores=0.1, max_cores=16.0, overhead_cores=2.0)
    assert dear.pods < cheap.pods


def test_without_load_the_least_pods_of_a_size_that_meets_the_slack_are_enough() -> None:
    assert cheapest_fleet(YOLO, 0.0, 1.0, max_rows=8, min_cores=0.2, max_cores=4.0, least=2) == Fleet(2, 0.2, 1, True)


def test_a_slack_that_no_size_meets_is_not_paid_for_with_pods_beyond_what_keeps_up() -> None:
    found = cheapest_fleet(YOLO, 10.0, 0.001, max_rows=8, min_cores=0.1, max_cores=4.0, most=50)
    assert not found.enough
    assert found.cores == 4.0
    assert found.pods <= 2


def test_a_load_beyond_all_pods_gets_all_of_them_at_their_largest() -> None:
    found = cheapest_fleet(YOLO, 1000.0, 1.0, max_rows=8, min_cores=0.1, max_cores=2.0, most=3)
    assert (found.pods, found.cores, found.enough) == (3, 2.0, False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_cores": 0.0},
        {"min_cores": 3.0},
        {"least": 0},
        {"least": 5},
        {"caution": 0.5},
        {"overhead_cores": -1.0},
        {"max_rows": 0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_impossible_bounds_are_refused(wrong: dict[str, float]) -> None:
    known = {"max_rows": 4, "min_cores": 0.1, "max_cores": 2.0, "least": 1, "most": 3}
    with pytest.raises(ValueError, match=r"must|impossible"):
        cheapest_fleet(YOLO, 1.0, 1.0, **(known | wrong))  # type: ignore[arg-type]


def test_a_batch_that_keeps_up_but_not_in_the_slack_is_not_enough() -> None:
    params = LatencyParams(gamma=0.1, delta=0.0, epsilon=0.0, eta=0.01)  # 0.11 s for a row on one core
    bounds = {"min_cores": 0.5, "max_cores": 1.0, "max_rows": 2, "headroom": 0.0}
    assert cheapest_fleet(params, 5.0, 0.10, **bounds) == Fleet(1, 1.0, 1, enough=False)  # type: ignore[arg-type]
    assert cheapest_fleet(params, 5.0, 0.11, **bounds).enough  # type: ignore[arg-type]


def test_nobody_has_more_than_a_hundred_pods_without_saying_so() -> None:
    assert cheapest_fleet(YOLO, 1e6, 1.0, max_rows=8, min_cores=1.0, max_cores=1.0).pods == 100


def test_where_no_size_meets_the_slack_the_fewest_pods_keep_up() -> None:
    params = LatencyParams(gamma=0.1, delta=0.05, epsilon=0.1, eta=0.05)  # 0.3 s for a row on one core
    bounds = {"min_cores": 0.5, "max_cores": 1.0, "max_rows": 1, "headroom": 0.0}
    assert cheapest_fleet(params, 10.0, 0.1, **bounds) == Fleet(3, 1.0, 1, enough=False)  # type: ignore[arg-type]
