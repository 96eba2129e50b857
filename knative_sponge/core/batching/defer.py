"""Whether a batch may wait inside its slack to grow (docs/design.md §4.6). A wait makes batches larger at low load and
costs latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from knative_sponge.core.batching.plan import Table
from knative_sponge.core.batching.work import Work


@dataclass(frozen=True, slots=True)
class DeferRules:
    """When a batch waits for one more request.

    mode: `never`, `auto` (only where it pays) or `always` (until the last safe start).
    max_load: `auto` waits only while the load is below this share of the throughput at the present size.
    min_saving: `auto` waits only when one more row saves at least this share of the time per row.
    max_wait: `auto` keeps a request waiting at most for this multiple of the batch's own latency. Without this bound a single
        client that asks again after each answer would wait out its whole SLO every time.
    margin_s: the wait ends so long before the last safe start, for timers and the way back.
    """

    mode: str = "auto"
    max_load: float = 0.7
    min_saving: float = 0.03
    max_wait: float = 1.0
    margin_s: float = 0.002

    def __post_init__(self) -> None:
        if self.mode not in ("never", "auto", "always"):
            raise ValueError(f"mode must be never, auto or always, not {self.mode!r}")
        if min(self.max_load, self.min_saving, self.max_wait, self.margin_s) < 0:
            raise ValueError(f"impossible rules: {self}")

    def hold_until(
        self, batch: Sequence[Work], cap: int, now: float, rate: float, median: Table, cautious: Table
    ) -> float | None:
        """The time until which `batch` should wait for one more row; None: start it now.

        batch: all works that wait, in EDF order. cap: rows of a full batch. rate: arriving rows per second.
        The last safe start is d₁ − L(rows + 1).
        """
        rows = sum(work.rows for work in batch)
        if self.mode == "never" or rows >= cap or batch[0].cohort:
            return None
        safe_s = batch[0].deadline_s - cautious[rows + 1] - self.margin_s
        if self.mode == "always":
            return safe_s if safe_s > now else None
        until_s = min(safe_s, min(work.arrived_s for work in batch) + self.max_wait * median[rows])
        likely = rate * (until_s - now) >= 1.0
        idle = rate * median[cap] / cap < self.max_load
        saves = median[rows + 1] / (rows + 1) <= (1 - self.min_saving) * median[rows] / rows
        return until_s if likely and idle and saves else None
