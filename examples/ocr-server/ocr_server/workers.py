"""How many rows of a batch are computed at once; follows the cores the server is given. No HTTP, no model."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Workers(Generic[T, R]):
    """One batch at a time, its rows side by side on `ceil(cores)` threads.

    A new core count holds from the next batch on; nothing is loaded again and the running batch is left alone.
    """

    def __init__(self, work: Callable[[T], R], cores: float) -> None:
        self._work = work
        self._most = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._most, thread_name_prefix="row")
        self._turn = asyncio.Lock()
        self.threads = self.resize(cores)

    def resize(self, cores: float) -> int:
        """Use `ceil(cores)` threads, at least one and at most the machine's; returns how many."""
        if not (math.isfinite(cores) and cores > 0):
            raise ValueError(f"cores must be a number above 0, not {cores!r}")
        self.threads = min(math.ceil(cores), self._most)
        return self.threads

    async def run(self, rows: Sequence[T]) -> list[R]:
        """The work done on each row, in order. When rows raise, one of their exceptions, after all threads are done."""
        async with self._turn:
            loop = asyncio.get_running_loop()
            threads = min(self.threads, len(rows))
            shares = [loop.run_in_executor(self._pool, self._share, rows[k::threads]) for k in range(threads)]
            outcomes = await asyncio.gather(*shares, return_exceptions=True)
        done: dict[int, R] = {}
        for first, outcome in enumerate(outcomes):
            if isinstance(outcome, BaseException):
                raise outcome
            done.update(zip(range(first, len(rows), threads), outcome, strict=True))
        return [done[index] for index in range(len(rows))]

    def _share(self, rows: Sequence[T]) -> list[R]:
        return [self._work(row) for row in rows]

    def close(self) -> None:
        """Let the threads finish what runs, then end them."""
        self._pool.shutdown()
