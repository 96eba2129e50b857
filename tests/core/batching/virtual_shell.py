"""A shell around a batcher, in virtual time: it plays events, carries commands out and records both for the checks.

Batchers made here defer nothing unless they are told to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from knative_sponge.core.batching.batcher import Batcher, BatchRules
from knative_sponge.core.batching.defer import DeferRules
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
from knative_sponge.core.batching.work import Work
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.errors import Reason

PARAMS = LatencyParams(0.02, 0.005, 0.01, 0.01)


def exact_model() -> LatencyModel:
    """A model that is exactly `PARAMS` and learns nothing in these tests (samples are not reported)."""
    return LatencyModel(PARAMS)


@dataclass
class VirtualShell:
    """A shell with a clock of its own. `handle` is the machine under test."""

    handle: Callable[[BatcherEvent, float], list[BatcherCommand]]
    now: float = 0.0
    works: dict[int, Work] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    running: dict[int, tuple[Work, ...]] = field(default_factory=dict)
    dispatched: dict[int, int] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)
    refused_batches: set[int] = field(default_factory=set)
    was_refused: set[int] = field(default_factory=set)
    wake_s: float | None = None
    log: list[tuple[float, BatcherCommand]] = field(default_factory=list)

    def arrive(self, work: Work) -> None:
        self.works[work.key] = work
        self.waiting.add(work.key)
        self.tell(Arrived(work))

    def cancel(self, key: int) -> None:
        if key not in self.ended and key in self.works:
            self.end(key, "cancelled")
        self.tell(Cancelled(key))

    def finish(self, batch: int, how: str) -> None:
        works = self.running.pop(batch)
        if how == "refused" and len(works) > 1:
            self.refused_batches.add(batch)
            for work in works:
                if work.key not in self.ended:
                    self.was_refused.add(work.key)
                    self.waiting.add(work.key)
            self.tell(BatchRefused(batch))
            return
        for work in works:
            if work.key not in self.ended:
                self.end(work.key, "answered" if how == "done" else how)
        self.tell(BatchDone(batch, sample=False) if how == "done" else BatchFailed(batch))

    def resize(self, cores: float, reach: float | None = None) -> None:
        self.tell(CoresChanged(cores, reach))

    def advance(self, seconds: float) -> None:
        """Let time pass, with every tick that was asked for."""
        end_s = self.now + seconds
        ticks = 0
        while self.wake_s is not None and self.wake_s <= end_s:
            self.tick()
            ticks += 1
            assert ticks < 1000, "the batcher asks for ticks without end"
        self.now = end_s

    def tick(self) -> None:
        assert self.wake_s is not None
        self.now, self.wake_s = max(self.now, self.wake_s), None
        self.tell(Tick())

    def tell(self, event: BatcherEvent) -> None:
        broken_off: list[BatcherEvent] = []
        for command in self.handle(event, self.now):
            self.log.append((self.now, command))
            match command:
                case Dispatch(batch, works):
                    assert batch not in self.running
                    assert works
                    for work in works:
                        assert work.key not in self.ended, "sent upstream after its client had an answer"
                        assert work.key in self.waiting
                        self.waiting.discard(work.key)
                        self.dispatched[work.key] = self.dispatched.get(work.key, 0) + 1
                    self.running[batch] = works
                case Refuse(work, reason):
                    self.end(work.key, reason)
                case Abandon(batch):
                    assert all(work.key in self.ended for work in self.running[batch])
                    self.running.pop(batch)
                    broken_off.append(BatchFailed(batch, broken=False))
                case WakeAt(at_s):
                    assert at_s is None or at_s >= self.now
                    self.wake_s = at_s
        for later in broken_off:  # a shell executes all commands of one event before it tells of another
            self.tell(later)

    def end(self, key: int, how: str | Reason) -> None:
        assert key not in self.ended, f"{key} was answered twice: {self.ended[key]} and {how}"
        self.ended[key] = str(how)
        self.waiting.discard(key)

    def settle(self) -> None:
        """Let every running batch finish and every timer fire until nothing is left to happen."""
        for _ in range(10_000):
            if self.running:
                self.finish(min(self.running), "done")
            elif self.wake_s is not None and math.isfinite(self.wake_s):
                self.tick()
            else:
                return
        raise AssertionError("the history does not settle")


NEVER = DeferRules(mode="never")


def new_batcher(*, cores: float = 1.0, reach: float = 4.0, model: LatencyModel | None = None, **rules: Any) -> Batcher:
    return Batcher(BatchRules(**{"defer": NEVER, "max_rows": 4, **rules}), model or exact_model(), cores, reach)


def works(*slacks_s: float, now: float = 0.0) -> list[Work]:
    return [Work(key, now + slack_s, arrived_s=now) for key, slack_s in enumerate(slacks_s, start=1)]


def batches(shell: VirtualShell) -> list[list[int]]:
    return [[work.key for work in command.works] for _, command in shell.log if isinstance(command, Dispatch)]
