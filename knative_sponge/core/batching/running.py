"""One batch that the model server works on: its members and its progress. Accounting only."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from heapq import heapify, heappop
from itertools import accumulate
from typing import NamedTuple

from knative_sponge.core.batching.work import Work
from knative_sponge.core.latency.model import LatencyModel

_OVERDUE_SHARE = 0.1
"""A batch that has taken longer than predicted is expected to take this share of its prediction more."""
_STEADY_RATIO = 2.0
"""A batch whose cores changed by more than this factor is no sample: it says nothing exact about any size."""


class Due(NamedTuple):
    """When rows are due, by their sizing deadline. deadlines: ascending. rows_before: of the works before each, and of all."""

    deadlines: list[float]
    rows_before: list[int]

    @classmethod
    def of(cls, works: Iterable[Work]) -> Due:
        """O(n), where they are nearly in order."""
        ordered = sorted((work.sizing_deadline_s, work.rows) for work in works)
        return cls([at_s for at_s, _ in ordered], [0, *accumulate(rows for _, rows in ordered)])

    @property
    def rows(self) -> int:
        """Of all."""
        return self.rows_before[-1]

    def in_time(self, at_s: float) -> int:
        """Rows that are due at `at_s` or later. O(log n)."""
        return self.rows - self.rows_before[bisect_left(self.deadlines, at_s)]


class RunningBatch:
    """A dispatched batch. Its progress is a share of the whole, so that it stays right over a resize."""

    __slots__ = (
        "_core_s", "_done", "_due", "_due_members", "_give_ups", "_high", "_low", "_since_s", "cold", "cores",
        "group", "members", "merged", "rested_s", "rows", "started_s",
    )  # fmt: skip

    def __init__(self, works: tuple[Work, ...], now: float, cores: float, *, cold: bool, rested_s: float) -> None:
        self.members = {work.key: work for work in works}
        self.merged = len(works) > 1
        self.group = works[0].group
        self.rows = sum(work.rows for work in works)
        self.started_s = now
        self.cores = cores
        self.cold = cold
        self.rested_s = rested_s
        self._give_ups = [(work.give_up_s, work.key) for work in works]
        heapify(self._give_ups)
        self._due: Due | None = None
        self._due_members = 0
        self._since_s = now
        self._done = 0.0
        self._core_s = 0.0
        self._low = self._high = cores

    def advance(self, now: float, model: LatencyModel) -> None:
        """Account for the time since the last call, at the present cores."""
        passed = max(now - self._since_s, 0.0)
        self._done += passed / model.predict_s(self.rows, self.cores)
        self._core_s += passed * self.cores
        self._since_s = now

    def resize(self, now: float, cores: float, model: LatencyModel) -> None:
        """The batch goes on with another number of cores."""
        self.advance(now, model)
        self.cores = cores
        self._low, self._high = min(self._low, cores), max(self._high, cores)

    def left_share(self, now: float, model: LatencyModel) -> float:
        """Share of the batch that is still to do; above zero even when the batch is overdue."""
        done = self._done + max(now - self._since_s, 0.0) / model.predict_s(self.rows, self.cores)
        return max(1.0 - done, _OVERDUE_SHARE)

    def mean_cores(self, now: float, model: LatencyModel) -> float | None:
        """Time-weighted mean cores since the start; None when they changed too much for the batch to be a sample."""
        self.advance(now, model)
        if self._high > _STEADY_RATIO * self._low:
            return None
        if self._high == self._low:
            return (
                self.cores
            )  # exact to the last bit: only equal sizes are counted together (core/latency/quota_credit.py)
        passed = self._since_s - self.started_s
        return self._core_s / passed if passed > 0 else self.cores

    @property
    def give_up_s(self) -> float:
        """The earliest time at which the client of a remaining member gives up; inf when no member is left. O(1) on average."""
        while self._give_ups and self._give_ups[0][1] not in self.members:
            heappop(self._give_ups)
        return self._give_ups[0][0] if self._give_ups else math.inf

    def pop_given_up(self, now: float) -> list[Work]:
        """Take out every member whose client gave up by `now`, the most impatient first."""
        given_up = []
        while self.give_up_s <= now:
            given_up.append(self.members.pop(heappop(self._give_ups)[1]))
        return given_up

    @property
    def due(self) -> Due:
        """The remaining members' rows by deadline. O(1) unless a member has left since."""
        if self._due is None or self._due_members != len(self.members):
            self._due = Due.of(self.members.values())
            self._due_members = len(self.members)
        return self._due
