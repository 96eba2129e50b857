"""How long one decision takes: EDF dispatch at 10,000 queued, and the least cores for 100 queued × 32 batches × 16 cores.

`python -m benchmarks.decisions`. Medians of repeated runs in one process; nothing else is measured here.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

from knative_sponge.core.batching.batcher import Batcher, BatchRules
from knative_sponge.core.batching.defer import DeferRules
from knative_sponge.core.batching.events import Arrived, BatchDone, Dispatch
from knative_sponge.core.batching.plan import choose_batch
from knative_sponge.core.batching.work import Work
from knative_sponge.core.demand.estimator import CoresRules, DemandEstimator
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel

RESNET18 = LatencyParams(0.018290, 0.004488, 0.045469, 0.001046)


def median_us(run: Callable[[], object], repeats: int = 400) -> float:
    """Median microseconds of one call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def queued(count: int, spread_s: float, rng: random.Random, cores: float) -> Batcher:
    """A batcher whose slot is busy and whose queue holds `count` works with deadlines over `spread_s`."""
    batcher = Batcher(
        BatchRules(max_queue=20_000, defer=DeferRules(mode="never")), LatencyModel(RESNET18), cores, cores
    )
    batcher.handle(Arrived(Work(0, 1e6)), 0.0)
    for key in range(1, count + 1):
        deadline_s = 0.5 + rng.uniform(0.0, spread_s)
        batcher.handle(Arrived(Work(key, deadline_s)), 0.0)
    return batcher


def dispatch(label: str, spread_s: float) -> None:
    """Choosing a batch, and the whole step from one batch's end to the next one's dispatch."""
    rng = random.Random(1)
    batcher = queued(10_000, spread_s, rng, 8.0)
    median, cautious = batcher.model.tables(8.0, 32)
    choose = median_us(lambda: choose_batch(batcher.queue.prefix(3 * 32), 0.0, 32, median, cautious))
    running = [next(iter(batcher.running))]
    steps = []
    for step in range(200):
        start = time.perf_counter()
        commands = batcher.handle(BatchDone(running[0], sample=False), 1e-6 * step)
        steps.append(time.perf_counter() - start)
        sent = next(command for command in commands if isinstance(command, Dispatch))
        running[0] = sent.batch
        for work in sent.works:  # keep 10,000 queued
            batcher.handle(Arrived(Work(work.key + 20_000, 0.5 + rng.uniform(0.0, spread_s))), 1e-6 * step)
    step_us = statistics.median(steps) * 1e6
    print(
        f"EDF decision, 10,000 queued, {label}: {choose:.1f} us; batch end to dispatch of the next 32: {step_us:.1f} us"
    )


def solve(label: str, spread_s: float, least_s: float) -> None:
    """The least cores for 100 queued works."""
    batcher = queued(0, 0.0, random.Random(2), 4.0)
    rng = random.Random(3)
    for key in range(1, 101):
        batcher.handle(Arrived(Work(key, least_s + rng.uniform(0.0, spread_s))), 0.0)
    estimator = DemandEstimator(CoresRules(0.1, 16.0), batcher)
    need = estimator.need(0.0)
    took = median_us(lambda: estimator.need(0.0), repeats=100)
    model = batcher.model

    def uncached() -> None:
        model._tables.clear()
        estimator.need(0.0)

    fresh = median_us(uncached, repeats=100)
    print(
        f"solver, 16 cores x 32 batches x 100 queued, {label}: {fresh:.0f} us (model cached: {took:.0f} us), need {need:.3f}"
    )


def hostile() -> None:
    """A full queue as strangers may choose it, with the largest batches: half of it in one lane, each other work in its own."""
    rng = random.Random(4)
    rules = BatchRules(max_rows=4096, defer=DeferRules(mode="never"))
    batcher = Batcher(rules, LatencyModel(RESNET18), 4.0, 16.0)
    batcher.handle(Arrived(Work(0, 1e6)), 0.0)
    for key in range(1, 10_001):
        deadline_s = 0.3 + rng.uniform(0.0, 0.6)
        batcher.handle(Arrived(Work(key, deadline_s, rows=rng.randint(1, 3), group=key if key % 2 else 0)), 0.0)
    estimator = DemandEstimator(CoresRules(0.1, 16.0, headroom=None), batcher)
    median, cautious = batcher.model.tables(4.0, 1024)
    choose = median_us(lambda: choose_batch(batcher.queue.prefix(512), 0.0, 4096, median, cautious), repeats=40)
    need = median_us(lambda: estimator.need(0.0), repeats=20)
    curve = median_us(lambda: estimator.curve(0.0), repeats=20)
    print(
        f"10,000 queued in 5,001 lanes, batches of 4096: decision {choose:.0f} us, need {need:.0f} us, curve {curve:.0f} us"
    )


def main() -> None:
    """Print every figure."""
    dispatch("all can make it", 60.0)
    dispatch("three times too many", 0.6)
    solve("light", 3.0, 2.0)
    solve("tight", 0.6, 0.3)
    solve("hopeless for most", 0.1, 0.05)
    hostile()


if __name__ == "__main__":
    main()
