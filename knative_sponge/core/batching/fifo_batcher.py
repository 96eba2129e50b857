"""The baseline policy: first come, first served, with a fixed batch size and timeout, as MLServer and KServe batch.

It takes the events of the deadline batcher and gives the same commands, so that the demo and the simulator compare policies
and nothing else. It looks at no deadline: it never drops and never reorders. It starts a batch that is full, or whose oldest
member has waited for the timeout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from knative_sponge.core.batching.arrivals import Arrivals
from knative_sponge.core.batching.events import (
    Abandon,
    Arrived,
    BatchDone,
    BatcherCommand,
    BatcherEvent,
    BatchFailed,
    BatchRefused,
    Cancelled,
    CoresChanged,
    Dispatch,
    Refuse,
    Tick,
    WakeAt,
)
from knative_sponge.core.batching.fcfs import FcfsQueue
from knative_sponge.core.batching.running import RunningBatch
from knative_sponge.core.batching.work import Work
from knative_sponge.core.latency.curve import Sample
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.errors import Reason


@dataclass(frozen=True, slots=True)
class FifoRules:
    """max_rows: rows of a full batch. timeout_s: how long the oldest member waits at most for the batch to fill. max_inflight:
    upstream calls at once. max_queue: most requests that wait; one more is turned away."""

    max_rows: int = 8
    timeout_s: float = 0.05
    max_inflight: int = 1
    max_queue: int = 10_000

    def __post_init__(self) -> None:
        if min(self.max_rows, self.max_inflight, self.max_queue) < 1 or not self.timeout_s >= 0:
            raise ValueError(f"impossible rules: {self}")


class FifoBatcher:
    """Fixed batching for one model server. It feeds the latency model, but decides nothing by it."""

    def __init__(self, rules: FifoRules, model: LatencyModel, cores: float) -> None:
        self.rules = rules
        self.model = model
        self.cores = cores
        self.arrivals = Arrivals()
        self.queue = FcfsQueue()
        self.running: dict[int, RunningBatch] = {}
        self._batches = 0
        self._cohorts = 0
        self._wake_s: float | None = None

    def handle(self, event: BatcherEvent, now: float) -> list[BatcherCommand]:
        """See `Batcher.handle`."""
        commands: list[BatcherCommand] = []
        match event:
            case Arrived(work):
                self.arrivals.add(now, work.rows, work.sizing_deadline_s - now)
                if len(self.queue) >= self.rules.max_queue:
                    commands.append(Refuse(work, Reason.QUEUE_FULL))
                else:
                    self.queue.push(work)
            case Cancelled(key):
                self._cancel(key, commands)
            case BatchDone(batch, infer_s, sample):
                self._done(batch, infer_s, sample, now)
            case BatchFailed(batch):
                self.running.pop(batch, None)
            case BatchRefused(batch):
                for work in reversed(self.running.pop(batch).members.values()):
                    self._cohorts += 1
                    self.queue.push_front(replace(work, cohort=self._cohorts))
            case CoresChanged(cores):
                self.cores = cores
                for running in self.running.values():
                    running.resize(now, cores / self.rules.max_inflight, self.model)
            case Tick():
                self._wake_s = None
        self._give_up(now, commands)
        while len(self.running) < self.rules.max_inflight and (works := self._ready(now)):
            self._dispatch(works, now, commands)
        wake_s = self._next_wake()
        if wake_s != self._wake_s:
            self._wake_s = wake_s
            commands.append(WakeAt(wake_s))
        return commands

    def _cancel(self, key: int, commands: list[BatcherCommand]) -> None:
        if self.queue.cancel(key) is None:
            for batch, running in self.running.items():
                if running.members.pop(key, None) is not None and not running.members:
                    commands.append(Abandon(batch))

    def _done(self, batch: int, infer_s: float | None, sample: bool, now: float) -> None:
        running = self.running.pop(batch, None)
        if running is None or not sample:
            return
        cores = running.mean_cores(now, self.model)
        if cores is not None:
            seconds = now - running.started_s if infer_s is None else infer_s
            self.model.observe(Sample(running.rows, cores, seconds), now)

    def _give_up(self, now: float, commands: list[BatcherCommand]) -> None:
        commands += [Refuse(work, Reason.TIMEOUT) for work in self.queue.pop_given_up(now)]
        for batch, running in self.running.items():
            if running.give_up_s <= now:
                commands += [Refuse(work, Reason.TIMEOUT) for work in running.pop_given_up(now)]
                if not running.members:
                    commands.append(Abandon(batch))

    def _ready(self, now: float) -> list[Work]:
        works = self.queue.front_batch(self.rules.max_rows)
        # No further request joins when the batch is full, or when the next one in line does not fit.
        complete = len(works) < len(self.queue) or sum(work.rows for work in works) >= self.rules.max_rows
        if not works or complete or works[0].cohort:
            return works
        return works if now >= works[0].arrived_s + self.rules.timeout_s else []

    def _dispatch(self, works: list[Work], now: float, commands: list[BatcherCommand]) -> None:
        self.queue.take(works)
        self._batches += 1
        each = self.cores / self.rules.max_inflight
        self.running[self._batches] = RunningBatch(tuple(works), now, each, cold=False, rested_s=0.0)
        commands.append(Dispatch(self._batches, tuple(works)))

    def _next_wake(self) -> float | None:
        wake_s = math.inf
        first = self.queue.first()
        if first is not None and len(self.running) < self.rules.max_inflight:
            wake_s = first.arrived_s + self.rules.timeout_s
        give_up_s = self.queue.next_give_up()
        if give_up_s is not None:
            wake_s = min(wake_s, give_up_s)
        for running in self.running.values():
            wake_s = min(wake_s, running.give_up_s)
        return None if wake_s == math.inf else wake_s
