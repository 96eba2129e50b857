"""Which requests a free upstream slot should serve: the rule **plan** (docs/design.md §4.4). It looks ahead, changes nothing.

Plain EDF collapses in overload: it spends the slot on heads that just miss. The plan tries several batch sizes. For each it
rolls the queue's EDF schedule forward, gives up heads that no batch can serve in time, and counts the rows served in time.
It keeps the size that serves the most.

A batch is checked against its head's deadline with the cautious latency L, as the check must hold for this very batch. A
batch moves time on by the median latency l, as the sum over many batches is an average.

Clients choose how many works wait, of how many rows and in how many lanes. So whoever plans takes at most MOST_WORKS of the
queue, or MOST_MIXED, and MOST_ROWS rows of a work or a batch. Of the lanes only MOST_LANES count: each is a call of its own,
and so many calls ahead change nothing that starts now. What is left out stays queued. By default no bound is reached.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from typing import Final

from knative_sponge.core.batching.work import Work

MOST_WORKS: Final = 512
"""Works that one decision looks at, where all are of one row and one lane, which makes planning cheap."""
MOST_MIXED: Final = 256
"""Works that one decision looks at, where they differ."""
MOST_LANES: Final = 128
"""Lanes that one decision looks at: four times a batch of 32, so that by default no lane is left out."""
MOST_ROWS: Final = 1024
"""Rows of the largest batch that is planned, and of a work as it is planned. A larger batch may be sent all the same, and
whether a work is hopeless is judged by all its rows."""

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
    """Group works in EDF order by compatibility; what is beyond the bounds above is left out. O(n).

    sizing: that order is, and lanes have, the works' sizing deadlines.
    """
    lanes = _grouped(works, sizing)
    if len(works) > MOST_MIXED and not (len(lanes) == 1 and lanes[0].unit):
        lanes = _grouped(works[:MOST_MIXED], sizing)
    return lanes


def _grouped(works: Sequence[Work], sizing: bool) -> list[Lane]:
    by_group: dict[object, list[Work]] = {}
    for work in works:
        group = (_COHORT, work.cohort) if work.cohort else work.group
        members = by_group.get(group)
        if members is not None:
            members.append(work)
        elif len(by_group) < MOST_LANES:
            by_group[group] = [work]
    lanes = []
    for members in by_group.values():
        rows = [work.rows for work in members]
        total = sum(rows)
        if total > MOST_ROWS:
            rows = [min(each, MOST_ROWS) for each in rows]
            total = sum(rows)
        deadlines = [w.sizing_deadline_s for w in members] if sizing else [w.deadline_s for w in members]
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
    return count + size - _next_carried(deadlines, at, now, target, cautious)


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
            if lane.unit:
                # Heads that follow are given up by the same clock, whatever the other lanes do meanwhile.
                end = _next_carried(lane.deadlines, at + 1, now, target, cautious)
                given_up = end - at
            else:
                end, given_up = at + 1, lane.rows[at]
            left[number] -= given_up
            lost += given_up
            if total - lost <= beat:
                return count
            at = end
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


def _next_carried(deadlines: list[float], at: int, now: float, target: int, cautious: Table) -> int:
    """Index, from `at` on, of the first work that a batch of min(target, rows left) serves in time; the end when there is none.

    For works of one row. O(log n): the later a work stands, the later its deadline and the smaller its batch.
    """
    size = len(deadlines)
    full = size - target
    if at <= full:
        at = bisect_left(deadlines, now + cautious[target], at, full + 1)
        if at <= full:
            return at
    end = size
    while at < end:
        middle = (at + end) // 2
        if deadlines[middle] < now + cautious[size - middle]:
            at = middle + 1
        else:
            end = middle
    return at


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

    Tables must reach the larger of cap and the largest rows of a work, or MOST_ROWS. The batch passes over heads that the plan
    gives up. They stay queued, as the next decision may see a shorter queue or more cores. sizing: by sizing deadlines.
    """
    lanes = lanes_of(works, sizing=sizing)
    cap = min(cap, MOST_ROWS)
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
    """Whether as many rows make their sizing deadline when this batch goes first as when these deadlines alone count. The check
    must hold for this very batch, so it takes the cautious latency.

    works: in order of their sizing deadlines. batch: chosen by others; each work in it makes its own.
    """
    cap, works = min(cap, MOST_ROWS), works[:MOST_MIXED]
    _, most = best_target(lanes_of(works, sizing=True), (now,), cap, median, cautious)
    first = {work.key for work in batch}
    rest = [work for work in works if work.key not in first]
    rows = min(sum(work.rows for work in batch), MOST_ROWS)
    served = sum(min(work.rows, MOST_ROWS) for work in works if work.key in first)
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
