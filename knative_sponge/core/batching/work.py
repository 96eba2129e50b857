"""The unit of the queue: one request as the scheduler sees it. No bytes, no sockets, no futures."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """One request waiting for its batch.

    key: unique among all requests of one batcher, chosen by the shell.
    deadline_s: absolute, on the same monotonic clock as every `now`.
    rows: how many rows of a batch it takes (its share of `max-batch`), at least 1.
    group: only works of equal group may share a batch (design: "only compatible requests merge").
    cohort: above 0, it shares its batch only with works of the same number, which are of its group
        (`core/batching/halving.py`).
    arrived_s: when it entered the queue, on the same clock.
    give_up_s: when its client stops waiting for the answer, wherever the work is; absolute, on the same clock.
    sizing_deadline_s: the deadline that cores are bought for, where it is another one (`core/batching/deadline.py`); NaN takes
        deadline_s.
    """

    key: int
    deadline_s: float
    rows: int = 1
    group: Hashable = None
    cohort: int = 0
    arrived_s: float = 0.0
    give_up_s: float = math.inf
    sizing_deadline_s: float = math.nan

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"rows must be at least 1, not {self.rows}")
        if math.isnan(self.deadline_s) or math.isnan(self.give_up_s):
            raise ValueError("deadline_s and give_up_s must be numbers, not NaN")
        if self.give_up_s < self.deadline_s:
            raise ValueError(f"give_up_s {self.give_up_s} must not be before deadline_s {self.deadline_s}")
        if math.isnan(self.sizing_deadline_s):
            object.__setattr__(self, "sizing_deadline_s", self.deadline_s)
