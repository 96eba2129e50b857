"""One simulated pod: the production core in virtual time, around a model server that is only a latency curve.

Batcher and demand estimator are those of production. Only time, network and CPU are simulated.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from knative_sponge.core.batching.events import (
    Abandon,
    Arrived,
    BatchDone,
    BatcherCommand,
    BatcherEvent,
    BatchFailed,
    CoresChanged,
    Dispatch,
    Refuse,
    Tick,
    WakeAt,
)
from knative_sponge.core.batching.work import Work
from knative_sponge.core.demand.estimator import DemandEstimator
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.errors import Reason


class BatchPolicy(Protocol):
    """How requests are batched: the deadline batcher, or the first-come-first-served baseline."""

    def handle(self, event: BatcherEvent, now: float) -> list[BatcherCommand]:
        """See `core.batching.batcher.Batcher.handle`."""
        ...


@dataclass(frozen=True, slots=True)
class Server:
    """The model server's true behaviour.

    latency: of a batch. spread: standard deviation of ln(actual / latency). resize_s: from a request for cores to their being
    in force.
    """

    latency: LatencyParams
    spread: float = 0.05
    resize_s: float = 0.1


@dataclass(slots=True)
class Outcome:
    """The result of a run. Times in seconds. missed_keys: requests without a good answer by their deadline."""

    requests: int = 0
    missed_keys: set[int] = field(default_factory=set)
    refused: dict[Reason, int] = field(default_factory=dict)
    core_seconds: float = 0.0
    elapsed_s: float = 0.0
    batches: int = 0
    rows: int = 0
    waits_s: list[float] = field(default_factory=list)

    @property
    def missed(self) -> int:
        """Requests without a good answer by their deadline."""
        return len(self.missed_keys)

    @property
    def missed_share(self) -> float:
        """Missed of all requests."""
        return self.missed / self.requests if self.requests else 0.0

    @property
    def mean_cores(self) -> float:
        """Time-weighted allocated cores."""
        return self.core_seconds / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def mean_batch(self) -> float:
        """Rows per upstream call."""
        return self.rows / self.batches if self.batches else 0.0


@dataclass(slots=True)
class SimulatedBatch:
    """A batch that the simulated model server works on. left: share still to do at `since_s`. noise: factor on its latency."""

    works: dict[int, Work]
    rows: int
    noise: float
    left: float = 1.0
    since_s: float = 0.0
    version: int = 0


class Pod:
    """Runs arrivals through a batching policy on one pod.

    estimator: None keeps `cores` for the whole run. sample_s: period of the estimates. There is also one on each arrival, as in
    production.
    """

    def __init__(
        self,
        policy: BatchPolicy,
        server: Server,
        cores: float,
        rng: random.Random,
        *,
        estimator: DemandEstimator | None = None,
        sample_s: float = 0.1,
    ) -> None:
        self._policy = policy
        self._server = server
        self._cores = cores
        self._rng = rng
        self._estimator = estimator
        self._sample_s = sample_s
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._now = 0.0
        self._running: dict[int, SimulatedBatch] = {}
        self._pending: dict[int, Work] = {}
        self._wake_version = 0
        self._asked = cores
        self._since_s = 0.0
        self._outcome = Outcome()

    def run(self, works: Sequence[Work], tail_s: float = 1.0) -> Outcome:
        """Let every work arrive at its `arrived_s`; return when all are answered and `tail_s` more seconds have passed."""
        for work in works:
            self._at(work.arrived_s, lambda work=work: self._arrive(work))  # type: ignore[misc]
        end_s = max((work.arrived_s for work in works), default=0.0) + tail_s
        if self._estimator is not None:
            self._at(0.0, lambda: self._estimate(end_s))
        while self._queue:
            self._now, _, action = heapq.heappop(self._queue)
            action()
        self._account()
        self._outcome.requests = len(works)
        self._outcome.elapsed_s = self._now
        self._outcome.missed_keys.update(self._pending)
        return self._outcome

    def _at(self, at_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (max(at_s, self._now), next(self._serial), action))

    def _tell(self, event: BatcherEvent) -> None:
        for command in self._policy.handle(event, self._now):
            match command:
                case Dispatch(batch, works):
                    self._dispatch(batch, works)
                case Refuse(work, reason):
                    del self._pending[work.key]
                    self._outcome.missed_keys.add(work.key)
                    self._outcome.refused[reason] = self._outcome.refused.get(reason, 0) + 1
                case Abandon(batch):
                    del self._running[batch]
                    self._at(self._now, lambda batch=batch: self._tell(BatchFailed(batch, broken=False)))  # type: ignore[misc]
                case WakeAt(at_s):
                    self._wake_version += 1
                    if at_s is not None:
                        self._at(at_s, lambda version=self._wake_version: self._tick(version))  # type: ignore[misc]

    def _arrive(self, work: Work) -> None:
        self._pending[work.key] = work
        self._tell(Arrived(work))
        if self._estimator is not None:
            self._resize(self._estimator.want(self._now))

    def _tick(self, version: int) -> None:
        if version == self._wake_version:
            self._tell(Tick())

    def _estimate(self, end_s: float) -> None:
        assert self._estimator is not None
        self._resize(self._estimator.want(self._now))
        if self._now < end_s or self._pending:
            self._at(self._now + self._sample_s, lambda: self._estimate(end_s))

    def _resize(self, cores: float) -> None:
        if cores == self._asked:
            return
        self._asked = cores
        self._at(self._now + self._server.resize_s, lambda: self._resized(cores))

    def _resized(self, cores: float) -> None:
        self._account()
        for running in self._running.values():
            self._progress(running)
            running.since_s = self._now
        self._cores = cores
        for batch, running in self._running.items():
            self._schedule_end(batch, running)
        self._tell(CoresChanged(cores))

    def _dispatch(self, batch: int, works: tuple[Work, ...]) -> None:
        rows = sum(work.rows for work in works)
        noise = math.exp(self._rng.gauss(0.0, self._server.spread))
        running = SimulatedBatch({work.key: work for work in works}, rows, noise, since_s=self._now)
        self._running[batch] = running
        self._outcome.batches += 1
        self._outcome.rows += rows
        self._schedule_end(batch, running)

    def _schedule_end(self, batch: int, running: SimulatedBatch) -> None:
        running.version += 1
        self._at(self._ends_s(running), lambda version=running.version: self._end(batch, version))  # type: ignore[misc]

    def _ends_s(self, running: SimulatedBatch) -> float:
        """When the batch is done if nothing changes."""
        return self._now + max(running.left, 0.0) * self._true_s(running)

    def _progress(self, running: SimulatedBatch) -> None:
        """Subtract from `left` the share that was done since `since_s` at the present size."""
        running.left -= (self._now - running.since_s) / self._true_s(running)

    def _true_s(self, running: SimulatedBatch) -> float:
        slots = max(len(self._running), 1)
        return self._server.latency.latency_s(running.rows, self._cores / slots) * running.noise

    def _end(self, batch: int, version: int) -> None:
        running = self._running.get(batch)
        if running is None or running.version != version:
            return
        del self._running[batch]
        for key, work in running.works.items():
            if self._pending.pop(key, None) is not None:
                if self._now > work.deadline_s:
                    self._outcome.missed_keys.add(key)
                self._outcome.waits_s.append(self._now - work.arrived_s)
        self._tell(BatchDone(batch))

    def _account(self) -> None:
        self._outcome.core_seconds += self._cores * (self._now - self._since_s)
        self._since_s = self._now
