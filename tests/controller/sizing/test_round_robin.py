"""Everybody has a turn, nobody too often, and never all at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.controller.sizing.round_robin import RoundRobin

NAMES = tuple("abcdefghij")


@given(st.lists(st.floats(0.001, 0.4), min_size=60, max_size=120))
def test_each_has_one_turn_in_a_period_and_they_are_spread_over_it(steps: list[float]) -> None:
    turns, now, last = RoundRobin(1.0), 100.0, dict.fromkeys(NAMES, 100.0)
    for step in steps:
        now += step
        had = turns.due(lambda: NAMES, now)
        assert len(had) == len(set(had)) <= len(NAMES) * (step + 0.11)  # one more may come from rounding
        for name in had:
            last[name] = now
        assert all(now - at_s < 2.0 + 2 * 0.4 for at_s in last.values())


def test_whoever_comes_has_a_turn_in_the_next_round_and_whoever_left_has_none() -> None:
    turns = RoundRobin(1.0)
    assert turns.due(lambda: ("a", "b"), 0.0) == ()
    assert turns.due(lambda: ("a", "b"), 0.5) == ("a",)
    assert turns.due(lambda: ("b", "c"), 1.0) == ("b",)
    assert turns.due(lambda: ("b", "c"), 1.5) == ("b",)
    assert turns.due(lambda: (), 9.0) == ("c",)
    assert turns.due(lambda: (), 9.9) == ()


def test_a_period_is_some_time() -> None:
    with pytest.raises(ValueError, match="above 0"):
        RoundRobin(0.0)
