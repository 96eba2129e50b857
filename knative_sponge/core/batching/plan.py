"""Which requests a free upstream slot should serve: the rule **plan** (docs/design.md §4.4). It looks ahead, changes nothing.

Plain EDF collapses in overload: it spends the slot on heads that just miss. The plan tries several batch sizes. For each it
rolls the queue's EDF schedule forward, gives up heads that no batch can serve in time, and counts the rows served in time.
It keeps the size that serves the most.

A batch is checked against its head's deadline with the cautious latency L, as the check must hold for this very batch. A
batch moves time on by the median latency l, as the sum over many batches is an average.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

from knative_sponge.core.batching.work import Work

Table = Sequence[float]
"""Latency in seconds by rows: `table[rows]`, entry 0 unused, non-decreasing."""


_COHORT = object()


@dataclass(slots=True)
class Lane:
    """Works that may share a batch, in EDF order. total: their rows. unit: each work is one row, which makes planning cheap."""

    works: list[Work]
    deadlines: list[float]
    rows: list[int]
    total: int
    unit: bool


def lanes_of(works: Sequence[Work], *, sizing: bool = False) -> list[Lane]:
    """Group works in EDF order by compatibility. O(n). sizing: that order is, and lanes have, the works' sizing deadlines."""
    by_group: dict[object, list[Work]] = {}
    for work in works:
        group = (_COHORT, work.cohort) if work.cohort else work.group
        members = by_group.get(group)
        if members is None:
            by_group[group] = [work]
        else:
            members.append(work)
    lanes = []
    for members in by_group.values():
        rows = [work.rows for work in members]
        total = sum(rows)
        deadlines = [work.sizing_deadline_s if sizing else work.deadline_s for work in members]
        lanes.append(Lane(members, deadlines, rows, total, total == len(rows)))
    return lanes


def targets(longest: int, cap: int) -> list[int]:
    """The batch sizes to try: 1, 2, 4, … and the largest that makes a difference, min(longest, cap)."""
    top = min(longest, cap)
    sizes = []
    size = 1
    while size < top:
        sizes.append(size)
        size *= 2
    sizes.append(max(top, 1))
    return sizes


def served_rows(
    lanes: Sequence[Lane], free_s: Sequence[float], target: int, median: Table, cautious: Table, beat: int
) -> int:
    """Rows served in time when every batch aims at `target` rows.

    free_s: when each upstream slot becomes free, absolute.
    beat: the caller needs more rows than this. The count may stop early once it cannot exceed `beat`.
    """
    if len(lanes) == 1 and len(free_s) == 1 and lanes[0].unit:
        return _served_unit(lanes[0].deadlines, free_s[0], target, median, cautious, beat)
    return _served(lanes, free_s, target, median, cautious, beat)


def _served_unit(deadlines: list[float], now: float, target: int, median: Table, cautious: Table, beat: int) -> int:
    """`_served` for one lane, one slot and works of one row: the case that must be fast."""
    at, count, size = 0, 0, len(deadlines)
    full, step = cautious[target], median[target]
    last_full = size - target
    while at <= last_full:
        limit = now + full
        if deadlines[at] < limit:
            # All heads before `limit` are given up at once, as long as a full batch remains behind them.
            at = bisect_left(deadlines, limit, at + 1, last_full + 1)
            if count + size - at <= beat:
                return count
            continue
        count += target
        now += step
        at += target
    while at < size:
        left = size - at
        if deadlines[at] >= now + cautious[left]:
            return count + left
        at += 1
    return count


def _served(
    lanes: Sequence[Lane], free_s: Sequence[float], target: int, median: Table, cautious: Table, beat: int
) -> int:
    slots = list(free_s)
    heapify(slots)
    heads = [(lane.deadlines[0], number) for number, lane in enumerate(lanes)]
    heapify(heads)
    position = [0] * len(lanes)
    left = [lane.total for lane in lanes]
    lost, total, count = 0, sum(left), 0
    while heads:
        now = slots[0]
        deadline, number = heads[0]
        lane, at = lanes[number], position[number]
        carried = max(min(target, left[number]), lane.rows[at])
        if deadline < now + cautious[carried]:
            left[number] -= lane.rows[at]
            lost += lane.rows[at]
            if total - lost <= beat:
                return count
            at += 1
        else:
            taken, end = _prefix(lane.rows, at, target)
            count += taken
            left[number] -= taken
            heapreplace(slots, now + median[taken])
            at = end
        position[number] = at
        if at < len(lane.rows):
            heapreplace(heads, (lane.deadlines[at], number))
        else:
            heappop(heads)
    return count


def _prefix(rows: Sequence[int], at: int, limit: int) -> tuple[int, int]:
    """Rows and end of the longest run from `at` with at most `limit` rows; at least one work."""
    taken, end = rows[at], at + 1
    while end < len(rows) and taken + rows[end] <= limit:
        taken += rows[end]
        end += 1
    return taken, end


def best_target(
    lanes: Sequence[Lane], free_s: Sequence[float], cap: int, median: Table, cautious: Table
) -> tuple[int, int]:
    """(target, rows served): the smallest batch size that serves the most rows in time."""
    total = sum(lane.total for lane in lanes)
    best, best_rows = 1, -1
    for target in targets(max(lane.total for lane in lanes), cap):
        rows = served_rows(lanes, free_s, target, median, cautious, best_rows)
        if rows > best_rows:
            best, best_rows = target, rows
            if rows == total:
                break
    return best, best_rows


def choose_batch(
    works: Sequence[Work], now: float, cap: int, median: Table, cautious: Table, *, sizing: bool = False
) -> list[Work]:
    """The batch to start now, from works in EDF order; empty when the cautious latency serves no work in time.

    Tables must reach max(cap, largest rows of a work). The batch passes over heads that the plan gives up. They stay queued,
    as the next decision may see a shorter queue or more cores. sizing: by the works' sizing deadlines.
    """
    lanes = lanes_of(works, sizing=sizing)
    free = (now,)
    target, rows = best_target(lanes, free, cap, median, cautious)
    if rows == 0:
        return []
    starts = [_first_carried(lane, now, target, cautious) for lane in lanes]
    lane, at = min(
        ((lane, at) for lane, at in zip(lanes, starts, strict=True) if at is not None),
        key=lambda found: found[0].deadlines[found[1]],
    )
    taken, end = _largest_fitting(lane, at, lane.deadlines[at] - now, cap, cautious)
    if (
        len(lanes) > 1
        and taken > target
        and not _harmless(lanes, lane, at, end, now, taken, target, rows, median, cautious, sizing)
    ):
        _, end = _prefix(lane.rows, at, target)
    return lane.works[at:end]


def spares_others(
    works: Sequence[Work], batch: Sequence[Work], now: float, cap: int, median: Table, cautious: Table
) -> bool:
    """Whether as many rows make their sizing deadline when this batch goes first as when these deadlines alone count.

    works: in order of their sizing deadlines. batch: chosen by others; each work in it makes its own.
    """
    _, most = best_target(lanes_of(works, sizing=True), (now,), cap, median, cautious)
    first = {work.key for work in batch}
    rest = [work for work in works if work.key not in first]
    rows = sum(work.rows for work in batch)
    served = sum(work.rows for work in works) - sum(work.rows for work in rest)
    if rest and served < most:
        served += best_target(lanes_of(rest, sizing=True), (now + cautious[rows],), cap, median, cautious)[1]
    return served >= most


def _first_carried(lane: Lane, now: float, target: int, cautious: Table) -> int | None:
    """Index of the first work that a batch of min(target, rows left) rows serves in time; None when there is none."""
    left = lane.total
    for at, rows in enumerate(lane.rows):
        if lane.deadlines[at] >= now + cautious[max(min(target, left), rows)]:
            return at
        left -= rows
    return None


def _largest_fitting(lane: Lane, at: int, slack_s: float, cap: int, cautious: Table) -> tuple[int, int]:
    """Rows and end of the longest run from `at` that fits the head's slack and the cap; at least one work."""
    fits = bisect_right(cautious, slack_s, 1, min(cap, len(cautious) - 1) + 1) - 1
    if lane.unit:
        taken = max(1, min(fits, len(lane.rows) - at))
        return taken, at + taken
    return _prefix(lane.rows, at, fits)


def _harmless(
    lanes: Sequence[Lane], chosen: Lane, at: int, end: int, now: float, taken: int, target: int, rows: int,
    median: Table, cautious: Table, sizing: bool,
) -> bool:  # fmt: skip
    """Whether a batch that is larger than the target makes no row of another lane late."""
    rest = []
    for lane in lanes:
        keep = [w for i, w in enumerate(lane.works) if lane is not chosen or not at <= i < end]
        rest.extend(lanes_of(keep, sizing=sizing))
    behind = served_rows(rest, (now + median[taken],), target, median, cautious, -1) if rest else 0
    return taken + behind >= rows
