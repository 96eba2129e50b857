"""The rule plan in small cases that can be followed by hand."""

from __future__ import annotations

import pytest

from knative_sponge.core.batching.plan import choose_batch, lanes_of, served_rows
from knative_sponge.core.batching.work import Work


def works(*drawn: tuple[float, str]) -> list[Work]:
    return [Work(key, deadline_s, group=group) for key, (deadline_s, group) in enumerate(drawn)]


def table(fixed: float, per_row: float) -> list[float]:
    return [0.0, *(fixed + per_row * rows for rows in range(1, 9))]


def test_two_slots_serve_twice_as_much() -> None:
    lanes = lanes_of(works((1.0, "a"), (1.0, "a"), (1.0, "a")))
    alone = [0.0, *[1.0 * rows for rows in range(1, 5)]]
    assert served_rows(lanes, (0.0,), 1, alone, alone, -1) == 1
    assert served_rows(lanes, (0.0, 0.0), 1, alone, alone, -1) == 2


@pytest.mark.parametrize(
    ("queue", "times", "chosen"),
    [
        # Both of b take 1.5 s, then a takes 1.25 s: all are in time.
        (works((2.0, "b"), (5.0, "b"), (6.0, "a")), table(1.0, 0.25), [0, 1]),
        # Both of a take 2.5 s, and b would start too late: only one of a, then b.
        (works((3.5, "a"), (3.5, "b"), (4.5, "a")), table(0.5, 1.0), [0]),
        # Two of b take 1.5 s, then the third of b and a one after the other 1 s each: all are in time.
        (works((1.5, "b"), (3.5, "b"), (4.0, "b"), (5.0, "a")), table(0.5, 0.5), [0, 1]),
    ],
)
def test_a_batch_grows_beyond_its_target_only_when_no_other_lane_loses_by_it(
    queue: list[Work], times: list[float], chosen: list[int]
) -> None:
    assert [work.key for work in choose_batch(queue, 0.0, 4, times, times)] == chosen
