"""Whether a batch may wait inside its slack to grow (design §4): larger batches at low load, paid for with latency."""

from __future__ import annotations

from dataclasses import dataclass

from knative_sponge.core.plan import Table


@dataclass(frozen=True, slots=True)
class DeferRules:
    """mode: `never`, `auto` (only where it pays) or `always`.

    max_load: `auto` waits only below this share of the throughput at the present size.
    min_saving: a companion must save at least this share of the time per row.
    """

    mode: str = "auto"
    max_load: float = 0.7
    min_saving: float = 0.03

    def __post_init__(self) -> None:
        if self.mode not in ("never", "auto", "always"):
            raise ValueError(f"mode must be never, auto or always, not {self.mode!r}")


def latest_start(
    rules: DeferRules, deadline_s: float, rows: int, cap: int, now: float, rate: float, median: Table, cautious: Table
) -> float | None:
    """Until when a batch of `rows` with this earliest deadline should wait for one more row; None: do not wait.

    rate: arriving rows per second. The last safe start is d₁ − L(rows + 1).
    """
    if rules.mode == "never" or rows >= cap:
        return None
    start_s = deadline_s - cautious[rows + 1]
    if start_s <= now:
        return None
    if rules.mode == "always":
        return start_s
    per_row = median[rows] / rows
    if rate * median[cap] / cap >= rules.max_load or median[rows + 1] / (rows + 1) > (1 - rules.min_saving) * per_row:
        return None
    likely = rate * (start_s - now) >= 1.0
    return start_s if likely else None
