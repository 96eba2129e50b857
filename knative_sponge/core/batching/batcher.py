"""The batcher: a state machine that decides which requests go upstream together, and when. No loop, task or lock in it.

Theory of operation
-------------------
A work is in exactly one of these places, and every path out of them tells its client exactly once:

    arrived ──► queued ──► running ──► answered by the shell (BatchDone, BatchFailed)
       │          │  ▲         ├─────► Refuse(timeout)       give_up_s passed
       │          │  └─────────┘       BatchRefused: again, in halves, at last alone
       │          ├──────────────────► Refuse(expired | hopeless)   or, with late=serve, ──► late ──► running
       └──────────┴──────────────────► Refuse(queue-full | evicted)
    Cancelled removes it from wherever it is, without a word.

After each event: give-ups are taken out, hopeless heads dropped, free slots filled, and the next time anything can
change by itself is asked for with WakeAt. Every timer is one of: the head becomes hopeless, a client gives up, a
deferred batch must start. None depends on a running batch finishing.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field

from knative_sponge.core.batching.arrivals import URGENT_SHARE, Arrivals
from knative_sponge.core.batching.backlog import Backlog
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
from knative_sponge.core.batching.fcfs import FcfsQueue
from knative_sponge.core.batching.halving import Halving
from knative_sponge.core.batching.plan import MOST_ROWS, MOST_WORKS, Table, choose_batch, spares_others
from knative_sponge.core.batching.running import RunningBatch
from knative_sponge.core.batching.work import Work
from knative_sponge.core.latency.curve import Sample
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.errors import Reason


@dataclass(frozen=True, slots=True)
class BatchRules:
    """What a batcher may do. Every default is that of docs/design.md §4.4 to §4.6."""

    max_rows: int = 32
    """Rows per upstream call; a request with more rows goes alone."""
    max_inflight: int = 1
    """Upstream calls at once."""
    max_queue: int = 10_000
    """Most requests that wait; one that comes to a full queue is turned away, unless a late one can make room."""
    displace: bool = False
    """A request that comes to a full queue takes the place of a less urgent one. For clients whose deadlines can be believed:
    one that claims a little less time than the others can so turn all of them out."""
    serve_late: bool = False
    """A request that cannot make its deadline is served after all that can, instead of being dropped."""
    probe_after_s: float = 1.0
    """When all requests look hopeless and no sample came for so long, one is served anyway: the model may be wrong."""
    window_batches: int = 3
    """The plan looks at so many full batches of works, at most MOST_WORKS. Others hardly change which batch starts now."""
    defer: DeferRules = field(default_factory=DeferRules)
    """When a batch may wait inside its slack to grow."""

    def __post_init__(self) -> None:
        for name in ("max_rows", "max_inflight", "max_queue", "window_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.probe_after_s > 0:
            raise ValueError(f"probe_after_s must be above 0, not {self.probe_after_s}")


class Batcher:
    """Deadline batching for one model server.

    model: predicts latencies, and learns from the batches.
    cores: the model server's size to plan with.
    reach: the most cores that one resize can give. A work is hopeless when not even these serve it in time.
    """

    def __init__(self, rules: BatchRules, model: LatencyModel, cores: float, reach: float) -> None:
        if not 0 < cores <= reach:
            raise ValueError(f"cores {cores} must be above 0 and at most reach {reach}")
        self.rules = rules
        self.model = model
        self.cores = cores
        self.reach = reach
        self.queue = Backlog()
        self.running: dict[int, RunningBatch] = {}
        self.arrivals = Arrivals()
        self.late = FcfsQueue()
        self._window = min(rules.window_batches * rules.max_rows, MOST_WORKS)
        self._window_is_cut = self._window < rules.window_batches * rules.max_rows
        self._longest = min(rules.max_rows, MOST_ROWS)
        self._halving = Halving()
        self._batches = 0
        self._cold = True
        self._idle_since_s = -math.inf
        self._probed_s = -math.inf
        self._hold_s: float | None = None
        self._wake_s: float | None = None

    def handle(self, event: BatcherEvent, now: float) -> list[BatcherCommand]:
        """Take one event at monotonic time `now`; `now` never goes back. Returns what the shell has to do, in order."""
        commands: list[BatcherCommand] = []
        match event:
            case Arrived(work):
                self._arrive(work, now, commands)
            case Cancelled(key):
                self._cancel(key, commands)
            case BatchDone(batch, infer_s, sample):
                self._done(batch, infer_s, sample, now)
            case BatchFailed(batch, broken):
                self._ended(batch, now)
                self._cold = self._cold or broken
            case BatchRefused(batch):
                self._refused(batch, now)
            case CoresChanged(cores, reach):
                self._resize(cores, reach, now)
            case Tick():
                self._wake_s = None
        self._give_up(now, commands)
        self._drop_hopeless(now, commands)
        self._fill(now, commands)
        self._drop_hopeless(now, commands)  # what stood behind the works that went
        wake_s = self._next_wake()
        if wake_s != self._wake_s:
            self._wake_s = wake_s
            commands.append(WakeAt(wake_s))
        return commands

    def _arrive(self, work: Work, now: float, commands: list[BatcherCommand]) -> None:
        if work.deadline_s <= now and not self.rules.serve_late:
            commands.append(Refuse(work, Reason.EXPIRED))
            return
        hopeless = self._hopeless_s(work) < now
        if not hopeless:
            # A request that no size can serve says nothing about the size that is needed.
            self.arrivals.add(now, work.rows, work.sizing_deadline_s - now)
        if len(self.queue) + len(self.late) >= self.rules.max_queue and (
            hopeless or not self._make_room(work, commands)
        ):
            commands.append(Refuse(work, Reason.QUEUE_FULL))
            return
        self.queue.push(work)

    def _make_room(self, work: Work, commands: list[BatcherCommand]) -> bool:
        """Turn a waiting work away whose place `work` may have: a late one, or a less urgent one. False: there is none."""
        if len(self.late):
            victim = self.late.pop_last()
        else:
            last = self.queue.last() if self.rules.displace else None
            if last is None or last.deadline_s <= work.deadline_s:
                return False
            self.queue.cancel(last.key)
            victim = last
        commands.append(Refuse(victim, Reason.EVICTED))
        return True

    def _cancel(self, key: int, commands: list[BatcherCommand]) -> None:
        if self.queue.cancel(key) is None and self.late.cancel(key) is None:
            for batch, running in self.running.items():
                if running.members.pop(key, None) is not None:
                    if not running.members:
                        commands.append(Abandon(batch))
                    break

    def _done(self, batch: int, infer_s: float | None, sample: bool, now: float) -> None:
        running = self._ended(batch, now)
        if running is None:
            return
        if running.merged:
            self._halving.accepted(running.group)
        if not sample:
            return
        cores = running.mean_cores(now, self.model)
        if cores is not None:
            seconds = now - running.started_s if infer_s is None else infer_s
            self.model.observe(Sample(running.rows, cores, seconds, running.cold, running.rested_s), now)
        self._cold = False

    def _ended(self, batch: int, now: float) -> RunningBatch | None:
        running = self.running.pop(batch, None)
        if running is not None and not self.running:
            self._idle_since_s = now
        return running

    def _refused(self, batch: int, now: float) -> None:
        running = self._ended(batch, now)
        if running is None:
            return
        for work in self._halving.split(list(running.members.values())):
            self.queue.push(work)

    def _resize(self, cores: float, reach: float | None, now: float) -> None:
        self.cores = cores
        self.reach = max(cores, self.reach if reach is None else reach)
        for running in self.running.values():
            running.resize(now, cores / self.rules.max_inflight, self.model)

    def _give_up(self, now: float, commands: list[BatcherCommand]) -> None:
        for batch, running in self.running.items():
            if running.give_up_s <= now:
                commands += [Refuse(work, Reason.TIMEOUT) for work in running.pop_given_up(now)]
                if not running.members:
                    commands.append(Abandon(batch))
        commands += [Refuse(work, Reason.TIMEOUT) for work in self.late.pop_given_up(now)]

    def _drop_hopeless(self, now: float, commands: list[BatcherCommand]) -> None:
        dropped: list[Work] = []
        while (head := self.queue.first()) is not None and self._hopeless_s(head) < now:
            dropped.append(self.queue.pop())
        if not dropped:
            return
        if not len(self.queue) and not self.running and self._starved(now):
            # Of a call that is too large to be learned from the model would know no more than before.
            teaching = [work for work in dropped if now < work.deadline_s and work.rows <= MOST_ROWS]
            if teaching:
                candidate = max(teaching, key=lambda work: work.deadline_s)
                dropped.remove(candidate)
                self._probed_s = now
                self._dispatch([candidate], now, commands)
        for work in dropped:
            if self.rules.serve_late:
                self.late.push(work)
            else:
                reason = Reason.EXPIRED if work.deadline_s <= now else Reason.HOPELESS
                commands.append(Refuse(work, reason))

    def _hopeless_s(self, work: Work) -> float:
        """The last moment at which the work could start and still make its deadline on `reach` cores."""
        return work.deadline_s - self._latency_s(work.rows, self.reach)

    def _starved(self, now: float) -> bool:
        last = self.model.last_sample_s
        return now - max(self._probed_s, -math.inf if last is None else last) >= self.rules.probe_after_s

    def _fill(self, now: float, commands: list[BatcherCommand]) -> None:
        self._hold_s = None
        while len(self.running) < self.rules.max_inflight:
            works = self._choose(now)
            if not works:
                return
            self._dispatch(works, now, commands)

    def _choose(self, now: float) -> list[Work]:
        """Take out the works that start now; empty when none should."""
        if not len(self.queue):
            works = self.late.front_batch(self.rules.max_rows)
            self.late.take(works)
            return works
        rules = self.rules
        window = self.queue.prefix(self._window)
        longest = self._longest
        if self.queue.rows > len(self.queue):
            longest = min(max(longest, *(work.rows for work in window)), MOST_ROWS)
        median, cautious = self.model.tables(self.cores / rules.max_inflight, longest)
        works = choose_batch(window, now, rules.max_rows, median, cautious)
        if works and self.queue.ordered_twice:
            works = self._within_what_is_bought(works, now, median, cautious)
        if not works:
            works = self._choose_anyway(window, now, longest)
        elif self._window_is_cut and works[-1] is window[-1] and len(window) < len(self.queue):
            works = self._filled_up(works, window, now)
        elif len(works) == len(self.queue) and not len(self.late):
            rate = self.arrivals.rate(now)
            self._hold_s = rules.defer.hold_until(works, self._longest, now, rate, median, cautious)
            if self._hold_s is not None:
                return []
        if works:
            self.queue.take(works)
        return works

    def _filled_up(self, works: list[Work], window: list[Work], now: float) -> list[Work]:
        """`works`, which reach the end of what the plan looked at, and what follows, as long as all are of one kind and fit."""
        head, rules = works[0], self.rules
        cautious = self.model.tables(self.cores / rules.max_inflight, rules.max_rows)[1]
        fits = bisect_right(cautious, head.deadline_s - now, 1) - 1
        rows = sum(work.rows for work in works)
        following = self.queue.prefix(len(window) + rules.max_rows)[len(window) :]
        if any(work.group != head.group or work.cohort != head.cohort for work in window):
            return works
        filled = list(works)
        for work in following:
            rows += work.rows
            if rows > fits or work.group != head.group or work.cohort != head.cohort:
                break
            filled.append(work)
        return filled

    def _within_what_is_bought(self, works: list[Work], now: float, median: Table, cautious: Table) -> list[Work]:
        """`works`, or those that the sizing deadlines would choose, where `works` would cost others theirs.

        The demand plans by these deadlines. So a client that claims less time goes first where there are cores for it; it
        neither takes the others' nor makes the demand ask for more. As in the demand, there must be room for a newcomer.
        """
        rules = self.rules
        others = self.queue.sizing_prefix(self._window)
        newcomer = self.arrivals.newcomer(now, URGENT_SHARE, others[0].group)
        kept = others if newcomer is None else sorted([*others, newcomer], key=lambda work: work.sizing_deadline_s)
        if spares_others(kept, works, now, rules.max_rows, median, cautious):
            return works
        return choose_batch(others, now, rules.max_rows, median, cautious, sizing=True)

    def _choose_anyway(self, window: list[Work], now: float, longest: int) -> list[Work]:
        """The batch to start when no head fits with the cautious latency; empty when none is worth a start.

        A batch that fits at the median latency is better than an idle slot. A batch that fits only on `reach` cores starts
        too: the demand estimate then asks for a growth, which makes it fast enough.
        """
        for cores in (self.cores, self.reach):
            median, _ = self.model.tables(cores / self.rules.max_inflight, longest)
            works = choose_batch(window, now, self.rules.max_rows, median, median)
            if works:
                return works
        return []

    def _dispatch(self, works: list[Work], now: float, commands: list[BatcherCommand]) -> None:
        self._batches += 1
        members = tuple(works)
        each = self.cores / self.rules.max_inflight
        rested_s = 0.0 if self.running else now - self._idle_since_s
        self.running[self._batches] = RunningBatch(members, now, each, cold=self._cold, rested_s=rested_s)
        commands.append(Dispatch(self._batches, members))

    def _latency_s(self, rows: int, cores: float) -> float:
        return self.model.predict_s(rows, cores / self.rules.max_inflight)

    def _next_wake(self) -> float | None:
        wake_s = math.inf if self._hold_s is None else self._hold_s
        head = self.queue.first()
        if head is not None:
            wake_s = min(wake_s, math.nextafter(self._hopeless_s(head), math.inf))
        for running in self.running.values():
            wake_s = min(wake_s, running.give_up_s)
        late_s = self.late.next_give_up()
        if late_s is not None:
            wake_s = min(wake_s, late_s)
        return None if wake_s == math.inf else wake_s
