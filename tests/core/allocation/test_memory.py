"""How much memory a container should have, case by case and against a rule that remembers everything."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.allocation.memory import STEP, MemoryNeed, MemoryRules

MI = 2**20
RULES = MemoryRules()


def ask(need: MemoryNeed, used: int, present: int | None, now: float, **bounds: Any) -> int | None:
    """`used` and `present` in MiB, and so is the answer; low, high and room too."""
    limits = {"low": 16, "high": 4096, "room": 1 << 20} | bounds
    size = None if present is None else present * MI
    low, high, room = (limits[name] * MI for name in ("low", "high", "room"))
    found = need.target(used * MI, size, low, high, room, now)
    return None if found is None else round(found / MI)


def watched(used: int, present: int, **bounds: Any) -> MemoryNeed:
    """After all of the look-back but its last moment, in which nothing else was in use."""
    need = MemoryNeed()
    for now in range(0, 600, 5):
        assert ask(need, used, present, now, **bounds) is None
    return need


def test_it_grows_at_once_when_most_is_in_use() -> None:
    assert ask(MemoryNeed(), 103, 128, 0) == 176
    assert ask(MemoryNeed(), 102, 128, 0) is None


def test_a_container_without_any_memory_gets_what_it_uses() -> None:
    assert ask(MemoryNeed(), 30, None, 0) == 64


def test_the_lower_bound_is_reached_at_once_and_the_upper_one_never_passed() -> None:
    assert ask(MemoryNeed(), 1, 128, 0, low=512) == 512
    assert ask(MemoryNeed(), 127, 128, 0, high=150) == 150
    assert ask(MemoryNeed(), 150, 150, 0, high=150) is None


def test_growth_ends_where_the_node_has_no_more_room() -> None:
    assert ask(MemoryNeed(), 120, 128, 0, room=150) == 144
    assert ask(MemoryNeed(), 120, 128, 0, room=143) is None
    assert ask(MemoryNeed(), 120, 128, 0, room=0) is None
    assert ask(MemoryNeed(), 1, 128, 0, low=512, room=256) == 256


def test_it_shrinks_only_after_all_of_the_look_back_was_watched() -> None:
    need = watched(100, 512)
    assert ask(need, 100, 512, 600) == 176


def test_one_moment_of_use_in_the_look_back_keeps_it() -> None:
    need = MemoryNeed()
    assert ask(need, 300, 512, 0) is None
    for now in range(5, 605, 5):
        assert ask(need, 100, 512, now) is None
    assert ask(need, 100, 512, 605) == 176


def test_shrinks_keep_their_distance_though_each_alone_would_be_due() -> None:
    need = watched(10, 512, low=16)
    assert ask(need, 10, 512, 600) == 32
    assert ask(need, 10, 512, 899) is None
    assert ask(need, 10, 512, 900) == 32


def test_a_size_above_the_upper_bound_comes_down_late_and_not_below_what_is_in_use() -> None:
    need = watched(600, 1024, high=900)
    assert ask(need, 600, 1024, 600, high=900) == 900
    need = watched(600, 1024, high=700)
    assert ask(need, 600, 1024, 600, high=700) == 750


def test_a_shrink_that_was_refused_is_not_asked_for_again_and_growths_still_are() -> None:
    need = watched(100, 512)
    assert ask(need, 100, 512, 600) == 176
    need.refused(176 * MI, 512 * MI, 601)
    assert not need.may_shrink
    assert ask(need, 100, 512, 2000) is None
    assert ask(need, 500, 512, 2001) == 848


def test_a_growth_that_was_refused_is_asked_for_again_after_a_while() -> None:
    need = MemoryNeed()
    need.refused(256 * MI, 128 * MI, 0)
    assert need.may_shrink
    assert ask(need, 120, 128, 59) is None
    assert ask(need, 120, 128, 60) == 208


SIZES = st.integers(0, 2048)


@given(
    st.lists(st.tuples(st.sampled_from([1.0, 5.0, 100.0, 400.0]), SIZES), min_size=1, max_size=40),
    st.integers(1, 2048),
    st.integers(1, 1024),
    st.integers(0, 2048),
    st.integers(0, 4096),
)
def test_any_history_is_judged_as_by_one_who_remembers_all_of_it(
    history: list[tuple[float, int]], start: int, low: int, more: int, room: int
) -> None:
    need, size, now, shrunk_s = MemoryNeed(), start * MI, 0.0, -math.inf
    high, past = low + more, list[tuple[float, int]]()
    for wait_s, used in history:
        now += wait_s
        past.append((now, used * MI))
        peak = max(each for at_s, each in past if at_s >= now - 600)
        found = need.target(used * MI, size, low * MI, high * MI, room * MI, now)
        pressed = used * MI > 0.8 * size
        if found is None:
            assert not pressed or size >= min(high, room // 16 * 16) * MI or used * MI / 0.6 <= size
            assert size >= low * MI or room * MI < size + STEP
            if not pressed and size >= low * MI and now - past[0][0] >= 600 and now - shrunk_s >= 300:
                assert peak >= 0.45 * size or max(peak / 0.6 + STEP, low * MI) >= size
            continue
        assert found % STEP == 0 or found in (low * MI, high * MI) or found == math.ceil(peak * 1.25)
        if found > size:
            assert pressed or size < low * MI
            assert found <= min(high, room) * MI
            assert found in (high * MI, low * MI, room // 16 * 16 * MI) or used * MI / found <= 0.6
        else:
            assert found < size
            assert peak < 0.45 * size or size > high * MI
            assert now - past[0][0] >= 600
            assert now - shrunk_s >= 300
            assert found >= max(low * MI, peak * 1.25)
            shrunk_s = now
        size = found


@given(st.integers(1, 4096), st.integers(1, 600))
def test_a_size_just_taken_is_left_alone_while_use_stays(used: int, minutes: int) -> None:
    need = MemoryNeed()
    size = ask(need, used, None, 0, high=1 << 16)
    for now in range(0, minutes * 60, 60):
        assert ask(need, used, size, now, high=1 << 16) is None


@pytest.mark.parametrize(
    "wrong",
    [{"grow_above": 1.0}, {"fill": 0.9}, {"shrink_below": 0.7}, {"spare": 1.0}, {"spare": 2.0}, {"look_back_s": 0.0}],
    ids=str,
)
def test_rules_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        MemoryRules(**wrong)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (2, 1)])
def test_bounds_that_contradict_each_other_are_refused(low: int, high: int) -> None:
    with pytest.raises(ValueError, match="bounds"):
        MemoryNeed().target(1, 1, low, high, 1, 0.0)
