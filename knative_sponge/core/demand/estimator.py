"""How many cores one pod needs now (docs/design.md §4.7): reads the batcher's queue, changes nothing in it.

The need is the least size that does two things. The plan over the running batch and the real queue loses no more rows than
with the most cores that the pod can have. And the size keeps up with the arriving rows for ever (the floor).

The pod asks for a growth at once. It shrinks only to the largest need of the last second. Sizes are whole millicores. The
plan's loss falls with cores, so bisection finds the least size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from knative_sponge.core.allocation.peak import Peak
from knative_sponge.core.batching.arrivals import URGENT_SHARE
from knative_sponge.core.batching.batcher import Batcher
from knative_sponge.core.batching.plan import MOST_WORKS, targets
from knative_sponge.core.batching.work import Work
from knative_sponge.core.demand.outlook import Outlook
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.throughput import sustainable_cores

_MOST_EXPECTED: Final = 128
"""Arrivals of the time that a resize takes that are planned for."""


@dataclass(frozen=True, slots=True)
class CoresRules:
    """What the estimate takes into account. Defaults are those of docs/design.md §4.7; the simulator can switch each part off.

    min_cores, max_cores: bounds of the pod.
    headroom: the floor serves this share more rows than arrive; None switches the floor off.
    hold_s: a shrink goes no lower than the largest need of the last `hold_s`.
    deadband: a shrink by less than this share of the size is not asked for. It would free too little for a resize.
    use_queue: whether the real queue is planned for.
    newcomer: whether the plan leaves room for one urgent request that comes now, with the slack of `slack_share`. In simulation
        (surging load on at most 1.4 cores; YOLOv5s on 16) that saves a sixth of the misses for 1–2 % more cores.
    resize_s: seconds that a growth takes. From 0.5 s on, the arrivals of that time are planned for too (the arrival curve).
    slack_share: the slack that this share of requests does not exceed is that of newcomers, and of the floor's batches.
    window_batches: how many full batches of the queue are planned for, at most MOST_WORKS.
    curve_points: number of sizes on the curve of expected misses.
    """

    min_cores: float
    max_cores: float
    headroom: float | None = 0.1
    hold_s: float = 1.0
    deadband: float = 0.05
    use_queue: bool = True
    newcomer: bool = True
    resize_s: float = 0.1
    slack_share: float = URGENT_SHARE
    window_batches: int = 4
    curve_points: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.min_cores <= self.max_cores:
            raise ValueError(f"min_cores {self.min_cores} must be above 0 and at most max_cores {self.max_cores}")
        if self.headroom is not None and self.headroom < 0:
            raise ValueError(f"headroom must not be negative, not {self.headroom}")
        if not 0 <= self.deadband < 1:
            raise ValueError(f"deadband must be at least 0 and below 1, not {self.deadband}")
        if self.hold_s < 0 or self.resize_s < 0 or self.window_batches < 1 or self.curve_points < 2:
            raise ValueError(f"impossible rules: {self}")


@dataclass(frozen=True, slots=True)
class Demand:
    """What one pod asks for.

    cores: that it plans with now. want: cores that it asks for. rate: arriving rows per second. queued: rows that wait.
    running: batches that the model server works on. curve: points (cores, rows per second expected to be missed), cores
    ascending.

    For slower decisions than this one:
    slack_s: the slack that 5 % of the latest requests did not exceed; None before any request. rows: mean rows of a request.
    max_batch: most rows per upstream call. params: the learned latency curve. cost: the learned cost curve
    (`core/latency/quota_credit.py`). samples: number of measurements since the model server's speed last changed.
    """

    cores: float
    want: float
    rate: float
    queued: int
    running: int
    curve: tuple[tuple[float, float], ...]
    slack_s: float | None
    rows: float
    max_batch: int
    params: LatencyParams
    cost: LatencyParams
    samples: int


class DemandEstimator:
    """The demand of one batcher over time. It remembers the largest need of the last `hold_s`, and the last want."""

    def __init__(self, rules: CoresRules, batcher: Batcher) -> None:
        self.rules = rules
        self._least = rules.min_cores
        self._batcher = batcher
        self._peak = Peak(rules.hold_s)
        self._asked = 0.0

    def within(self, max_cores: float) -> None:
        """From now on the pod can have at most `max_cores`, above 0. It neither asks for more nor counts on more.

        When that is below the pod's own least, it becomes the lower bound too.
        """
        self.rules = replace(self.rules, min_cores=min(self._least, max_cores), max_cores=max_cores)

    def want(self, now: float) -> float:
        """Cores to ask for: the largest need of the last `hold_s`; the last want again, where it is only slightly more."""
        rules = self.rules
        most = min(
            self._peak.add(now, self.need(now)), rules.max_cores
        )  # the bounds may have become narrower meanwhile
        hardly_less = self._asked * (1 - rules.deadband) < most <= self._asked <= rules.max_cores
        if not hardly_less or most == rules.min_cores:
            self._asked = most
        return self._asked

    def need(self, now: float) -> float:
        """The least cores that serve queue and arrivals as well as `max_cores` do; whole millicores within the bounds."""
        rules = self.rules
        least = max(rules.min_cores, self._floor(now))
        if least >= rules.max_cores:
            return rules.max_cores
        if not rules.use_queue:
            return least
        outlook = self._outlook(now, expected=True)
        if not outlook.total:
            return least
        return outlook.least_cores(least, rules.max_cores)

    def demand(self, now: float) -> Demand:
        """Everything that the autoscaler is told."""
        batcher, learner = self._batcher, self._batcher.model.learner
        want = self.want(now)
        return Demand(
            cores=batcher.cores,
            want=want,
            rate=batcher.arrivals.rate(now),
            queued=batcher.queue.rows,
            running=len(batcher.running),
            curve=self.curve(now),
            slack_s=batcher.arrivals.slack_s(self.rules.slack_share),
            rows=batcher.arrivals.mean_rows(),
            max_batch=batcher.rules.max_rows,
            params=learner.params,
            cost=batcher.model.costs.params,
            samples=learner.samples,
        )

    def curve(self, now: float) -> tuple[tuple[float, float], ...]:
        """Points (cores, rows per second expected to be missed), from the least size to the most.

        Sizes ascend by a constant ratio, and each is there once. Misses are the rows, queued and running, that will be late,
        taken as those of the coming second, and the arrivals above the throughput of the size.
        """
        rules, batcher = self.rules, self._batcher
        outlook = self._outlook(now, expected=False)
        rate = batcher.arrivals.rate(now)
        ratio = (rules.max_cores / rules.min_cores) ** (1 / (rules.curve_points - 1))
        points: list[tuple[float, float]] = []
        worst = math.inf
        for step in range(rules.curve_points):
            cores = rules.max_cores if step == rules.curve_points - 1 else rules.min_cores * ratio**step
            misses = max(0.0, rate - self._throughput(cores)) + outlook.lost(cores)
            worst = min(worst, misses)  # the plan is a heuristic; really, more cores never miss more
            point = round(cores, 3), round(worst, 3)
            if points and points[-1][0] == point[0]:  # the bounds are so close that two sizes coincide
                points.pop()
            points.append(point)
        return tuple(points)

    def _floor(self, now: float) -> float:
        rules, batcher = self.rules, self._batcher
        rate = batcher.arrivals.rate(now)
        if rules.headroom is None or rate <= 0:
            return 0.0
        slack_s = batcher.arrivals.slack_s(rules.slack_share)
        slots, params, cap = batcher.rules.max_inflight, batcher.model.costs.params, batcher.rules.max_rows
        each, _ = sustainable_cores(params, rate / slots, cap, slack_s or math.inf, rules.headroom)
        return rules.max_cores if each is None else _ceil_milli(each * slots)

    def _throughput(self, cores: float) -> float:
        slots, cap = self._batcher.rules.max_inflight, self._batcher.rules.max_rows
        model = self._batcher.model
        return slots * max(rows / model.cost_s(rows, cores / slots) for rows in targets(cap, cap))

    def _outlook(self, now: float, *, expected: bool) -> Outlook:
        batcher, rules = self._batcher, self.rules
        works = batcher.queue.sizing_prefix(min(rules.window_batches * batcher.rules.max_rows, MOST_WORKS))
        if expected:
            more = self._expected(now) if rules.resize_s >= 0.5 else self._newcomer(now, works)
            works = sorted([*works, *more], key=lambda work: work.sizing_deadline_s)
        running = [(batch.rows, batch.left_share(now, batcher.model), batch.due) for batch in batcher.running.values()]
        return Outlook(batcher.model, works, running, now, batcher.rules.max_rows, batcher.rules.max_inflight)

    def _newcomer(self, now: float, works: Sequence[Work]) -> list[Work]:
        rules, batcher = self.rules, self._batcher
        if not rules.newcomer:
            return []
        newcomer = batcher.arrivals.newcomer(now, rules.slack_share, works[0].group if works else None)
        most = rules.max_cores / batcher.rules.max_inflight
        if newcomer is None or newcomer.deadline_s - now < batcher.model.cautious_s(newcomer.rows, most):
            return []
        return [newcomer]

    def _expected(self, now: float) -> list[Work]:
        """Arrivals that may come before a growth is in force, as dense as the densest of late (the arrival curve)."""
        arrivals = self._batcher.arrivals
        slack_s = arrivals.slack_s(self.rules.slack_share)
        if slack_s is None:
            return []
        counts = range(1, min(self._batcher.rules.max_rows, _MOST_EXPECTED) + 1)
        rows = max(1, round(arrivals.mean_rows()))
        return [
            Work(key=-count, deadline_s=now + span + slack_s, rows=rows)
            for count, span in zip(counts, arrivals.curve(now, counts), strict=True)
            if span <= self.rules.resize_s
        ]


def _ceil_milli(cores: float) -> float:
    return math.ceil(round(cores * 1000, 6)) / 1000
