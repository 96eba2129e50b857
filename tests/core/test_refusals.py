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
            assert (refused - kept) * (refusals.clamp(refused, now) - kept) <= 0
        ceiling, floor = refusals.ceiling(now) or math.inf, refusals.floor(now) or 0.0
        assert floor <= refusals.clamp(cores, now) <= ceiling
    ends: Iterator[float] = iter(lambda: refusals.next_end_s(now) or -1.0, -1.0)
    for end_s in ends:
        now = end_s
    assert refusals.clamp(cores, now) == cores
