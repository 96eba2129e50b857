"""What running batches and queue lose at any number of cores, seen from one moment. Pure; asks for no resize."""

from __future__ import annotations

import math
from collections.abc import Sequence

from knative_sponge.core.batching.plan import MOST_ROWS, Lane, Table, best_target, lanes_of, served_rows, targets
from knative_sponge.core.batching.running import Due
from knative_sponge.core.batching.work import Work
from knative_sponge.core.latency.model import LatencyModel


class Outlook:
    """The works of one moment, running and queued, and how many of them miss their sizing deadline at any size.

    works: the queue, in order of these. running: (rows, share still to do, when its members are due) of each batch that the
    model server works on. cap: most rows per upstream call. slots: upstream calls at once.
    """

    __slots__ = ("_cap", "_longest", "_model", "_now", "_running", "_slots", "lanes", "total")

    def __init__(
        self,
        model: LatencyModel,
        works: Sequence[Work],
        running: Sequence[tuple[int, float, Due]],
        now: float,
        cap: int,
        slots: int,
    ) -> None:
        self._model = model
        self._now = now
        self._running = running
        self._cap = min(cap, MOST_ROWS)
        self._slots = slots
        self.lanes: list[Lane] = lanes_of(works, sizing=True)
        self.total = sum(lane.total for lane in self.lanes) + sum(due.rows for _, _, due in running)
        rows = [*(max(lane.rows) for lane in self.lanes), *(min(rows, MOST_ROWS) for rows, _, _ in running)]
        self._longest = max(self._cap, *rows, 1)

    def lost(self, cores: float) -> int:
        """Rows, running and queued, that miss their deadline at this size."""
        return self.total - self._most(cores)[1]

    def least_cores(self, low: float, high: float) -> float:
        """The least size in [low, high] that loses no more rows than `high` does, in whole millicores."""
        target, goal = self._most(high)
        if goal == 0:
            return high  # no size saves a row of these; the most cores serve the arrivals to come
        sizes = targets(max((lane.total for lane in self.lanes), default=1), self._cap)
        below, enough = math.ceil(round(low * 1000, 6)) - 1, round(high * 1000)
        while enough - below > 1:
            middle = (below + enough) // 2
            found = self._reaches(middle / 1000, goal, target, sizes)
            if found is None:
                below = middle
            else:
                enough, target = middle, found
        return min(enough / 1000, high)

    def _most(self, cores: float) -> tuple[int, int]:
        """The best batch size and the rows that it serves in time, those of running batches included."""
        free, kept = self._after_running(cores)
        if not self.lanes:
            return 1, kept
        costs, cautious = self._tables(cores)
        target, served = best_target(self.lanes, free, self._cap, costs, cautious)
        return target, served + kept

    def _reaches(self, cores: float, goal: int, first: int, sizes: Sequence[int]) -> int | None:
        """A batch size that serves `goal` rows with these cores; None when there is none. `first` is tried first."""
        costs, cautious = self._tables(cores)
        free, kept = self._after_running(cores)
        goal -= kept
        if goal <= 0 or (self.lanes and served_rows(self.lanes, free, first, costs, cautious, goal - 1) >= goal):
            return first
        for size in sizes if self.lanes else ():
            if size != first and served_rows(self.lanes, free, size, costs, cautious, goal - 1) >= goal:
                return size
        return None

    def _tables(self, cores: float) -> tuple[Table, Table]:
        """Seconds by rows: how long a batch keeps its slot (cost), and how long its own requests wait (cautious latency).

        Batches follow each other by their cost: a queue is served no faster than the cores allow.
        """
        each = cores / self._slots
        return self._model.cost_table(each, self._longest), self._model.tables(each, self._longest)[1]

    def _after_running(self, cores: float) -> tuple[list[float], int]:
        """When each upstream slot becomes free at this size, and how many running rows make their deadline."""
        each, model = cores / self._slots, self._model
        free, kept = [self._now] * (self._slots - len(self._running)), 0
        if not self._running:
            return free, kept
        cautious = model.tables(each, self._longest)[1]
        for rows, share, due in self._running:
            median_s = model.predict_s(rows, each)
            free.append(self._now + share * median_s)
            planned = min(rows, MOST_ROWS)
            cautious_s = cautious[planned]
            if rows > planned:
                cautious_s *= median_s / model.predict_s(planned, each)
            kept += due.in_time(self._now + share * cautious_s)
        return free, kept
