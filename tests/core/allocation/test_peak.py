"""The largest value of late."""

from __future__ import annotations

import pytest

from knative_sponge.core.allocation.peak import Peak


def test_the_largest_value_of_the_window_is_kept_to_its_end() -> None:
    peak = Peak(2.0)
    assert [peak.add(now, value) for now, value in [(0.0, 3.0), (1.0, 1.0), (1.5, 2.0), (2.0, 0.5)]] == [3.0] * 4
    assert peak.add(2.25, 0.5) == 2.0
    assert peak.add(4.0, 0.1) == 0.5


def test_equal_values_count_from_the_later_one_on() -> None:
    peak = Peak(1.0)
    peak.add(0.0, 2.0)
    peak.add(0.5, 2.0)
    assert peak.add(1.25, 1.0) == 2.0


def test_without_a_window_only_now_counts() -> None:
    peak = Peak(0.0)
    assert [peak.add(0.0, 3.0), peak.add(0.5, 1.0)] == [3.0, 1.0]


@pytest.mark.parametrize("window_s", [-1.0, float("nan")])
def test_an_impossible_window_is_refused(window_s: float) -> None:
    with pytest.raises(ValueError, match="window_s"):
        Peak(window_s)
