"""A made-up demo run: series whose figures are known by hand."""

from __future__ import annotations

from knative_sponge.cli.demo.report import StrategyRun
from knative_sponge.profile.load import Outcome, Planned


def outcome(at_s: float, latency_s: float, status: int = 200, batch: int | None = 1, slo_s: float = 0.5) -> Outcome:
    """A request sent at `at_s`, 50 ms under way, its wait over `latency_s` after the send."""
    reason = None if status == 200 else "hopeless"
    return Outcome(
        Planned(at_s, 0.05, slo_s), 0.001, at_s + latency_s, status, reason, batch if status == 200 else None
    )


OUTCOMES = (
    outcome(0.5, 0.2, batch=2),
    outcome(0.6, 0.3, batch=2),
    outcome(1.5, 0.4, batch=1),
    outcome(2.0, 0.9, batch=1),  # late
    outcome(3.0, 0.3, status=504),  # refused at once
    outcome(4.0, 5.5, status=0),  # never answered
)
RUN = StrategyRun("sponge", 5.0, OUTCOMES, ((-1.0, 1.0), (2.0, 0.5), (7.0, 9.0)))
RATES = (1.0, 1.0, 3.5, 3.5, 1.0)
