"""Keeps the size in force at what the proxy wants: demand line → clamp → apply → tell; chooses no size of its own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from knative_sponge.core.backoff import Backoff
from knative_sponge.errors import WireError
from knative_sponge.local.cpu.control import CpuControl
from knative_sponge.local.history import CoresHistory
from knative_sponge.wire.client import AdminClient
from knative_sponge.wire.cores import CoresMessage, Phase
from knative_sponge.wire.demand import DemandLine

_FIRST_RETRY_S: Final = 0.05
_LAST_RETRY_S: Final = 1.0
"""Between two tries to open the demand stream, growing from the first."""


@dataclass(frozen=True, slots=True)
class CoresRange:
    """Least and most cores."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(f"bounds must be positive and in order, not {self.low} and {self.high}")

    def size(self, want: float, granularity: float) -> float:
        """The least size that is a multiple of `granularity`, satisfies `want` and keeps the bounds."""
        steps = math.ceil(min(max(want, self.low), self.high) / granularity - 1e-9)
        return min(round(steps * granularity, 9), self.high)  # without the noise of the multiplication


@dataclass(frozen=True, slots=True)
class Resized:
    """One change of size, for people."""

    before: float
    after: float
    demand: DemandLine


class Follower:
    """Follows one proxy's demand stream, each line at once; a newer line replaces one that waits.

    The order is the model server's (docs/design.md §4.11): growth is in force before anyone is told, so that threads are added
    to cores that are there; before a shrink the proxy is told, so that it lowers threads first. Without the proxy's answer
    nothing shrinks. When the stream ends the last size stays, and the stream is opened again.
    """

    def __init__(
        self,
        control: CpuControl,
        admin: AdminClient,
        bounds: CoresRange,
        history: CoresHistory,
        *,
        cores: float,
        clock: Callable[[], float],
        resized: Callable[[Resized], None],
        trouble: Callable[[str], None],
    ) -> None:
        """`cores` is in force now, and the proxy was started with it. `trouble` gets each new complaint once."""
        self.cores = cores
        self._control = control
        self._admin = admin
        self._bounds = bounds
        self._history = history
        self._told: float | None = cores
        self._clock = clock
        self._resized = resized
        self._trouble = trouble
        self._last_trouble = ""
        self._latest: DemandLine | None = None
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._act())

    async def _listen(self) -> None:
        backoff = Backoff(_FIRST_RETRY_S, _LAST_RETRY_S)

        def heard(demand: DemandLine) -> None:
            backoff.succeeded()
            self._latest = demand
            self._news.set()

        while True:
            try:
                await self._admin.listen(heard)
                self._complain("the demand stream ended")
            except WireError as error:
                self._complain(str(error))
            await asyncio.sleep(backoff.wait_s())

    async def _act(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._latest is not None:
                try:
                    await self._follow(self._latest)
                except (WireError, OSError) as error:
                    self._complain(f"cores stay at {self.cores:g}: {error}")
                else:
                    self._last_trouble = ""

    async def _follow(self, demand: DemandLine) -> None:
        target = self._bounds.size(demand.want, self._control.granularity_cores)
        step = target - self.cores
        if abs(step) < self._control.granularity_cores / 2:
            if self._told != self.cores:
                await self._tell(Phase.ACTUATED, self.cores)
            return
        before = self.cores
        if step < 0:
            await self._tell(Phase.PATCHED, target)
        self.cores = self._control.apply(target)
        self._history.record(self._clock(), self.cores)
        self._resized(Resized(before, self.cores, demand))
        await self._tell(Phase.ACTUATED, self.cores)

    async def _tell(self, phase: Phase, cores: float) -> None:
        self._told = None
        await self._admin.put_cores(CoresMessage(cores, phase))
        if phase is Phase.ACTUATED:
            self._told = cores

    def _complain(self, text: str) -> None:
        if text != self._last_trouble:
            self._last_trouble = text
            self._trouble(text)
