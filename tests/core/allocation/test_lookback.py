"""How far a pod looks back for its largest need: farther when shrinks do not last, and less so when they do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.allocation.growth import GrowthRules
from knative_sponge.core.allocation.lookback import Lookback

RULES = GrowthRules(hold_s=8.0, max_lookback_s=32.0)


def bounce(lookback: Lookback, now: float, *, lasts_s: float = 10.0, rate: float = 10.0) -> float:
    """A shrink that lasts so long, and the growth after it; returns the time then."""
    lookback.add(now, 1.0, rate, 1.0)
    lookback.add(now + 1.0, 0.4, rate, 0.5)
    lookback.add(now + 1.0 + lasts_s, 0.6, rate, 1.0)
    return now + 1.0 + lasts_s


@given(st.lists(st.tuples(st.floats(0.0, 4.0), st.floats(0.1, 4.0)), min_size=1, max_size=40))
def test_without_resizes_it_is_the_largest_of_the_shortest_look_back(steps: list[tuple[float, float]]) -> None:
    lookback, now = Lookback(RULES), 0.0
    seen: list[tuple[float, float]] = []
    for passed_s, need in steps:
        now += passed_s
        seen.append((now, need))
        assert lookback.add(now, need, 5.0, 1.0) == max(value for at_s, value in seen if at_s >= now - 8.0)


def test_growths_soon_after_shrinks_double_the_look_back_up_to_a_bound() -> None:
    lookback, now, windows = Lookback(RULES), 0.0, []
    for _ in range(4):
        now = bounce(lookback, now)
        windows.append(lookback.window_s)
    assert windows == [16.0, 32.0, 32.0, 32.0]
    assert lookback.add(now + 30.0, 0.1, 10.0, 1.0) == 0.6, "what was needed half a minute ago holds"
    assert lookback.add(now + 33.0, 0.1, 10.0, 1.0) == 0.1


def test_a_growth_long_after_a_shrink_halves_it() -> None:
    lookback = Lookback(RULES)
    now = bounce(lookback, bounce(lookback, 0.0))
    now = bounce(lookback, now, lasts_s=65.0)
    assert lookback.window_s == 16.0
    now = bounce(lookback, now, lasts_s=33.0)
    assert lookback.window_s == 8.0
    bounce(lookback, now, lasts_s=100.0)
    assert lookback.window_s == 8.0, "never shorter than the shortest"


@pytest.mark.parametrize(("rate", "window_s"), [(5.1, 16.0), (4.9, 8.0), (0.0, 8.0), (40.0, 16.0)])
def test_another_load_is_another_matter(rate: float, window_s: float) -> None:
    lookback = Lookback(RULES)
    now = bounce(lookback, 0.0, rate=10.0)
    lookback.add(now + 1.0, 0.2, rate, 1.0)
    assert lookback.window_s == window_s


def test_growing_in_steps_is_no_mistake() -> None:
    lookback = Lookback(RULES)
    for step in range(1, 6):
        lookback.add(float(step), 0.1 * step, 10.0, 0.1 * step)
    assert lookback.window_s == 8.0


def test_two_growths_after_one_shrink_take_it_back_once() -> None:
    lookback = Lookback(RULES)
    now = bounce(lookback, 0.0)
    lookback.add(now + 1.0, 1.2, 10.0, 1.5)
    assert lookback.window_s == 16.0
