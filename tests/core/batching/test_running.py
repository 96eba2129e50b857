"""How far a batch is that is with the model server, also when its cores change on the way."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.batching.running import Due, RunningBatch
from knative_sponge.core.batching.work import Work
from tests.core.batching.virtual_shell import exact_model

MODEL = exact_model()
ON_ONE, ON_TWO = MODEL.predict_s(2, 1.0), MODEL.predict_s(2, 2.0)
START = 5.0


def running(cores: float = 1.0, *works: Work) -> RunningBatch:
    return RunningBatch(works or (Work(1, 9.0), Work(2, 9.0)), START, cores, cold=False, rested_s=0.0)


@pytest.mark.parametrize(
    ("passed", "left"), [(0.0, 1.0), (0.25, 0.75), (0.875, 0.125), (0.95, 0.1), (1.0, 0.1), (3.0, 0.1)]
)
def test_what_is_left_shrinks_with_time_and_never_ends(passed: float, left: float) -> None:
    assert running().left_share(START + passed * ON_ONE, MODEL) == pytest.approx(left)


def test_a_moment_before_its_start_takes_nothing_off() -> None:
    batch = running()
    batch.advance(START - 1.0, MODEL)
    assert batch.left_share(START - 2.0, MODEL) == 1.0


def test_a_resize_keeps_what_was_done() -> None:
    batch = running()
    batch.resize(START + ON_ONE / 4, 2.0, MODEL)
    assert batch.left_share(START + ON_ONE / 4, MODEL) == pytest.approx(0.75)
    assert batch.left_share(START + ON_ONE / 4 + ON_TWO / 2, MODEL) == pytest.approx(0.25)


def test_the_cores_of_a_sample_are_their_mean_over_time() -> None:
    batch = running()
    batch.resize(START + 0.1, 2.0, MODEL)
    assert batch.mean_cores(START + 0.4, MODEL) == pytest.approx(1.75)
    assert batch.mean_cores(START + 0.6, MODEL) == pytest.approx(11 / 6)


@pytest.mark.parametrize("sizes", [(2.01,), (0.49,), (0.7, 1.5), (2.01, 1.0), (0.49, 1.0)])
def test_a_batch_whose_cores_more_than_doubled_is_a_sample_of_no_size(sizes: tuple[float, ...]) -> None:
    batch = running()
    for second, cores in enumerate(sizes, start=1):
        batch.resize(START + second, cores, MODEL)
    assert batch.mean_cores(START + 5.0, MODEL) is None


@pytest.mark.parametrize("cores", [2.0, 0.5])
def test_a_batch_whose_cores_just_doubled_or_halved_is_a_sample(cores: float) -> None:
    batch = running()
    batch.resize(START + 1.0, cores, MODEL)
    assert batch.mean_cores(START + 2.0, MODEL) == pytest.approx((1.0 + cores) / 2)


def test_cores_that_never_changed_are_told_to_the_last_bit() -> None:
    batch = running(0.3)
    batch.advance(START + 0.1, MODEL)
    assert batch.mean_cores(START + 0.7, MODEL) == 0.3


def test_a_batch_that_was_resized_at_its_start_has_the_new_size() -> None:
    batch = running()
    batch.resize(START, 2.0, MODEL)
    assert batch.mean_cores(START, MODEL) == 2.0


def test_it_is_given_up_when_the_first_client_stops_waiting() -> None:
    batch = running(1.0, Work(1, 9.0, give_up_s=30.0), Work(2, 9.0, give_up_s=20.0))
    assert batch.give_up_s == 20.0
    batch.members.clear()
    assert batch.give_up_s == math.inf


def test_who_gives_up_is_taken_out_the_most_impatient_first_and_who_has_left_is_not() -> None:
    members = [Work(key, 9.0, give_up_s=give_up_s) for key, give_up_s in enumerate((30.0, 20.0, 10.0, 15.0))]
    batch = running(1.0, *members)
    del batch.members[3]
    assert [work.key for work in batch.pop_given_up(25.0)] == [2, 1]
    assert batch.give_up_s == 30.0
    assert batch.pop_given_up(29.0) == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3)), max_size=12), st.integers(-1, 10))
def test_rows_are_in_time_until_they_are_due(drawn: list[tuple[int, int]], at_s: int) -> None:
    due = Due.of(Work(key, float(deadline_s), rows=rows) for key, (deadline_s, rows) in enumerate(drawn))
    assert due.rows == sum(rows for _, rows in drawn)
    assert due.in_time(float(at_s)) == sum(rows for deadline_s, rows in drawn if deadline_s >= at_s)


def test_what_is_due_is_what_the_remaining_members_are_by_the_deadline_that_is_sized_for() -> None:
    batch = running(1.0, Work(1, 2.0, sizing_deadline_s=9.0), Work(2, 3.0))
    assert (batch.due.in_time(3.0), batch.due.in_time(9.0)) == (2, 1)
    del batch.members[1]
    assert (batch.due.rows, batch.due.in_time(9.0)) == (1, 0)
