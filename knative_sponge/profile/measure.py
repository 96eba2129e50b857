"""Latency of a model server over a grid of batch sizes and cores, one call at a time. It starts no server and fits nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from knative_sponge.core.latency.curve import Sample


class SizedServer(Protocol):
    """A model server whose cores can be set."""

    async def resize(self, cores: float) -> float:
        """Hold the server to so many cores; returns the size in force."""
        ...

    async def infer(self, rows: int) -> None:
        """Make one call with a batch of so many rows and read its answer. Raises SpongeError when it is not answered."""
        ...


async def measure(
    server: SizedServer,
    rows: Sequence[int],
    cores: Sequence[float],
    *,
    budget_s: float,
    progress: Callable[[float], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Sample]:
    """Measure the whole grid, round after round, until `budget_s` seconds are spent; at least one round is completed.

    Rounds spread a disturbance of the machine over all points. Each call follows the one before at once, so that no CPU quota
    is saved up. The first call after each change of size is not counted. progress: is given the share of the budget spent.
    """
    if not rows or not cores:
        raise ValueError("the grid is empty")
    start_s = clock()
    samples: list[Sample] = []
    while True:
        for wanted in cores:
            size = await server.resize(wanted)
            await server.infer(min(rows))
            for batch in rows:
                before_s = clock()
                await server.infer(batch)
                samples.append(Sample(batch, size, clock() - before_s))
                progress(min((clock() - start_s) / budget_s, 1.0))
        if clock() - start_s >= budget_s:
            return samples
