"""Which requests may share a call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.proxy.queue.lanes import Lanes


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=60))
def test_who_is_here_at_once_has_the_same_lane_exactly_when_the_group_is_the_same(
    steps: list[tuple[str, bool]],
) -> None:
    lanes = Lanes()
    here: list[tuple[str, int]] = []
    for group, comes in steps:
        if comes:
            here.append(((group), lanes.enter((group, "x"))))
        elif here:
            lanes.leave((here.pop()[0], "x"))
        assert len(lanes) == len({one for one, _ in here}) == len({number for _, number in here}) == len(set(here))


def test_nothing_is_kept_of_a_lane_that_everybody_has_left() -> None:
    lanes = Lanes()
    for number in range(10_000):
        lanes.enter(f"group {number}")
        lanes.leave(f"group {number}")
    assert len(lanes) == 0
    with pytest.raises(KeyError):
        lanes.leave("group 1")
