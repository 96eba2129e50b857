"""What was refused is not asked for again for a while."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.refusals import Refusals

SIZES = st.sampled_from([0.5, 1.0, 1.5, 2.0])


@given(st.lists(st.tuples(SIZES, SIZES, st.sampled_from([0.0, 10.0, 70.0])), min_size=1), SIZES)
def test_bounds_never_contradict_each_other_and_end(history: list[tuple[float, float, float]], cores: float) -> None:
    refusals, now = Refusals(60.0), 0.0
    for refused, kept, later_s in history:
        now += later_s
        if refused != kept:
            refusals.add(refused, kept, now)
            assert abs(refusals.clamp(refused, now) - kept) < abs(refused - kept)
        ceiling, floor = refusals.ceiling(now) or math.inf, refusals.floor(now) or 0.0
        assert floor <= refusals.clamp(cores, now) <= ceiling
    ends: Iterator[float] = iter(lambda: refusals.next_end_s(now) or -1.0, -1.0)
    for end_s in ends:
        now = end_s
    assert refusals.clamp(cores, now) == cores


@given(st.floats(0.1, 10.0), st.floats(0.1, 10.0), st.floats(0.01, 1.0))
def test_a_growth_ends_near_the_most_that_is_granted(kept: float, growth: float, share: float) -> None:
    granted = kept + share * growth
    refusals, goal, tries = Refusals(60.0), kept + growth, 0
    has = kept
    while (asked := refusals.clamp(goal, 0.0)) > has + 0.001:
        tries += 1
        if asked <= granted:
            has = asked
        else:
            refusals.add(asked, has, 0.0)
    assert has <= granted <= max(has * 1.1, has + growth / 2 + 0.002)
    assert tries <= 14
