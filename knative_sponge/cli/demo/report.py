"""The figures of a demo run: series in, figures and JSON out. It starts nothing, draws nothing and reads no clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from knative_sponge.profile.load import Outcome

_AS_MANY: Final = 1.05
"""Strategies within 5 % of each other's cores count as having as many: sizes are set in steps."""

Steps = Sequence[tuple[float, float]]
"""A step function of time: (start of the step, value), ascending."""


@dataclass(frozen=True, slots=True)
class StrategyRun:
    """One strategy under the demo's load; all times in seconds from the start of the load.

    seconds: length of the load; cores are counted over it. cores: (start of the step, allocated cores), from time 0 or before.
    """

    name: str
    seconds: float
    outcomes: tuple[Outcome, ...]
    cores: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"a run must last, not {self.seconds} s")
        if not self.cores or self.cores[0][0] > 0:
            raise ValueError("cores must be known from time 0 on")


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one run; the names are those of report.json.

    missed: requests without the model's answer by their own deadline. dropped: missed requests that were refused instead of
    being served late. p50_s, p99_s: from send to the model's answer, over all requests that got one, in time or not.
    mean_batch: rows per batch. The last three are None where no request was served.
    """

    requests: int
    missed: int
    dropped: int
    missed_share: float
    mean_cores: float
    core_seconds: float
    p50_s: float | None
    p99_s: float | None
    mean_batch: float | None


def summarize(run: StrategyRun) -> Summary:
    """The figures of one run."""
    outcomes = run.outcomes
    missed = sum(not outcome.met for outcome in outcomes)
    core_seconds = integral(run.cores, run.seconds)
    latencies = sorted(outcome.latency_s for outcome in outcomes if outcome.served)
    batches = [outcome.batch for outcome in outcomes if outcome.served and outcome.batch]
    return Summary(
        requests=len(outcomes),
        missed=missed,
        dropped=sum(outcome.refused for outcome in outcomes),
        missed_share=missed / len(outcomes) if outcomes else 0.0,
        mean_cores=core_seconds / run.seconds,
        core_seconds=core_seconds,
        p50_s=quantile(latencies, 0.50),
        p99_s=quantile(latencies, 0.99),
        # A batch of b rows is seen b times, by each of its members.
        mean_batch=len(batches) / sum(1 / batch for batch in batches) if batches else None,
    )


def headline(summaries: Mapping[str, Summary]) -> str:
    """What came out, in one line, whoever missed less; the first of the summaries is the strategy that is judged."""
    (name, ours), *rest = summaries.items()
    fewer = sorted((one.missed_share, other) for other, one in rest if one.missed_share < ours.missed_share)
    rivals = [other for _, other in fewer if summaries[other].mean_cores <= ours.mean_cores * _AS_MANY]
    if rivals:
        verdict = f", more than {rivals[0]}: {_figures(summaries[rivals[0]])}"
    elif fewer:
        verdict = f"; fewer only with more cores, as {fewer[0][1]}: {_figures(summaries[fewer[0][1]])}"
    elif all(one.missed_share == ours.missed_share for _, one in rest):
        verdict = ", as every other strategy" if rest else ""
    else:
        verdict = "; no other strategy missed fewer"
    return f"{name} missed {_percent(ours.missed_share)} of the deadlines with {ours.mean_cores:.2f} cores{verdict}"


def _figures(one: Summary) -> str:
    return f"{_percent(one.missed_share)} with {one.mean_cores:.2f} cores"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def to_json(machine: Mapping[str, object], summaries: Mapping[str, Summary]) -> dict[str, Any]:
    """report.json, as values that `json.dumps` takes."""
    return {"machine": dict(machine), "strategies": {name: asdict(one) for name, one in summaries.items()}}


def quantile(ascending: Sequence[float], share: float) -> float | None:
    """The least value that `share` of the values do not exceed; None where there are no values."""
    return ascending[max(math.ceil(share * len(ascending)), 1) - 1] if ascending else None


def integral(steps: Steps, until_s: float) -> float:
    """The area under a step function from time 0 to `until_s`."""
    total = 0.0
    for (start, value), end in zip(steps, [*(step[0] for step in steps[1:]), until_s], strict=True):
        total += value * max(min(end, until_s) - max(start, 0.0), 0.0)
    return total


def in_service(outcomes: Sequence[Outcome]) -> list[tuple[float, float]]:
    """The number of requests that wait or are served, as steps: handed over, but neither answered nor given up."""
    changes: list[tuple[float, int]] = []
    for outcome in outcomes:
        changes += [(outcome.planned.reaches_s + outcome.lag_s, 1), (outcome.ended_s, -1)]
    steps, count = [(0.0, 0.0)], 0
    for at, change in sorted(changes):
        count += change
        steps.append((at, float(count)))
    return steps


def peaks(steps: Steps, count: int, width_s: float) -> list[float]:
    """The largest value of a step function in each of `count` intervals from time 0 on; it is 0 before its first step."""
    largest = [0.0] * count
    ends = [*(start for start, _ in steps[1:]), math.inf]
    for (start, value), end in zip(steps, ends, strict=True):
        first, last = int(max(start, 0.0) / width_s), min(end / width_s, count)
        for index in range(first, math.ceil(last)):
            largest[index] = max(largest[index], value)
    return largest


def per_second(times: Sequence[float], seconds: int) -> list[int]:
    """How many of the times fall into each second from 0 on. Times beyond the last second count in it."""
    counts = [0] * seconds
    for time in times:
        counts[min(int(time), seconds - 1)] += 1
    return counts
