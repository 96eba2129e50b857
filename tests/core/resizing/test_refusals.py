"""What was refused is not asked for again for a while."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.resizing.refusals import Refusals

SIZES = st.sampled_from([0.5, 1.0, 1.5, 2.0])


@given(st.lists(st.tuples(SIZES, SIZES, st.sampled_from([0.0, 10.0, 70.0])), min_size=1), SIZES)
def test_bounds_never_contradict_each_other_and_end(history: list[tuple[float, float, float]], cores: float) -> None:
    refusals, now = Refusals(60.0), 0.0
    for refused, kept, later_s in history:
        now += later_s
        if refused != kept:
            refusals.add(refused, kept, now, "node")
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
            refusals.add(asked, has, 0.0, "quota")
    assert has <= granted <= max(has * 1.1, has + growth / 2 + 0.002)
    assert tries <= 14


def test_what_a_search_has_found_is_remembered_when_all_is_refused_again() -> None:
    refusals, has, tries = Refusals(60.0), 0.5, []
    for now in range(0, 300, 1):
        asked = refusals.clamp(4.0, float(now))
        if asked > has + 0.001:
            tries.append(now)
            if asked <= 0.7:
                has = asked
            else:
                refusals.add(asked, has, float(now), "quota")
    assert 0.6 < has <= 0.7
    assert len([now for now in tries if now >= 190]) <= 2, "one request a minute"


def test_what_a_search_has_found_does_not_bound_smaller_requests() -> None:
    refusals = Refusals(60.0)
    refusals.add(1.05, 1.0, 0.0, "quota")
    refusals.add(4.0, 0.5, 61.0, "quota")
    assert refusals.ceiling(61.0) == 1.0
    refusals.add(0.9, 0.5, 125.0, "quota")
    assert refusals.ceiling(125.0) == 0.7
