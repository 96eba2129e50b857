"""What a CPU quota lets a rested model server run ahead of its cores: tells a batch's cost from its latency.

Theory
------
A quota of c cores is c·P CPU-seconds in every period P. k threads that run use it up in a share q = c/k of the period and
wait for the rest of it. A server that is asked now and then finds its quota untouched: a batch runs at full speed until
the quota is gone. So a latency that was measured at rest says nothing about how often such batches can be served, which is
what cores are for: 40 ms of work on half a core take 40 ms now and then, and 80 ms in the long run. Sizes that follow
from the former alternate under a steady load: small ones until a queue shows that they are, large ones until it is gone.
And no curve of the form of `LatencyParams` goes through both, where 80 ms on half a core and 40 ms on a whole one is one.

So latency (s, measured) and cost (u, seconds of the size that a batch uses up) are told apart, by a token bucket. At rest
it fills, one second of the size per second, up to what one period's quota is used up early: ``P·(1 − q)``, the same as the
longest wait for the next one. A batch costs what it took and what it drew from the bucket, at most as if its threads
had run all the time:

    u = min(s/q, s + credit)        credit ← credit − (u − s)

In a long busy run the bucket is empty, and cost is latency, whatever the server waits for. With q ≥ 1 there is neither.

Whose wait it is, is another matter. When the bucket is empty, a batch waits for what the batches before it used up, and
while it waits the next one grows larger: one by one, large batches look cheap and small ones dear, so that nothing seems
as good as ever larger ones. On the whole that evens out, and as the curve is linear in rows, the mean batch of a busy
run costs the mean of what its batches did. So they are counted together, until one leaves something in the bucket or
for some periods.
What a server does in the meantime is not known: one that waits for a disk counts as one that computes, until a busy run
shows otherwise.
"""

from __future__ import annotations

from math import inf
from typing import Final

from knative_sponge.core.latency.curve import Sample

_PERIODS: Final = 5.0
"""Batches of a busy run are counted together over so many periods. The unfinished part of the last period is then a tenth of
them on average."""


def longest_wait_s(cores: float, threads: int, period_s: float) -> float:
    """``P·(1 − q)``: the longest wait for the next period's quota, and the most that a rested batch runs ahead."""
    return period_s * max(0.0, 1.0 - cores / threads)


class Credit:
    """The token bucket. threads: how many run at once, k. period_s: of the quota; 0 where none is enforced."""

    __slots__ = ("_cores", "_cost_s", "_count", "_credit_s", "_period_s", "_rows", "_threads")

    def __init__(self, threads: int, period_s: float) -> None:
        self._threads = threads
        self._period_s = period_s
        self._credit_s = inf
        self._cores = 0.0
        self._forget_run()

    def _forget_run(self) -> None:
        self._count, self._rows, self._cost_s = 0, 0.0, 0.0

    def mean_cost(self, sample: Sample) -> Sample | None:
        """The measurement of cost that this batch completes; its `seconds` are the cost.

        It is about this batch alone, or about the mean batch of a busy run. None while a busy run goes on. Call it once for
        each batch, in order.
        """
        cost_s = self.cost_s(sample)
        rested = sample.rested_s >= self._period_s
        if rested or sample.cores != self._cores:
            self._forget_run()  # a run this short does not show which batch caused the waits
        self._cores = sample.cores
        if rested:
            return Sample(sample.rows, sample.cores, cost_s)
        self._count += 1
        self._rows += sample.rows
        self._cost_s += cost_s
        if self._credit_s <= 0.0 and sample.cores < self._threads and self._cost_s < _PERIODS * self._period_s:
            return None
        mean = Sample(self._rows / self._count, sample.cores, self._cost_s / self._count)
        self._forget_run()
        return mean

    def cost_s(self, sample: Sample) -> float:
        """Seconds of its size that a batch used up, at least its latency. Call it once for each batch, in order."""
        credit_s = min(longest_wait_s(sample.cores, self._threads, self._period_s), self._credit_s + sample.rested_s)
        drawn_s = max(0.0, min(credit_s, sample.seconds * (self._threads / sample.cores - 1.0)))
        self._credit_s = credit_s - drawn_s
        return sample.seconds + drawn_s
