"""What is asked for next after a refusal, at the edges of the search."""

from __future__ import annotations

import pytest

from knative_sponge.core.resizing.refusals import Refusals


@pytest.mark.parametrize("need", [1.0, 2.0, 2.5])
def test_a_need_that_is_had_or_was_refused_itself_is_not_asked_for_next(need: float) -> None:
    refusals = Refusals(60.0)
    refusals.add(2.0, 1.0, 0.0, "quota", need)
    assert refusals.ceiling(0.0) == 1.5


def test_a_need_between_them_is_asked_for_next() -> None:
    refusals = Refusals(60.0)
    refusals.add(2.0, 1.0, 0.0, "quota", 1.2)
    assert refusals.ceiling(0.0) == 1.2


def test_what_was_found_once_is_not_asked_for_when_just_that_is_refused() -> None:
    refusals = Refusals(60.0)
    refusals.add(1.05, 1.0, 0.0, "quota")  # the end of a search: 1.0 is found
    refusals.add(1.0, 0.5, 61.0, "quota")
    assert refusals.ceiling(61.0) == 0.75


def test_what_was_found_is_forgotten_after_ten_minutes() -> None:
    refusals = Refusals(60.0)
    refusals.add(1.05, 1.0, 0.0, "quota")
    refusals.add(2.0, 0.5, 599.0, "quota")
    assert refusals.ceiling(599.0) == 1.0
    refusals.add(2.0, 0.5, 600.0, "quota")
    assert refusals.ceiling(600.0) == 1.25


@pytest.mark.parametrize(("refused", "tried"), [(10.5, 10.0), (11.0, 10.0), (12.0, 11.0)])
def test_a_search_ends_within_a_tenth_of_what_the_pod_has(refused: float, tried: float) -> None:
    refusals = Refusals(60.0)
    refusals.add(refused, 10.0, 0.0, "node")
    assert refusals.ceiling(0.0) == tried


def test_sizes_that_are_tried_are_whole_millicores() -> None:
    refusals = Refusals(60.0)
    refusals.add(2.001, 1.0, 0.0, "quota")
    assert refusals.ceiling(0.0) in {1.5, 1.501}


def test_a_refusal_that_was_not_understood_ends_at_once_with_what_the_pod_has() -> None:
    refusals = Refusals(60.0)
    refusals.add(2.0, 1.0, 0.0, "other", 1.5)
    assert refusals.ceiling(0.0) == 1.0


def test_a_refusal_of_the_size_that_the_pod_has_bounds_no_growth() -> None:
    refusals = Refusals(60.0)
    refusals.add(1.0, 1.0, 0.0, "other")
    assert refusals.ceiling(0.0) is None


def test_bounds_end_when_their_time_is_over_the_earlier_first() -> None:
    refusals = Refusals(60.0)
    refusals.add(3.0, 2.0, 0.0, "other")
    refusals.add(0.5, 1.0, 10.0, "other")
    assert (refusals.floor(59.0), refusals.ceiling(59.0)) == (1.0, 2.0)
    assert refusals.next_end_s(0.0) == 60.0
    assert (refusals.floor(60.0), refusals.ceiling(60.0)) == (1.0, None)
    assert refusals.next_end_s(60.0) == 70.0
    assert (refusals.floor(70.0), refusals.ceiling(70.0)) == (None, None)
    assert refusals.next_end_s(70.0) is None


def test_a_newer_bound_ends_an_older_one_only_where_they_contradict() -> None:
    refusals = Refusals(60.0)
    refusals.add(0.5, 1.0, 0.0, "other")
    refusals.add(2.0, 1.0, 1.0, "other")
    assert (refusals.floor(1.0), refusals.ceiling(1.0)) == (1.0, 1.0)
    refusals.add(1.0, 0.9, 2.0, "other")
    assert (refusals.floor(2.0), refusals.ceiling(2.0)) == (None, 0.9)


def test_a_newer_least_ends_an_older_most_only_where_they_contradict() -> None:
    refusals = Refusals(60.0)
    refusals.add(2.0, 1.0, 0.0, "other")
    refusals.add(0.5, 1.0, 1.0, "other")
    assert (refusals.floor(1.0), refusals.ceiling(1.0)) == (1.0, 1.0)
    refusals.add(0.9, 1.1, 2.0, "other")
    assert (refusals.floor(2.0), refusals.ceiling(2.0)) == (1.1, None)


def test_whoever_refused_and_may_grant_it_now_is_asked_again() -> None:
    refusals = Refusals(60.0)
    refusals.add(2.0, 1.0, 0.0, "quota")
    refusals.add(0.5, 0.8, 0.0, "node")
    refusals.clear("quota")
    assert (refusals.floor(0.0), refusals.ceiling(0.0)) == (0.8, None)
    refusals.clear("node")
    assert refusals.floor(0.0) is None
