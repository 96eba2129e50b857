"""The dispatch rule **plan** against an independent, slow reading of docs/design.md §4.4."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from knative_sponge.core.batching.batcher import Batcher, BatchRules
from knative_sponge.core.batching.defer import DeferRules
from knative_sponge.core.batching.events import Arrived, BatchDone, Dispatch
from knative_sponge.core.batching.plan import (
    MOST_LANES,
    MOST_MIXED,
    MOST_ROWS,
    MOST_WORKS,
    best_target,
    choose_batch,
    lanes_of,
    served_rows,
    targets,
)
from knative_sponge.core.batching.work import Work
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel

CAP = 8


def table(fixed: float, per_row: float, longest: int = 16) -> list[float]:
    return [0.0] + [fixed + per_row * rows for rows in range(1, longest + 1)]


def slow_served(works: list[Work], free_s: list[float], target: int, median: list[float], cautious: list[float]) -> int:
    """Roll the EDF schedule forward one head at a time, straight from the words there."""
    waiting = sorted(works, key=lambda w: w.deadline_s)
    slots = sorted(free_s)
    served = 0
    while waiting:
        head = waiting[0]
        mates = [w for w in waiting if w.group == head.group and w.cohort == head.cohort]
        left = sum(w.rows for w in mates)
        now = slots[0]
        if now + cautious[max(min(target, left), head.rows)] > head.deadline_s:
            waiting.remove(head)
            continue
        batch: list[Work] = []
        for work in mates:
            if batch and sum(w.rows for w in batch) + work.rows > target:
                break
            batch.append(work)
        rows = sum(w.rows for w in batch)
        served += rows
        slots[0] = now + median[rows]
        slots.sort()
        waiting = [w for w in waiting if w not in batch]
    return served


def works_of(rows: st.SearchStrategy[int], groups: st.SearchStrategy[str]) -> st.SearchStrategy[list[Work]]:
    one = st.tuples(st.integers(0, 60), rows, groups, st.integers(0, 3))
    return st.lists(one, min_size=1, max_size=24).map(
        lambda drawn: sorted(
            (
                Work(key, deadline / 10 + key * 1e-6, rows=r, group=group, cohort=cohort if group == "x" else 0)
                for key, (deadline, r, group, cohort) in enumerate(drawn)
            ),
            key=lambda w: w.deadline_s,
        )
    )


TABLES = st.tuples(st.integers(0, 10), st.integers(1, 10), st.integers(0, 3)).map(
    lambda p: (table(p[0] / 20, p[1] / 40), table(p[0] / 20 + p[2] / 20, p[1] / 40))
)


@settings(max_examples=3000)
@given(works_of(st.just(1), st.just("a")), TABLES, st.integers(1, CAP))
def test_rolling_one_lane_of_single_rows_counts_what_the_slow_reading_counts(
    works: list[Work], tables: tuple[list[float], list[float]], target: int
) -> None:
    median, cautious = tables
    fast = served_rows(lanes_of(works), [0.0], target, median, cautious, -1)
    assert fast == slow_served(works, [0.0], target, median, cautious)


@settings(max_examples=3000)
@given(
    works_of(st.integers(1, 5), st.sampled_from("abx")),
    TABLES,
    st.integers(1, CAP),
    st.lists(st.integers(0, 5).map(lambda t: t / 5), min_size=1, max_size=3),
)
def test_rolling_any_lanes_rows_and_slots_counts_what_the_slow_reading_counts(
    works: list[Work], tables: tuple[list[float], list[float]], target: int, free_s: list[float]
) -> None:
    median, cautious = tables
    fast = served_rows(lanes_of(works), free_s, target, median, cautious, -1)
    assert fast == slow_served(works, free_s, target, median, cautious)


@settings(max_examples=1500)
@given(works_of(st.integers(1, 5), st.sampled_from("ab")), TABLES)
def test_the_smallest_size_with_the_best_count_is_taken(
    works: list[Work], tables: tuple[list[float], list[float]]
) -> None:
    median, cautious = tables
    lanes = lanes_of(works)
    sizes = targets(max(lane.total for lane in lanes), CAP)
    counts = {size: slow_served(works, [0.0], size, median, cautious) for size in sizes}
    best = max(counts.values())
    assert best_target(lanes, [0.0], CAP, median, cautious) == (min(s for s in sizes if counts[s] == best), best)


@settings(max_examples=3000)
@given(works_of(st.integers(1, 5), st.sampled_from("abx")), TABLES)
def test_a_batch_is_one_compatible_edf_run_that_fits_cap_and_head_deadline(
    works: list[Work], tables: tuple[list[float], list[float]]
) -> None:
    median, cautious = tables
    batch = choose_batch(works, 0.0, CAP, median, cautious)
    lanes = lanes_of(works)
    if not batch:
        # Refusing to choose is only right when caution lets nothing through.
        assert all(slow_served(works, [0.0], size, median, cautious) == 0 for size in range(1, CAP + 1))
        return
    lane = next(lane for lane in lanes if batch[0] in lane.works)
    at = lane.works.index(batch[0])
    assert lane.works[at : at + len(batch)] == batch
    rows = sum(work.rows for work in batch)
    assert rows <= CAP or len(batch) == 1
    assert cautious[rows] <= batch[0].deadline_s
    # It could not have been larger, unless that would have cost another lane a row.
    following = lane.works[at + len(batch) : at + len(batch) + 1]
    if following and len(lanes) == 1:
        more = rows + following[0].rows
        assert more > CAP or cautious[more] > batch[0].deadline_s


@settings(max_examples=2000)
@given(works_of(st.just(1), st.just("a")), TABLES)
def test_the_plan_serves_at_least_what_plain_edf_with_early_drop_serves(
    works: list[Work], tables: tuple[list[float], list[float]]
) -> None:
    median, _cautious = tables
    lanes = lanes_of(works)
    plain = slow_served(works, [0.0], 1, median, median)
    assert best_target(lanes, [0.0], CAP, median, median)[1] >= plain


def test_a_batch_of_another_group_is_not_made_larger_at_the_cost_of_a_tight_one() -> None:
    median = table(0.0, 1.0)
    loose = [Work(key, 100.0 + key, group="loose") for key in range(6)]
    first = Work(50, 3.0, group="loose")
    tight = Work(99, 4.5, group="tight")
    batch = choose_batch([first, tight, *loose], 0.0, CAP, median, median)
    assert len(batch) <= 3  # 1 s a row: with more, `tight` could not follow in time


def test_in_overload_heads_that_would_spoil_full_batches_are_passed_over() -> None:
    # A batch of any size takes 1 s. Two heads have 0.5 s more than a batch of one needs; eight others have 2.2 s.
    median = [0.0] + [1.0 + 0.01 * rows for rows in range(1, 17)]
    heads = [Work(key, 1.02 + key * 1e-3) for key in range(2)]
    others = [Work(10 + key, 1.2 + key * 1e-3) for key in range(8)]
    batch = choose_batch(heads + others, 0.0, CAP, median, median)
    assert [work.key for work in batch] == [work.key for work in others]


def test_sizes_tried_are_powers_of_two_and_the_largest_that_matters() -> None:
    assert targets(1, 32) == [1]
    assert targets(5, 32) == [1, 2, 4, 5]
    assert targets(100, 32) == [1, 2, 4, 8, 16, 32]
    assert targets(100, 24) == [1, 2, 4, 8, 16, 24]


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 2000)), max_size=400))
def test_within_the_bounds_no_work_is_left_out_of_the_plan_and_beyond_them_the_most_urgent_are_not(
    drawn: list[tuple[int, int]],
) -> None:
    works = [Work(key, float(key), rows=rows, group=group) for key, (group, rows) in enumerate(drawn)]
    lanes = lanes_of(works)
    planned = sorted((work for lane in lanes for work in lane.works), key=lambda work: work.key)
    if len(works) <= MOST_MIXED and len({work.group for work in works}) <= MOST_LANES:
        assert planned == works
    assert planned[:MOST_LANES] == works[:MOST_LANES]
    assert len(planned) <= MOST_WORKS
    assert len(lanes) <= MOST_LANES
    assert all(rows <= MOST_ROWS for lane in lanes for rows in lane.rows)


def test_a_batch_larger_than_what_is_planned_is_filled_up() -> None:
    batcher = Batcher(
        BatchRules(max_rows=4096, defer=DeferRules(mode="never")),
        LatencyModel(LatencyParams(0.0, 1e-5, 0.0, 0.1)),
        1.0,
        1.0,
    )
    batcher.handle(Arrived(Work(0, 1e6)), 0.0)
    for key in range(1, 6001):
        batcher.handle(Arrived(Work(key, 100.0 + key, group=int(key > 3000))), 0.0)
    sizes = []
    for _ in range(2):
        commands = batcher.handle(BatchDone(max(batcher.running), sample=False), 0.0)
        sizes += [len(command.works) for command in commands if isinstance(command, Dispatch)]
    assert sizes == [3000, 3000], "all of one lane, then all of the other"
