"""The cores history and its integral."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.local.history import CoresHistory


@given(
    steps=st.lists(st.tuples(st.integers(0, 50), st.sampled_from([0.5, 1.0, 2.0])), max_size=8),
    more=st.integers(0, 20),
)
def test_core_seconds_are_the_sum_over_every_second(steps: list[tuple[int, float]], more: int) -> None:
    history, now, per_second = CoresHistory(), 0, list[float]()
    for gap, cores in steps:
        held = history.steps[-1][1] if history.steps else 0.0
        per_second += [held] * gap
        now += gap
        history.record(now, cores)
    per_second += [history.steps[-1][1] if history.steps else 0.0] * more
    assert history.core_seconds(now + more) == sum(per_second)


def test_an_unchanged_size_adds_no_step() -> None:
    history = CoresHistory()
    for now, cores in ((0.0, 1.0), (1.0, 1.0), (2.0, 0.5)):
        history.record(now, cores)
    assert history.steps == [(0.0, 1.0), (2.0, 0.5)]


def test_time_that_goes_back_is_refused() -> None:
    history = CoresHistory()
    history.record(2.0, 1.0)
    with pytest.raises(ValueError, match="went back"):
        history.record(1.0, 2.0)
