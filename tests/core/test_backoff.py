"""Waits after failures in a row."""

from __future__ import annotations

import math

import pytest

from knative_sponge.core.backoff import Backoff


def test_a_backoff_doubles_up_to_its_bound_and_starts_anew_after_success() -> None:
    backoff = Backoff(1.0, 8.0)
    assert [backoff.wait_s() for _ in range(5)] == [1.0, 2.0, 4.0, 8.0, 8.0]
    backoff.succeeded()
    assert backoff.wait_s() == 1.0


def test_jitter_shortens_a_wait_by_up_to_half() -> None:
    drawn = iter((0.0, 0.5, 1.0))
    backoff = Backoff(1.0, 8.0, lambda: next(drawn))
    assert [backoff.wait_s() for _ in range(3)] == [1.0, 1.5, 2.0]


def test_after_a_failure_nothing_is_tried_until_its_wait_is_over() -> None:
    backoff = Backoff(1.0, 8.0)
    assert backoff.until_s == -math.inf
    backoff.failed(10.0)
    assert backoff.until_s == 11.0
    backoff.failed(11.0)
    assert backoff.until_s == 13.0
    backoff.succeeded()
    assert backoff.until_s == -math.inf
    backoff.failed(20.0)
    assert backoff.until_s == 21.0


@pytest.mark.parametrize(("first_s", "most_s"), [(0.0, 1.0), (2.0, 1.0), (math.nan, 1.0)])
def test_an_impossible_backoff_is_refused(first_s: float, most_s: float) -> None:
    with pytest.raises(ValueError, match="backoff"):
        Backoff(first_s, most_s)
