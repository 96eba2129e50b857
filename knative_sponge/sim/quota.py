"""A simulated pod whose model server computes on one thread under a CPU quota, enforced period by period as by the kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from knative_sponge.sim.pod import Pod, SimulatedBatch

PERIOD_S: Final = 0.1
"""The CFS period in Kubernetes."""
_NOTHING_S: Final = 1e-9


@dataclass(slots=True)
class _Quota:
    """CPU time used in one period. period: its number."""

    period: int = -1
    used_s: float = 0.0


class QuotaPod(Pod):
    """As `Pod`, but a batch runs at full speed until the period's quota is used up, and goes on in the next period.

    The latency of its `Server` on one core is the work of a batch in CPU-seconds; its other parts are ignored. For one upstream
    slot.
    """

    _quota = _Quota()

    def _ends_s(self, running: SimulatedBatch) -> float:
        return self._run(running, self._now, math.inf)[0]

    def _progress(self, running: SimulatedBatch) -> None:
        _, running.left, self._quota = self._run(running, running.since_s, self._now)

    def _end(self, batch: int, version: int) -> None:
        running = self._running.get(batch)
        if running is not None and running.version == version:
            self._progress(running)
        super()._end(batch, version)

    def _run(self, running: SimulatedBatch, at_s: float, until_s: float) -> tuple[float, float, _Quota]:
        """The time at which the batch is done, at most `until_s`; the share that is left then; and the quota used."""
        whole_s = self._server.latency.latency_s(running.rows, 1.0) * running.noise
        left_s = running.left * whole_s
        quota = replace(self._quota)
        while left_s > _NOTHING_S and at_s < until_s:
            period = int(at_s / PERIOD_S + _NOTHING_S)
            if period != quota.period:
                quota = _Quota(period)
            ends_s = min((period + 1) * PERIOD_S, until_s)
            runs_s = max(0.0, min(left_s, ends_s - at_s, self._cores * PERIOD_S - quota.used_s))
            quota.used_s += runs_s
            left_s -= runs_s
            at_s = at_s + runs_s if left_s <= _NOTHING_S else ends_s
        return at_s, left_s / whole_s, quota
