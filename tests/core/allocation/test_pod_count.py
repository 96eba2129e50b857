"""How the pod count follows the load."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.allocation.pod_count import CountRules, PodCount


def held(
    count: PodCount, needed: int, with_reserve: int, since: float, until: float, *, short: bool = False
) -> list[int]:
    """The counts while the same is asked for, each quarter of a second."""
    steps = int((until - since) * 4) + 1
    return [count.update(needed, with_reserve, short, since + step / 4) for step in range(steps)]


def test_more_pods_are_made_only_after_they_were_asked_for_ten_seconds() -> None:
    count = PodCount(2)
    assert set(held(count, 3, 3, 0.0, 9.75)) == {2}
    assert count.update(3, 3, False, 10.0) == 3


def test_a_peak_that_passes_makes_no_pod() -> None:
    count = PodCount(2)
    for start in range(0, 100, 10):
        held(count, 4, 4, start, start + 9.0)
        count.update(2, 2, False, start + 9.5)
    assert count.pods == 2


def test_the_count_grows_to_what_was_asked_for_all_the_time_and_at_most_doubles() -> None:
    count = PodCount(3)
    held(count, 9, 9, 0.0, 5.0)
    held(count, 5, 5, 5.25, 9.75)
    assert count.update(9, 9, False, 10.0) == 5
    assert held(PodCount(3), 20, 20, 0.0, 10.0)[-1] == 6


def test_fewer_pods_must_be_enough_with_room_to_spare_for_a_minute() -> None:
    count = PodCount(4)
    assert set(held(count, 2, 4, 0.0, 200.0)) == {4}
    assert set(held(count, 2, 3, 200.25, 260.0)) == {4}
    assert count.update(2, 3, False, 260.25) == 3


def test_the_count_shrinks_to_the_most_that_was_needed_and_at_most_halves() -> None:
    count = PodCount(9)
    held(count, 1, 2, 0.0, 30.0)
    held(count, 6, 7, 30.25, 31.0)
    held(count, 1, 2, 31.25, 59.75)
    assert count.update(1, 2, False, 60.0) == 7
    assert held(PodCount(9), 1, 1, 0.0, 60.0)[-1] == 5


def test_a_pod_that_cannot_grow_where_it_is_gets_company_at_once() -> None:
    count = PodCount(2)
    assert count.update(2, 2, True, 0.0) == 3
    # The new one takes time to start.
    assert set(held(count, 2, 2, 0.25, 9.75, short=True)) == {3}
    assert count.update(2, 2, True, 10.0) == 4


def test_while_a_pod_is_short_none_is_taken_away() -> None:
    count = PodCount(3, CountRules(grow_s=1000.0))
    assert count.update(2, 1, True, 0.0) == 4
    assert set(held(count, 1, 1, 0.25, 300.0, short=True)) == {4}


STEPS = st.lists(
    st.tuples(st.integers(1, 20), st.integers(0, 5), st.booleans(), st.floats(0.1, 30.0)), min_size=1, max_size=60
)


@given(start=st.integers(1, 20), steps=STEPS)
def test_no_step_is_larger_than_a_factor_of_two_and_none_comes_without_cause(
    start: int, steps: list[tuple[int, int, bool, float]]
) -> None:
    count, now = PodCount(start), 0.0
    for needed, more, short, wait_s in steps:
        before = count.pods
        now += wait_s
        after = count.update(needed, needed + more, short, now)
        assert (before + 1) // 2 <= after <= 2 * before
        if after > before:
            assert short or needed > before
        if after < before:
            assert after >= needed + more or after == (before + 1) // 2
            assert not short


@given(start=st.integers(1, 20), needed=st.integers(1, 30))
def test_a_steady_load_comes_to_rest_at_what_it_needs(start: int, needed: int) -> None:
    count = PodCount(start)
    counts = held(count, needed, needed, 0.0, 400.0)
    assert counts[-1] == needed
    # It never turns round on the way.
    assert counts in (sorted(counts), sorted(counts, reverse=True))


def test_impossible_counts_and_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        PodCount(0)
    with pytest.raises(ValueError, match="impossible"):
        CountRules(grow_s=-1.0)


def test_shortness_adds_no_more_than_as_many_pods_again() -> None:
    count = PodCount(1)
    now = 0.0
    for _ in range(60):
        now += 10.0
        count.update(2, 2, True, now)
    assert count.pods == 4


def test_a_count_that_was_one_too_many_for_a_moment_is_not_made() -> None:
    count = PodCount(3)
    held(count, 5, 5, 0.0, 5.0)
    held(count, 4, 4, 5.25, 5.25)
    held(count, 5, 5, 5.5, 9.75)
    assert count.update(5, 5, False, 10.0) == 4


def test_a_count_that_was_needed_for_a_moment_is_kept() -> None:
    count = PodCount(9)
    held(count, 6, 6, 0.0, 30.0)
    held(count, 7, 7, 30.25, 30.25)
    held(count, 6, 6, 30.5, 59.75)
    assert count.update(6, 6, False, 60.0) == 7


def test_after_a_change_too_the_count_follows_what_was_asked_for_all_the_time() -> None:
    count = PodCount(4)
    held(count, 6, 6, 0.0, 10.0)
    assert count.pods == 6
    held(count, 9, 9, 10.25, 15.0)
    held(count, 7, 7, 15.25, 20.0)
    assert count.update(9, 9, False, 20.25) == 7
